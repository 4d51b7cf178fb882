//! Chance that can be had again: every random test prints its seed and takes it from `SEED`.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The random numbers of one test.
pub fn random(test: &str) -> StdRng {
    let seed = seed();
    println!("{test}: SEED={seed}");
    StdRng::seed_from_u64(seed)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's seed is not configuration"
)]
fn seed() -> u64 {
    match std::env::var("SEED") {
        Ok(given) => given.parse().expect("SEED is a whole number"),
        Err(_) => rand::rng().random(),
    }
}

/// Lets a random time pass, so that what comes next comes at any moment of what runs beside it. This is
/// the moment itself, not a wait for something: for that see [`crate::eventually`].
pub async fn random_moment(random: &mut StdRng, at_most: Duration) {
    tokio::time::sleep(at_most.mul_f64(random.random())).await;
}
