//! How the parsers of foreign input are tried: by a seed that is written down here, so that a failure
//! comes back. `PROPTEST_RNG_SEED` and `PROPTEST_CASES` ask for others, and for more.

use proptest::test_runner::{Config, RngSeed};

const SEED: u64 = 20_261_125;

/// At least this many cases.
pub(crate) fn config(cases: u32) -> Config {
    let stated = Config::default();
    let rng_seed = match stated.rng_seed {
        RngSeed::Random => RngSeed::Fixed(SEED),
        fixed @ RngSeed::Fixed(_) => fixed,
    };
    Config {
        cases: stated.cases.max(cases),
        rng_seed,
        failure_persistence: None,
        ..stated
    }
}
