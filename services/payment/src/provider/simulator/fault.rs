//! Failures on demand, the same ones for the same seed.

use kernel::Invalid;
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
    /// The request is held up on its way: no answer, and its effect comes `late_effect_ms` later.
    pub late: f64,
    /// The answer takes `slow_ms`.
    pub slow: f64,
    /// A charge is declined, whatever its token says.
    pub declined: f64,
}

impl Faults {
    /// None at all.
    pub const NONE: Self = Self {
        seed: 0,
        unavailable: 0.0,
        unknown_before: 0.0,
        unknown_after: 0.0,
        late: 0.0,
        slow: 0.0,
        declined: 0.0,
    };

    /// Refuses what is no set of probabilities; the error names the key below `at`.
    pub fn validate(&self, at: &str) -> Result<(), Invalid> {
        probabilities(
            at,
            &self.all().map(|(name, probability, _)| (name, probability)),
        )
    }

    fn all(&self) -> [(&'static str, f64, Fault); 6] {
        [
            ("unavailable", self.unavailable, Fault::Unavailable),
            ("unknown_before", self.unknown_before, Fault::UnknownBefore),
            ("unknown_after", self.unknown_after, Fault::UnknownAfter),
            ("late", self.late, Fault::Late),
            ("slow", self.slow, Fault::Slow),
            ("declined", self.declined, Fault::Declined),
        ]
    }
}

/// How often something is done to webhooks, as probabilities from 0 to 1 whose sum is at most 1; 0 by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookFaults {
    /// Decides to which.
    pub seed: u64,
    /// It comes `late_webhook_delay_ms` later.
    pub late: f64,
    /// It comes twice.
    pub duplicated: f64,
    /// It is held back for `webhook_delay_ms`, so that others overtake it, and an older one comes after it.
    pub reordered: f64,
    /// Before it comes another one that says the opposite and is signed by somebody else.
    pub forged: f64,
    /// It never comes.
    pub lost: f64,
}

impl WebhookFaults {
    /// Refuses what is no set of probabilities; the error names the key below `at`.
    pub fn validate(&self, at: &str) -> Result<(), Invalid> {
        probabilities(
            at,
            &self.all().map(|(name, probability, _)| (name, probability)),
        )
    }

    fn all(&self) -> [(&'static str, f64, WebhookFault); 5] {
        [
            ("late", self.late, WebhookFault::Late),
            ("duplicated", self.duplicated, WebhookFault::Duplicated),
            ("reordered", self.reordered, WebhookFault::Reordered),
            ("forged", self.forged, WebhookFault::Forged),
            ("lost", self.lost, WebhookFault::Lost),
        ]
    }
}

fn probabilities(at: &str, all: &[(&str, f64)]) -> Result<(), Invalid> {
    for (name, probability) in all {
        if !(0.0..=1.0).contains(probability) {
            let reason = format!("must be a probability from 0 to 1, not {probability}");
            return Err(Invalid::new(format!("{at}.{name}"), reason));
        }
    }
    let sum: f64 = all.iter().map(|(_, probability)| probability).sum();
    // The sum of probabilities that make up 1 may miss it by the last bits.
    if sum > 1.0 + 1e-9 {
        let reason = format!("the probabilities must add up to 1 at most, not {sum}");
        return Err(Invalid::new(at, reason));
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Unavailable,
    UnknownBefore,
    UnknownAfter,
    Late,
    Slow,
    Declined,
}

impl Fault {
    /// The name in the journal.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::UnknownBefore => "unknown_before",
            Self::UnknownAfter => "unknown_after",
            Self::Late => "late",
            Self::Slow => "slow",
            Self::Declined => "declined",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WebhookFault {
    Late,
    Duplicated,
    Reordered,
    Forged,
    Lost,
}

impl WebhookFault {
    /// The name in the journal.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Duplicated => "duplicated",
            Self::Reordered => "reordered",
            Self::Forged => "forged",
            Self::Lost => "lost",
        }
    }
}

/// Draws faults of one kind.
struct Drawn<F> {
    faults: F,
    random: StdRng,
}

impl<F> Drawn<F> {
    fn new(faults: F, seed: u64) -> Self {
        Self {
            faults,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// One of these, or none, by their probabilities.
    fn one_of<T: Copy>(&mut self, all: &[(&'static str, f64, T)]) -> Option<T> {
        let mut drawn: f64 = self.random.random();
        for (_, probability, fault) in all {
            if drawn < *probability {
                return Some(*fault);
            }
            drawn -= probability;
        }
        None
    }
}

/// Draws faults: of commands and of webhooks each from a seed of its own, so that one does not shift the other.
pub(super) struct Dice {
    commands: Mutex<Drawn<Faults>>,
    webhooks: Mutex<Drawn<WebhookFaults>>,
}

impl Dice {
    pub(super) fn new(faults: Faults, webhooks: WebhookFaults) -> Self {
        Self {
            commands: Mutex::new(Drawn::new(faults, faults.seed)),
            webhooks: Mutex::new(Drawn::new(webhooks, webhooks.seed)),
        }
    }

    pub(super) fn load(&self, faults: Faults) {
        *lock(&self.commands) = Drawn::new(faults, faults.seed);
    }

    pub(super) fn load_webhooks(&self, faults: WebhookFaults) {
        *lock(&self.webhooks) = Drawn::new(faults, faults.seed);
    }

    /// Whether and how the next command fails.
    pub(super) fn roll(&self) -> Option<Fault> {
        let mut drawn = lock(&self.commands);
        let all = drawn.faults.all();
        drawn.one_of(&all)
    }

    /// Whether the next look-up fails.
    pub(super) fn roll_look_up(&self) -> bool {
        let mut drawn = lock(&self.commands);
        drawn.random.random::<f64>() < drawn.faults.unavailable
    }

    /// Whether and what is done to the next webhook.
    pub(super) fn roll_webhook(&self) -> Option<WebhookFault> {
        let mut drawn = lock(&self.webhooks);
        let all = drawn.faults.all();
        drawn.one_of(&all)
    }
}

fn lock<T>(drawn: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    drawn.lock().expect("nothing panics while rolling dice")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count<T: PartialEq>(drawn: &[Option<T>], wanted: Option<&T>, about: usize) {
        let count = drawn
            .iter()
            .filter(|fault| fault.as_ref() == wanted)
            .count();
        assert!(count.abs_diff(about) < 300, "{count}, not about {about}");
    }

    #[test]
    fn the_same_seed_fails_the_same_commands_about_as_often_as_asked() {
        let faults = Faults {
            seed: 7,
            unavailable: 0.1,
            unknown_before: 0.2,
            unknown_after: 0.3,
            late: 0.1,
            slow: 0.05,
            declined: 0.05,
        };
        let draw = || {
            let dice = Dice::new(faults, WebhookFaults::default());
            (0..10_000).map(|_| dice.roll()).collect::<Vec<_>>()
        };
        let drawn = draw();
        assert_eq!(drawn, draw());
        for (fault, about) in [
            (Some(Fault::Unavailable), 1000),
            (Some(Fault::UnknownBefore), 2000),
            (Some(Fault::UnknownAfter), 3000),
            (Some(Fault::Late), 1000),
            (Some(Fault::Slow), 500),
            (Some(Fault::Declined), 500),
            (None, 2000),
        ] {
            count(&drawn, fault.as_ref(), about);
        }
    }

    #[test]
    fn webhooks_fail_by_a_seed_of_their_own() {
        let webhooks = WebhookFaults {
            seed: 7,
            late: 0.1,
            duplicated: 0.2,
            reordered: 0.1,
            forged: 0.2,
            lost: 0.1,
        };
        let draw = |faults: Faults| {
            let dice = Dice::new(faults, webhooks);
            let mut drawn = Vec::new();
            for _ in 0..10_000 {
                dice.roll();
                drawn.push(dice.roll_webhook());
            }
            drawn
        };
        let drawn = draw(Faults::NONE);
        let other = Faults {
            seed: 8,
            slow: 1.0,
            ..Faults::NONE
        };
        assert_eq!(drawn, draw(other));
        for (fault, about) in [
            (Some(WebhookFault::Late), 1000),
            (Some(WebhookFault::Duplicated), 2000),
            (Some(WebhookFault::Reordered), 1000),
            (Some(WebhookFault::Forged), 2000),
            (Some(WebhookFault::Lost), 1000),
            (None, 3000),
        ] {
            count(&drawn, fault.as_ref(), about);
        }
    }

    #[test]
    fn without_probabilities_nothing_fails() {
        let dice = Dice::new(Faults::default(), WebhookFaults::default());
        let nothing =
            || dice.roll().is_none() && !dice.roll_look_up() && dice.roll_webhook().is_none();
        assert!((0..1000).all(|_| nothing()));
    }

    #[test]
    fn what_is_no_probability_is_refused_by_name() {
        let mistakes = [
            (
                Faults {
                    late: -0.1,
                    ..Faults::NONE
                },
                "simulator.faults.late",
            ),
            (
                Faults {
                    slow: 1.1,
                    ..Faults::NONE
                },
                "simulator.faults.slow",
            ),
            (
                Faults {
                    unavailable: f64::NAN,
                    ..Faults::NONE
                },
                "simulator.faults.unavailable",
            ),
            (
                Faults {
                    late: 0.6,
                    slow: 0.6,
                    ..Faults::NONE
                },
                "simulator.faults",
            ),
        ];
        for (faults, named) in mistakes {
            assert_eq!(
                faults.validate("simulator.faults").unwrap_err().field,
                named
            );
        }
        let all = Faults {
            late: 0.1,
            slow: 0.7,
            declined: 0.2,
            ..Faults::NONE
        };
        assert!(all.validate("faults").is_ok(), "all of them may fail");
        let webhooks = WebhookFaults {
            lost: 2.0,
            ..WebhookFaults::default()
        };
        assert_eq!(webhooks.validate("w").unwrap_err().field, "w.lost");
    }
}
