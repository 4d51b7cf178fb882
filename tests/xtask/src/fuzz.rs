//! `cargo xtask fuzz`: every parser of what others write, for as long as one likes.
//!
//! The tests are the properties that `cargo xtask test` tries a few thousand times; here each goes on until its time is
//! over, with another seed each round. The seed of a round stands before it: `PROPTEST_RNG_SEED=… PROPTEST_CASES=…` and
//! the test's name bring a failure back.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::process::{cargo, collect, plain, shown};

/// What is parsed, and the package and the test that try it.
const PARSERS: [(&str, &str, &str); 11] = [
    ("grpc-timeout", RPC, "server::fuzz::no_timeout_panics"),
    ("traceparent", RPC, "server::fuzz::no_traceparent_panics"),
    ("metadata", RPC, "server::fuzz::no_metadata_panics"),
    (
        "text in headers",
        RPC,
        "server::fuzz::every_text_survives_a_header",
    ),
    (
        "configuration",
        RPC,
        "server::fuzz::no_configuration_panics",
    ),
    (
        "lists of endpoints",
        RPC,
        "client::discovery::source::tests::no_text_makes_the_parsers_panic",
    ),
    ("SPIFFE ids", IDENTITY, "spiffe::tests::no_text_panics"),
    ("certificates", IDENTITY, "svid::tests::no_bytes_panic"),
    (
        "damaged certificates",
        IDENTITY,
        "svid::tests::no_damage_panics",
    ),
    (
        "authorisation files",
        IDENTITY,
        "policy::tests::no_file_panics",
    ),
    (
        "JSON of requests",
        TRANSCODE,
        "response::tests::no_bytes_make_it_panic",
    ),
];
const RPC: &str = "commerce-mesh";
const IDENTITY: &str = "commerce-mesh-identity";
const TRANSCODE: &str = "commerce-mesh-transcode";

/// How many cases a round has.
const CASES: u32 = 50_000;

/// For how long, and what.
#[derive(clap::Args)]
pub struct Options {
    /// For how long each parser is tried; one round at least.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// The seed of the first round; each further one has the next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only parsers with this in their name.
    #[arg(default_value = "")]
    which: String,
}

/// Tries them one after the other; fails at the first failure, after its text.
pub fn run(options: &Options) -> Result<()> {
    let longest = Duration::from_secs_f64(options.minutes * 60.0);
    let mut seed = options.seed;
    for (what, package, test) in PARSERS {
        if !what.contains(&options.which) {
            continue;
        }
        let (began, mut rounds) = (Instant::now(), 0_u64);
        while rounds == 0 || began.elapsed() < longest {
            round(package, test, seed)?;
            rounds += 1;
            seed += 1;
        }
        let cases = rounds * u64::from(CASES);
        println!(
            "{what}: {cases} cases in {:.1?}, no failure",
            began.elapsed()
        );
    }
    Ok(())
}

fn round(package: &str, test: &str, seed: u64) -> Result<()> {
    let mut cargo = cargo();
    cargo
        .args([
            "test",
            "--quiet",
            "--package",
            package,
            "--lib",
            "--",
            "--exact",
            test,
        ])
        .env("PROPTEST_CASES", CASES.to_string())
        .env("PROPTEST_RNG_SEED", seed.to_string());
    let ended = collect(&mut cargo)?;
    let text = plain(&ended.text);
    if !ended.status.success() {
        bail!("{} failed with seed {seed}:\n{text}", shown(&cargo));
    }
    // A name that is nobody's fails nothing.
    if !text.contains("1 passed") {
        bail!("{package} has no test {test}:\n{text}");
    }
    Ok(())
}
