//! What can go wrong on the way, on demand and repeatable: a real bus does all of it, only rarely.

use std::{str::FromStr, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};

/// How often a bus misbehaves: an [`InMemoryBus`](crate::InMemoryBus) in all of these ways, any other in some
/// ([`Faults::on`]). Probabilities from 0 to 1, drawn from
/// a generator seeded with `seed`; the default never misbehaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// A published event vanishes unconfirmed; a confirm vanishes although the event arrived; an
    /// acknowledgement vanishes, so that the event is delivered again. Each with this probability.
    pub lose: f64,
    /// An event is put into a queue twice.
    pub duplicate: f64,
    /// An event reaches a queue only after a random wait of up to `delay_max`.
    pub delay: f64,
    /// The longest such wait.
    pub delay_max: Duration,
    /// An event overtakes a random number of those that wait in a queue.
    pub reorder: f64,
    /// The same seed and the same sequence of calls misbehave in the same way.
    pub seed: u64,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults {
            lose: 0.0,
            duplicate: 0.0,
            delay: 0.0,
            delay_max: Duration::from_secs(1),
            reorder: 0.0,
            seed: 0,
        }
    }
}

/// Faults that can not be read.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is not duplicate=P, reorder=P or seed=N with a probability P from 0 to 1")]
pub struct InvalidFaults(String);

impl FromStr for Faults {
    type Err = InvalidFaults;

    /// `duplicate=0.1,reorder=0.1,seed=7`: what a program may be told.
    fn from_str(text: &str) -> Result<Faults, InvalidFaults> {
        let mut faults = Faults::default();
        for part in text.split(',') {
            let invalid = || InvalidFaults(part.to_owned());
            let (name, value) = part.split_once('=').ok_or_else(invalid)?;
            let probability = value.parse().ok().filter(|p| (0.0..=1.0).contains(p));
            match name {
                "duplicate" => faults.duplicate = probability.ok_or_else(invalid)?,
                "reorder" => faults.reorder = probability.ok_or_else(invalid)?,
                "seed" => faults.seed = value.parse().map_err(|_| invalid())?,
                _ => return Err(invalid()),
            }
        }
        Ok(faults)
    }
}

/// The dice of one bus.
#[derive(Debug)]
pub(crate) struct Dice {
    faults: Faults,
    random: StdRng,
}

impl Dice {
    pub(crate) fn new(faults: Faults) -> Dice {
        Dice {
            faults,
            random: StdRng::seed_from_u64(faults.seed),
        }
    }

    pub(crate) fn lose(&mut self) -> bool {
        self.happens(self.faults.lose)
    }

    pub(crate) fn copies(&mut self) -> u32 {
        if self.happens(self.faults.duplicate) {
            2
        } else {
            1
        }
    }

    pub(crate) fn delay(&mut self) -> Option<Duration> {
        self.happens(self.faults.delay)
            .then(|| self.faults.delay_max.mul_f64(self.random.random::<f64>()))
    }

    pub(crate) fn overtaken(&mut self) -> bool {
        self.happens(self.faults.reorder)
    }

    /// Where to insert into a queue of `length` events.
    pub(crate) fn position(&mut self, length: usize) -> usize {
        if self.happens(self.faults.reorder) {
            self.random.random_range(0..=length)
        } else {
            length
        }
    }

    fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.random.random::<f64>() < probability
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_and_wrong_ones_named() {
        let faults: Faults = "duplicate=0.1,reorder=1,seed=7".parse().unwrap();
        let expected = Faults {
            duplicate: 0.1,
            reorder: 1.0,
            seed: 7,
            ..Faults::default()
        };
        assert_eq!(faults, expected);
        for wrong in [
            "",
            "duplicate",
            "duplicate=2",
            "reorder=x",
            "seed=-1",
            "lose=0.1",
        ] {
            let error = wrong.parse::<Faults>().unwrap_err();
            assert!(error.to_string().contains(wrong), "{error}");
        }
    }
}
