//! The tables of the mesh, as Markdown, and what became of each target.

use std::fmt::Write as _;

use anyhow::Result;

use super::{
    Options,
    contestant::Contestant,
    memory::Memory,
    pick::Picks,
    rounds::{Load, Measured, Sample, Samples, Setting},
};
use crate::{
    figures::Spread,
    report::{processor, shown, verdict},
};

/// How the mesh has to compare with bare tonic.
const RATE_AT_64_MIN: f64 = 1.3;
const RATE_AT_64_OF_MANY_MIN: f64 = 1.0;
const RATE_MIN: f64 = 0.95;
const P99_MAX: f64 = 1.1;
/// Processor time that the mesh may add to a call, both sides together, in microseconds.
const ADDED_US_MAX: f64 = 10.0;
/// The same, of what Envoy adds.
const ADDED_OF_ENVOY_MAX: f64 = 0.1;
const BYTES_PER_ENDPOINT_MAX: f64 = 4096.0;
const PICK_NS_MAX: u128 = 200;

/// Everything that was measured, as Markdown.
pub(crate) fn text(
    options: &Options,
    measured: &Measured,
    memory: &Memory,
    picks: &Picks,
) -> Result<String> {
    let mut text = format!(
        "{} cores ({}); {} rounds of {} ms for each load, interleaved. Medians, in parentheses the range of the rounds. \
         Ratios and differences are taken round by round. CPU is processor time of a call in microseconds.\n",
        std::thread::available_parallelism()?,
        processor()?,
        options.rounds,
        options.length_ms,
    );
    writeln!(
        text,
        "\n{memory} Target ≤ {BYTES_PER_ENDPOINT_MAX}: {}.",
        verdict(memory.bytes_per_endpoint <= BYTES_PER_ENDPOINT_MAX)
    )?;
    let fast = picks.0.iter().all(|pick| pick.as_nanos() <= PICK_NS_MAX);
    writeln!(
        text,
        "\n{picks} Target ≤ {PICK_NS_MAX} ns each: {}.",
        verdict(fast)
    )?;
    for (setting, samples) in &measured.settings {
        section(&mut text, *setting, samples)?;
    }
    for skipped in &measured.skipped {
        writeln!(text, "\n{skipped}.")?;
    }
    Ok(text)
}

fn section(text: &mut String, setting: Setting, samples: &Samples) -> Result<()> {
    let processors = if setting.spinning {
        "a spinner on each core"
    } else {
        "idle cores may sleep"
    };
    writeln!(
        text,
        "\n### The mesh, {}, {processors}\n",
        setting.security.name()
    )?;
    writeln!(
        text,
        "| load | calls through | a second | × tonic | p50, µs | p99, µs | × tonic | CPU of client, server, between | \
         added CPU | errors |"
    )?;
    writeln!(text, "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")?;
    for (&key, rounds) in samples {
        let (load, contestant) = key;
        let of = |value: fn(&Sample) -> f64| spread(rounds, value);
        let beside = Comparison::new(samples, key, Contestant::Tonic);
        let [client, server, between] =
            [0, 1, 2].map(|part| median(rounds.iter().map(|sample| sample.cpu_us[part])));
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {client:.1}, {server:.1}, {between:.1} | {} | {} |",
            named(load),
            contestant.name(),
            show(of(|sample| sample.rate), 0),
            show(beside.ratio(|sample| sample.rate), 2),
            show(of(|sample| sample.p50_us), 0),
            show(of(|sample| sample.p99_us), 0),
            show(beside.ratio(|sample| sample.p99_us), 2),
            show(beside.difference(Sample::cpu_us), 1),
            rounds.iter().map(|sample| sample.errors).sum::<u64>(),
        )?;
    }
    let late = samples
        .iter()
        .filter(|((load, _), _)| matches!(load, Load::Open(_)))
        .flat_map(|(_, rounds)| rounds.iter().map(|sample| sample.late_p99_us));
    if let Some(late) = Spread::of(&late.collect::<Vec<_>>()) {
        writeln!(
            text,
            "\nIn open loops latency counts from the moment at which a call was meant to be sent; the loader sent the \
             latest hundredth {} µs after it.",
            shown(late, 0)
        )?;
    }
    targets(text, samples)
}

/// One line for each target that the setting has the figures for.
fn targets(text: &mut String, samples: &Samples) -> Result<()> {
    if !samples.keys().any(|(_, who)| *who == Contestant::Mesh) {
        return Ok(());
    }
    writeln!(text, "\n| target | load | measured | |\n|---|---|---:|---|")?;
    let mut line = |what: &str, load: Load, spread: Option<Spread>, bound: Bound, decimals| {
        let Some(spread) = spread else {
            return Ok(()); // Somebody was not measured.
        };
        let reached = verdict(bound.holds(spread.median));
        let measured = shown(spread, decimals);
        writeln!(
            text,
            "| {what} {bound} | {} | {measured} | {reached} |",
            named(load)
        )
    };
    let mut loads: Vec<_> = samples.keys().map(|(load, _)| *load).collect();
    loads.dedup();
    for load in loads {
        let mesh = (load, Contestant::Mesh);
        let beside = |other| Comparison::new(samples, mesh, other);
        let tonic = beside(Contestant::Tonic);
        if let Load::Closed(concurrent) = load {
            let least = if concurrent == 64 {
                RATE_AT_64_MIN
            } else {
                RATE_MIN
            };
            let rate = tonic.ratio(|sample| sample.rate);
            line(
                "calls a second, × tonic",
                load,
                rate,
                Bound::AtLeast(least),
                2,
            )?;
            if concurrent == 64 {
                let rate = beside(Contestant::TonicMany).ratio(|sample| sample.rate);
                let least = Bound::AtLeast(RATE_AT_64_OF_MANY_MIN);
                line("calls a second, × as many Channels", load, rate, least, 2)?;
            }
        }
        let p99 = tonic.ratio(|sample| sample.p99_us);
        line("p99, × tonic", load, p99, Bound::AtMost(P99_MAX), 2)?;
        let added = tonic.difference(Sample::cpu_us);
        line("added CPU, µs", load, added, Bound::AtMost(ADDED_US_MAX), 1)?;
        let of_envoy = added_of_envoy(samples, load);
        line(
            "added CPU, × Envoy's",
            load,
            of_envoy,
            Bound::AtMost(ADDED_OF_ENVOY_MAX),
            3,
        )?;
    }
    Ok(())
}

/// What the mesh adds to a call of tonic, by what Envoy adds.
fn added_of_envoy(samples: &Samples, load: Load) -> Option<Spread> {
    let rounds = |contestant| samples.get(&(load, contestant));
    let (tonic, mesh) = (rounds(Contestant::Tonic)?, rounds(Contestant::Mesh)?);
    let added = |rounds: &[Sample]| -> Vec<f64> {
        let pairs = rounds.iter().zip(tonic);
        pairs
            .map(|(own, bare)| own.cpu_us() - bare.cpu_us())
            .collect()
    };
    let envoy = added(rounds(Contestant::Envoy)?);
    let ratios = added(mesh)
        .into_iter()
        .zip(envoy)
        .map(|(mesh, envoy)| mesh / envoy);
    Spread::of(&ratios.collect::<Vec<_>>())
}

/// A contestant beside another one under the same load.
struct Comparison<'a> {
    own: Option<&'a Vec<Sample>>,
    other: Option<&'a Vec<Sample>>,
}

impl<'a> Comparison<'a> {
    fn new(samples: &'a Samples, key: (Load, Contestant), other: Contestant) -> Comparison<'a> {
        Comparison {
            own: samples.get(&key),
            other: samples.get(&(key.0, other)),
        }
    }

    /// Round by round.
    fn each(&self, value: fn(&Sample) -> f64, compare: fn(f64, f64) -> f64) -> Option<Spread> {
        let pairs = self.own?.iter().zip(self.other?);
        let compared = pairs.map(|(own, other)| compare(value(own), value(other)));
        Spread::of(&compared.collect::<Vec<_>>())
    }

    fn ratio(&self, value: fn(&Sample) -> f64) -> Option<Spread> {
        self.each(value, |own, other| own / other)
    }

    fn difference(&self, value: fn(&Sample) -> f64) -> Option<Spread> {
        self.each(value, |own, other| own - other)
    }
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Bound::AtLeast(least) => value >= least,
            Bound::AtMost(most) => value <= most,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bound::AtLeast(least) => write!(f, "≥ {least}"),
            Bound::AtMost(most) => write!(f, "≤ {most}"),
        }
    }
}

fn spread(rounds: &[Sample], value: fn(&Sample) -> f64) -> Option<Spread> {
    Spread::of(&rounds.iter().map(value).collect::<Vec<_>>())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    Spread::of(&values.collect::<Vec<_>>()).map_or(0.0, |spread| spread.median)
}

fn show(spread: Option<Spread>, decimals: usize) -> String {
    spread.map_or_else(String::new, |spread| shown(spread, decimals))
}

fn named(load: Load) -> String {
    match load {
        Load::Closed(concurrent) => format!("{concurrent} at a time"),
        Load::Open(rate) => format!("{rate} a second"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rate: f64, cpu_us: f64) -> Sample {
        Sample {
            rate,
            p50_us: 100.0,
            p99_us: 200.0,
            late_p99_us: 0.0,
            connections: 1,
            errors: 0,
            cpu_us: [cpu_us, 0.0, 0.0],
        }
    }

    fn samples() -> Samples {
        let load = Load::Closed(64);
        Samples::from([
            (
                (load, Contestant::Tonic),
                vec![sample(100.0, 50.0), sample(200.0, 60.0)],
            ),
            (
                (load, Contestant::Mesh),
                vec![sample(150.0, 58.0), sample(260.0, 72.0)],
            ),
            (
                (load, Contestant::Envoy),
                vec![sample(20.0, 150.0), sample(20.0, 260.0)],
            ),
        ])
    }

    #[test]
    fn everything_is_compared_round_by_round() {
        let samples = samples();
        let key = (Load::Closed(64), Contestant::Mesh);
        let beside = Comparison::new(&samples, key, Contestant::Tonic);
        let show = |spread: Option<Spread>| shown(spread.unwrap(), 2);
        assert_eq!(show(beside.ratio(|sample| sample.rate)), "1.40 (1.30–1.50)");
        assert_eq!(
            show(beside.difference(Sample::cpu_us)),
            "10.00 (8.00–12.00)"
        );
        assert_eq!(show(added_of_envoy(&samples, key.0)), "0.07 (0.06–0.08)");
        let absent = Comparison::new(&samples, key, Contestant::Haproxy);
        assert_eq!(absent.ratio(|sample| sample.rate), None);
    }

    #[test]
    fn a_target_is_reached_or_missed_by_its_median() {
        let mut text = String::new();
        targets(&mut text, &samples()).unwrap();
        assert!(text.contains(
            "| calls a second, × tonic ≥ 1.3 | 64 at a time | 1.40 (1.30–1.50) | reached |"
        ));
        assert!(text.contains("| added CPU, µs ≤ 10 | 64 at a time | 10.0 (8.0–12.0) | reached |"));
        assert!(text.contains("| added CPU, × Envoy's ≤ 0.1 |"));
        assert!(!text.contains("as many Channels"), "they were not measured");
    }
}
