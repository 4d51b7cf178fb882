//! What it costs to pick an endpoint, with few and with many to choose from.

use std::{fmt, time::Duration};

/// How many there are to choose from.
const ENDPOINTS: [usize; 2] = [10, 10_000];
const PICKS: u32 = 1_000_000;
/// Times each; what is reported is the median.
const ROUNDS: usize = 5;

/// What was measured, for each of [`ENDPOINTS`].
pub(crate) struct Picks(pub(crate) [Duration; ENDPOINTS.len()]);

/// Picks, in this process.
pub(crate) fn measure() -> Picks {
    let mut rounds = [const { Vec::new() }; ENDPOINTS.len()];
    for _ in 0..ROUNDS {
        for (round, endpoints) in rounds.iter_mut().zip(ENDPOINTS) {
            round.push(mesh::measure::pick(endpoints, PICKS));
        }
    }
    Picks(rounds.map(|mut round| {
        round.sort_unstable();
        round[ROUNDS / 2]
    }))
}

impl fmt::Display for Picks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [few, many] = self.0.map(|pick| pick.as_nanos());
        let [least, most] = ENDPOINTS;
        write!(
            f,
            "Picking one of {least} endpoints takes {few} ns, one of {most} {many} ns (mean of {PICKS} picks, median of \
             {ROUNDS} rounds)."
        )
    }
}
