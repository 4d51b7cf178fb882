//! Failures on demand, the same ones for the same seed.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use std::sync::Mutex;

/// How often commands fail, as probabilities from 0 to 1 whose sum is at most 1; 0 by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Decides which commands fail.
    pub seed: u64,
    /// The provider cannot be reached: no effect, and the caller knows. Look-ups fail so too.
    pub unavailable: f64,
    /// The request is lost: no effect, but the caller does not know.
    pub unknown_before: f64,
    /// The answer is lost: the caller does not know of the effect.
    pub unknown_after: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Unavailable,
    UnknownBefore,
    UnknownAfter,
}

/// Draws faults.
pub(super) struct Dice {
    state: Mutex<(Faults, StdRng)>,
}

impl Dice {
    pub(super) fn new(faults: Faults) -> Self {
        Self {
            state: Mutex::new((faults, StdRng::seed_from_u64(faults.seed))),
        }
    }

    pub(super) fn load(&self, faults: Faults) {
        *self.lock() = (faults, StdRng::seed_from_u64(faults.seed));
    }

    /// Whether and how the next command fails.
    pub(super) fn roll(&self) -> Option<Fault> {
        let (faults, random) = &mut *self.lock();
        let mut drawn: f64 = random.random();
        for (probability, fault) in [
            (faults.unavailable, Fault::Unavailable),
            (faults.unknown_before, Fault::UnknownBefore),
            (faults.unknown_after, Fault::UnknownAfter),
        ] {
            if drawn < probability {
                return Some(fault);
            }
            drawn -= probability;
        }
        None
    }

    /// Whether the next look-up fails.
    pub(super) fn roll_look_up(&self) -> bool {
        let (faults, random) = &mut *self.lock();
        random.random::<f64>() < faults.unavailable
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Faults, StdRng)> {
        self.state
            .lock()
            .expect("nothing panics while rolling dice")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_fails_the_same_commands_about_as_often_as_asked() {
        let faults = Faults {
            seed: 7,
            unavailable: 0.1,
            unknown_before: 0.2,
            unknown_after: 0.3,
        };
        let draw = || {
            let dice = Dice::new(faults);
            (0..10_000).map(|_| dice.roll()).collect::<Vec<_>>()
        };
        let drawn = draw();
        assert_eq!(drawn, draw());
        let count = |wanted| drawn.iter().filter(|fault| **fault == wanted).count();
        for (fault, about) in [
            (Some(Fault::Unavailable), 1000),
            (Some(Fault::UnknownBefore), 2000),
            (Some(Fault::UnknownAfter), 3000),
            (None, 4000),
        ] {
            assert!(
                count(fault).abs_diff(about) < 300,
                "{fault:?}: {}",
                count(fault)
            );
        }
    }

    #[test]
    fn without_probabilities_nothing_fails() {
        let dice = Dice::new(Faults::default());
        assert!((0..1000).all(|_| dice.roll().is_none() && !dice.roll_look_up()));
    }
}
