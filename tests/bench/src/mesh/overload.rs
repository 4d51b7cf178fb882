//! `cargo xtask bench overload`: what a server of the mesh still serves that is asked for five times as much as it can, and
//! what it costs to refuse the rest.
//!
//! A server's peak is set by its workers, each of which a call keeps for a while without any work of the processor, so
//! that neither the server nor the loader is short of processors. The peak is measured by as many callers as there are
//! workers; then come critical calls for three tenths of it and sheddable ones for all the rest of the load. The callers
//! are bare tonic: nothing on their side holds back or tries again.
//!
//! What a refusal costs is the server's processor time of a call where 64 callers are refused at once, again and again,
//! beside that of an answer of bare tonic to as many.

use std::{net::SocketAddr, path::Path, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tonic::Code;
use xtask::{
    process::command,
    servers::{free_address, program},
};

use super::{
    loader::Seen,
    server::Kind,
    stage::{Process, said},
};
use crate::{
    figures::Spread,
    report::{processor, shown, verdict, write},
};

/// Each of them is kept for [`TAKES_MS`] by a call: 200 calls a second.
const WORKERS: u32 = 20;
const TAKES_MS: u32 = 100;
const PEAK_PER_S: u32 = WORKERS * 1_000 / TAKES_MS;
/// Of the load of five peaks.
const CRITICAL_PER_S: u32 = PEAK_PER_S * 3 / 10;
const SHEDDABLE_PER_S: u32 = 5 * PEAK_PER_S - CRITICAL_PER_S;
/// Who is refused again and again.
const CALLERS: usize = 64;
/// For the peak, and for what a call costs.
const SHORT: Duration = Duration::from_secs(2);
/// What the server needs to be full, and to learn what it can bear.
const FILLING: Duration = Duration::from_secs(2);

const GOODPUT_MIN: f64 = 0.9;
const CRITICAL_MIN: f64 = 0.999;
const REFUSAL_US_MAX: f64 = 20.0;
const PROCESSORS_MAX: f64 = 0.25;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rounds; what is reported is their median and their range.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long the overload lasts in a round, after it has filled the server.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Write the table into docs/performance.md.
    #[arg(long)]
    write: bool,
}

/// What a round came to.
struct Round {
    /// Calls served a second under five times the load, of those at the peak.
    goodput: f64,
    critical: u64,
    critical_failed: u64,
    /// The part of all processors that server and loaders used meanwhile.
    processors: f64,
    /// The server's processor time of a call, in microseconds.
    refusal_us: f64,
    answer_us: f64,
}

/// Measures and reports. To be called from the main thread: the processes end with the thread that started them.
pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut rounds = Vec::with_capacity(options.rounds);
    for number in 0..options.rounds {
        let round = round(Duration::from_secs(options.seconds), folder.path())?;
        println!(
            "round {number}: goodput {:.3}, {} of {} critical calls failed, {:.0} % of the processors, a refusal {:.1} us, \
             an answer of bare tonic {:.1} us",
            round.goodput,
            round.critical_failed,
            round.critical,
            100.0 * round.processors,
            round.refusal_us,
            round.answer_us
        );
        rounds.push(round);
    }
    let report = text(options, &rounds)?;
    println!("\n{report}");
    if options.write {
        write("overload", &report)?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn round(length: Duration, folder: &Path) -> Result<Round> {
    let (workers, takes_ms) = (WORKERS.to_string(), TAKES_MS.to_string());
    let busy = ["--workers", &workers, "--takes-ms", &takes_ms];
    let (address, server) = serve(Kind::Mesh, &busy, folder)?;
    let loader =
        |arguments: &[&str], name: &str| load(address, server.id(), arguments, &folder.join(name));
    let short_ms = SHORT.as_millis().to_string();
    let peak = loader(
        &["--concurrent", &workers, "--length-ms", &short_ms],
        "peak",
    )?;
    let flood = |rate: u32, sheddable: &[&str], name: &str| {
        let (rate, length_ms) = (rate.to_string(), length.as_millis().to_string());
        let filling_ms = FILLING.as_millis().to_string();
        let timed = ["--rate", &rate, "--length-ms", &length_ms];
        let filling = ["--warm-up-ms", &filling_ms];
        loader(&[&timed, &filling[..], sheddable].concat(), name)
    };
    let (critical, sheddable) = thread::scope(|scope| {
        let critical = scope.spawn(|| flood(CRITICAL_PER_S, &[], "critical"));
        let sheddable = flood(SHEDDABLE_PER_S, &["--sheddable"], "sheddable");
        (critical.join().expect("it does not panic"), sheddable)
    });
    let (critical, sheddable) = (critical?, sheddable?);
    drop(server);
    let processors = thread::available_parallelism()?.get() as f64;
    // The server's time is in what both of them watched.
    let cpu_ns = critical.cpu_ns[0] + sheddable.cpu_ns.iter().sum::<u64>();
    let hour = ["--workers", "1", "--takes-ms", "3600000", "--places", "1"];
    let served = (critical.calls + sheddable.calls) as f64 / length.as_secs_f64();
    let failed = |seen: &Seen| seen.errors.values().sum::<u64>();
    Ok(Round {
        goodput: served / peak.rate,
        critical: critical.calls + failed(&critical),
        critical_failed: failed(&critical),
        processors: cpu_ns as f64 / 1e9 / length.as_secs_f64() / processors,
        refusal_us: cost_us(Kind::Mesh, &hour, &["--refused"], folder)?,
        answer_us: cost_us(Kind::Tonic, &[], &[], folder)?,
    })
}

/// The server's processor time of a call, with many at a time.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn cost_us(kind: Kind, serving: &[&str], calling: &[&str], folder: &Path) -> Result<f64> {
    let (address, server) = serve(kind, serving, folder)?;
    let (callers, length_ms) = (CALLERS.to_string(), SHORT.as_millis().to_string());
    let closed = ["--concurrent", &callers, "--length-ms", &length_ms];
    let arguments = [&closed, calling].concat();
    let seen = load(address, server.id(), &arguments, &folder.join("cost"))?;
    let calls = seen.calls + seen.errors.values().sum::<u64>();
    Ok(seen.cpu_ns[1] as f64 / 1e3 / calls as f64)
}

fn serve(kind: Kind, arguments: &[&str], folder: &Path) -> Result<(SocketAddr, Process)> {
    let address = free_address()?;
    let mut server = program(&std::env::current_exe()?, None);
    server.args(["mesh-server", "--kind", kind.name(), "--listen"]);
    server.arg(address.to_string()).args(arguments);
    let process = Process::listening(&mut server, address, &folder.join("server.log"))?;
    Ok((address, process))
}

/// What a loader of bare tonic sees.
fn load(address: SocketAddr, server: u32, arguments: &[&str], log: &Path) -> Result<Seen> {
    let mut loader = command(std::env::current_exe()?);
    loader.args(["mesh-load", "--kind", Kind::Tonic.name(), "--address"]);
    loader.arg(address.to_string()).args(arguments);
    loader.args(["--watch", &server.to_string()]);
    let line = said(
        &mut loader,
        &log.with_extension("log").display().to_string(),
    )?;
    let seen: Seen = serde_json::from_str(&line).context("the loader says something else")?;
    let refusal = format!("{:?}", Code::ResourceExhausted);
    let failure = seen.errors.keys().find(|code| **code != refusal);
    ensure!(
        failure.is_none(),
        "calls were not refused but failed: {:?}",
        seen.errors
    );
    Ok(seen)
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn text(options: &Options, rounds: &[Round]) -> Result<String> {
    let spread = |value: fn(&Round) -> f64| {
        let values: Vec<_> = rounds.iter().map(value).collect();
        Spread::of(&values).context("no round was run")
    };
    let critical: u64 = rounds.iter().map(|round| round.critical).sum();
    let failed: u64 = rounds.iter().map(|round| round.critical_failed).sum();
    let ok = 1.0 - failed as f64 / critical.max(1) as f64;
    let goodput = spread(|round| round.goodput)?;
    let refusal = spread(|round| round.refusal_us)?;
    let answer = spread(|round| round.answer_us)?;
    let processors = spread(|round| 100.0 * round.processors)?;
    Ok(format!(
        "{} cores ({}); {} rounds of {} s under {} calls a second, five times the peak of {WORKERS} workers that a call \
         keeps for {TAKES_MS} ms; {CRITICAL_PER_S} of them are critical. Medians, in parentheses the range of the rounds.\n\n\
         | measured | target | | |\n|---|---|---:|---|\n\
         | goodput, × the peak | ≥ {GOODPUT_MIN} | {} | {} |\n\
         | critical calls that succeed | ≥ {} % | {:.2} % of {critical} | {} |\n\
         | a refusal, µs of the server's processor time | ≤ {REFUSAL_US_MAX} | {} | {} |\n\
         | beside it: an answer of bare tonic's server, µs | | {} | |\n\
         | processors used by server and loaders, % | ≤ {} | {} | {} |\n",
        thread::available_parallelism()?,
        processor()?,
        rounds.len(),
        options.seconds,
        CRITICAL_PER_S + SHEDDABLE_PER_S,
        shown(goodput, 2),
        verdict(goodput.median >= GOODPUT_MIN),
        100.0 * CRITICAL_MIN,
        100.0 * ok,
        verdict(ok >= CRITICAL_MIN),
        shown(refusal, 1),
        verdict(refusal.median <= REFUSAL_US_MAX),
        shown(answer, 1),
        100.0 * PROCESSORS_MAX,
        shown(processors, 0),
        verdict(processors.median <= 100.0 * PROCESSORS_MAX),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_is_reached_or_missed_by_itself() {
        let round = |goodput, critical_failed, refusal_us| Round {
            goodput,
            critical: 1_000,
            critical_failed,
            processors: 0.2,
            refusal_us,
            answer_us: 25.0,
        };
        let options = Options {
            rounds: 1,
            seconds: 10,
            write: false,
        };
        let good = text(&options, &[round(0.95, 1, 19.0)]).unwrap();
        assert!(!good.contains("missed"), "{good}");
        assert!(good.contains("under 1000 calls a second"), "{good}");
        let bad = text(&options, &[round(0.85, 2, 21.0)]).unwrap();
        assert_eq!(bad.matches("missed").count(), 3, "{bad}");
        assert!(text(&options, &[]).is_err());
    }
}
