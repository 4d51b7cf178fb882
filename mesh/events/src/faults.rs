//! What can go wrong on the way, on demand and repeatable: a real bus does all of it, only rarely.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};

/// How often an [`InMemoryBus`](crate::InMemoryBus) misbehaves. Probabilities from 0 to 1, drawn from
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
