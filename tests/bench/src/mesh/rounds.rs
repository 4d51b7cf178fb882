//! The rounds: each contestant under each load, one after another, again and again; for each setting.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, ensure};
use xtask::process::command;

use super::{
    Options,
    certificates::Certificates,
    contestant::{Contestant, Security, order},
    loader::Seen,
    server::Kind,
    spinner,
    stage::{Cast, Party, Stage, said},
};

/// The circumstances of some rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) security: Security,
    /// Whether every processor is kept awake.
    pub(crate) spinning: bool,
}

/// What a contestant is put under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Load {
    /// So many callers.
    Closed(usize),
    /// So many calls a second.
    Open(u32),
}

/// What one load of one round came to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) rate: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) late_p99_us: f64,
    pub(crate) connections: usize,
    pub(crate) errors: u64,
    /// Processor time of a call in microseconds: of the client, of the server, of what stands between them.
    pub(crate) cpu_us: [f64; 3],
}

impl Sample {
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    fn of(seen: &Seen) -> Result<Sample> {
        let calls = seen.calls + seen.errors.values().sum::<u64>();
        ensure!(calls > 0, "no call was made");
        let each_us = |ns: u64| ns as f64 / 1e3 / calls as f64;
        let [client, server, sidecars @ ..] = seen.cpu_ns.as_slice() else {
            anyhow::bail!("the loader says nothing of the server's time");
        };
        Ok(Sample {
            rate: seen.rate,
            p50_us: seen.p50_us,
            p99_us: seen.p99_us,
            late_p99_us: seen.late_p99_us,
            connections: seen.connections,
            errors: seen.errors.values().sum(),
            cpu_us: [
                each_us(*client),
                each_us(*server),
                each_us(sidecars.iter().sum()),
            ],
        })
    }

    /// Of all processes.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.cpu_us.iter().sum()
    }
}

/// The samples of a setting, one a round.
pub(crate) type Samples = BTreeMap<(Load, Contestant), Vec<Sample>>;

/// Everything.
pub(crate) struct Measured {
    pub(crate) settings: Vec<(Setting, Samples)>,
    /// Whoever could not be measured, and why.
    pub(crate) skipped: Vec<String>,
}

/// Runs all rounds of all settings.
pub(crate) fn all(options: &Options, folder: &Path) -> Result<Measured> {
    let certificates = Certificates::make(folder)?;
    let wanted = Contestant::ALL.into_iter();
    let cast = Cast::of(wanted.filter(|contestant| options.wants(*contestant)));
    let mut settings = Vec::new();
    for security in [Security::Plain, Security::Mtls] {
        if security == Security::Mtls && options.no_tls {
            continue;
        }
        for spinning in [false, true] {
            if spinning && options.no_spinner {
                continue;
            }
            let _spinners = spinning.then(spinner::start).transpose()?;
            let set = || Stage::set(&cast, security, &certificates, folder);
            let setting = Setting { security, spinning };
            let samples = rounds(options, set, &certificates, setting)?;
            settings.push((setting, samples));
        }
    }
    Ok(Measured {
        settings,
        skipped: cast.skipped,
    })
}

/// The rounds of a setting, each on a stage of its own: where the kernel happens to place a process's threads makes
/// one process a third faster than the next.
fn rounds(
    options: &Options,
    set: impl Fn() -> Result<Stage>,
    certificates: &Certificates,
    setting: Setting,
) -> Result<Samples> {
    let closed = options.concurrent.iter().copied().map(Load::Closed);
    let loads: Vec<_> = closed
        .chain(options.rates.iter().copied().map(Load::Open))
        .collect();
    let mut samples = Samples::new();
    for round in 0..options.rounds {
        let stage = set()?;
        for &load in &loads {
            for contestant in order(round) {
                let Some(party) = stage.parties.get(&contestant) else {
                    continue;
                };
                let connections = connections_of_the_mesh(&samples, load);
                let sample = sample(options, party, contestant, connections, certificates, load)
                    .with_context(|| format!("{}, {load:?}", contestant.name()))?;
                println!(
                    "{}, spinning: {}, round {}, {load:?}: {} {:.0}/s, p99 {:.0} us, {:.1} us CPU, {} errors",
                    setting.security.name(),
                    setting.spinning,
                    round + 1,
                    contestant.name(),
                    sample.rate,
                    sample.p99_us,
                    sample.cpu_us(),
                    sample.errors
                );
                samples.entry((load, contestant)).or_default().push(sample);
            }
        }
    }
    Ok(samples)
}

/// How many connections the mesh has last had under this load; one, where it was not measured.
fn connections_of_the_mesh(samples: &Samples, load: Load) -> usize {
    let of_the_mesh = samples.get(&(load, Contestant::Mesh));
    let last = of_the_mesh.and_then(|samples| samples.last());
    last.map_or(1, |sample| sample.connections.max(1))
}

fn sample(
    options: &Options,
    party: &Party,
    contestant: Contestant,
    connections_of_the_mesh: usize,
    certificates: &Certificates,
    load: Load,
) -> Result<Sample> {
    let kind = match contestant {
        Contestant::Mesh => Kind::Mesh,
        _ => Kind::Tonic,
    };
    let channels = match contestant {
        Contestant::TonicMany => connections_of_the_mesh,
        _ => 1,
    };
    let mut loader = command(std::env::current_exe()?);
    loader.args(["mesh-load", "--kind", kind.name()]);
    loader.args(["--address", &party.address.to_string()]);
    loader.args(["--channels", &channels.to_string()]);
    if party.client_tls {
        loader.arg("--certificates").arg(certificates.folder());
    }
    match load {
        Load::Closed(concurrent) => loader.args(["--concurrent", &concurrent.to_string()]),
        Load::Open(rate) => loader.args(["--rate", &rate.to_string()]),
    };
    let length_ms = options.length().as_millis();
    loader.args(["--length-ms", &length_ms.to_string()]);
    let watched: Vec<_> = party.ids().iter().map(u32::to_string).collect();
    loader.args(["--watch", &watched.join(",")]);
    let line = said(&mut loader, &certificates.file("loader.log"))?;
    Sample::of(&serde_json::from_str(&line).context("the loader says something else")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_call_is_split_between_the_processes() {
        let seen = Seen {
            calls: 900,
            errors: BTreeMap::from([("Unavailable".to_owned(), 100)]),
            cpu_ns: vec![10_000_000, 20_000_000, 30_000_000, 40_000_000],
            ..Seen::default()
        };
        let sample = Sample::of(&seen).unwrap();
        assert_eq!(format!("{:?}", sample.cpu_us), "[10.0, 20.0, 70.0]");
        assert_eq!(sample.errors, 100);
        assert!(Sample::of(&Seen::default()).is_err());
    }

    #[test]
    fn as_many_channels_are_opened_as_the_mesh_had_connections_last() {
        let load = Load::Closed(64);
        let mut samples = Samples::new();
        assert_eq!(connections_of_the_mesh(&samples, load), 1);
        let seen = Seen {
            calls: 1,
            connections: 3,
            cpu_ns: vec![0, 0],
            ..Seen::default()
        };
        let sample = Sample::of(&seen).unwrap();
        samples.insert((load, Contestant::Mesh), vec![sample]);
        assert_eq!(connections_of_the_mesh(&samples, load), 3);
    }
}
