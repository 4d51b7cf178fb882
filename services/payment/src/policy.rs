//! How long things may take and how often they are tried: values, not code.

use crate::dispute::EvidenceRules;

/// The limits that hold while one payment is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is something else that a provider can do"
)]
pub struct Rules {
    /// How long a payment waits to be confirmed.
    pub unconfirmed_us: i64,
    /// How long a customer has to authenticate.
    pub action_us: i64,
    /// How long stock is held at first, and at each extension while an outcome is unknown.
    pub hold_us: i64,
    /// How much of a hold must be left before money is asked for, and how much longer than an
    /// authorisation it lasts.
    pub hold_margin_us: i64,
    /// How long stock is asked for in vain before the payment is given back.
    pub product_give_up_us: i64,
    /// How long the provider is asked in vain before the payment is given back.
    pub provider_give_up_us: i64,
    /// The first pause before a failed call is repeated; it doubles.
    pub retry_first_us: i64,
    /// The longest such pause.
    pub retry_max_us: i64,
    /// The first pause before the provider is asked what became of a call; it doubles.
    pub look_up_first_us: i64,
    /// The longest such pause.
    pub look_up_max_us: i64,
    /// After this time what the provider does not know of has not happened.
    pub settle_us: i64,
    /// How long after it was begun something may be sent to the provider under its key again.
    pub resend_us: i64,
    /// How long after it was begun a charge that was given up is looked up, in case it arrives late.
    pub late_success_us: i64,
    /// Whether the provider can authorise now and capture later.
    pub captures_later: bool,
    /// Whether the provider can give up what is not captured; else only a refund gives money back.
    pub voids: bool,
    /// Whether the provider can take an authorisation in parts; else the first capture is final.
    pub captures_in_parts: bool,
    /// Whether two attempts with the same payment method are the same charge to the provider.
    pub method_is_charge: bool,
    /// How often a payment may be attempted.
    pub attempts_max: usize,
    /// Whether the provider tells of disputes and takes evidence.
    pub disputes: bool,
    /// How often the provider is asked about a dispute that is not decided, without a webhook.
    pub dispute_look_up_us: i64,
    /// How much evidence is taken.
    pub evidence: EvidenceRules,
}

/// The tries of a look that follows another: a hint begins at none, and a failure skips it.
const SECOND_LOOK: u32 = 1;

/// How far something that is tried until it works has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// How often it failed. Of what is looked at again after an answer: see [`Progress::second_look`].
    pub tries: u32,
    /// Not before this time again.
    pub due_at_us: i64,
}

impl Progress {
    /// Due at once, never tried.
    pub fn at(now_us: i64) -> Self {
        Self {
            tries: 0,
            due_at_us: now_us,
        }
    }

    /// A look that follows another, which was answered. A hint that comes meanwhile begins anew, by [`Progress::at`]:
    /// the answer that is under way then may be older than what it hints at.
    pub fn second_look(due_at_us: i64) -> Self {
        Self {
            tries: SECOND_LOOK,
            due_at_us,
        }
    }

    /// Whether it is such a look, and not one after a hint that is not answered yet.
    pub fn is_second_look(self) -> bool {
        self.tries == SECOND_LOOK
    }

    /// Counts a look without an answer, after which a second one is owed still: see [`Progress::put_off`].
    pub fn put_off_look(&mut self, now_us: i64, first_us: i64, max_us: i64) {
        self.put_off(now_us, first_us, max_us);
        self.tries = self.tries.max(SECOND_LOOK + 1);
    }

    /// Whether it is time.
    pub fn is_due(self, now_us: i64) -> bool {
        self.due_at_us <= now_us
    }

    /// Counts a failure; the next try comes after `first_us`, doubled each time up to `max_us`.
    pub fn put_off(&mut self, now_us: i64, first_us: i64, max_us: i64) {
        let doubled = first_us.checked_shl(self.tries.min(30)).unwrap_or(max_us);
        let pause_us = if doubled <= 0 {
            max_us
        } else {
            doubled.min(max_us)
        };
        self.tries = self.tries.saturating_add(1);
        self.due_at_us = now_us + pause_us;
    }
}

/// Something that is asked of the provider, and what may have become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    /// Since when the provider may have acted on it; nothing while it certainly has not.
    pub sent_at_us: Option<i64>,
    /// How far it has come.
    pub progress: Progress,
}

impl Asked {
    /// Not sent yet.
    pub fn at(now_us: i64) -> Self {
        Self {
            sent_at_us: None,
            progress: Progress::at(now_us),
        }
    }

    /// To be committed before the provider is called.
    pub fn send(&mut self, now_us: i64) {
        self.sent_at_us = Some(now_us);
        self.progress = Progress {
            due_at_us: now_us,
            ..self.progress
        };
    }

    /// Whether it was ever sent, and answered or not.
    pub fn was_sent(&self) -> bool {
        self.sent_at_us.is_some() || self.progress.tries > 0
    }

    /// The provider does not know it, and by now it would: the same key may be sent again.
    pub fn settled(&self, now_us: i64, settle_us: i64) -> bool {
        self.sent_at_us
            .is_some_and(|sent| now_us - sent >= settle_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit() {
        let mut progress = Progress::at(0);
        let pauses: Vec<i64> = (0..6)
            .map(|_| {
                progress.put_off(0, 100, 1_000);
                progress.due_at_us
            })
            .collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(progress.tries, 6);
    }

    #[test]
    fn a_look_that_fails_is_no_second_look() {
        for mut progress in [Progress::at(0), Progress::second_look(0)] {
            for _ in 0..3 {
                progress.put_off_look(0, 100, 1_000);
                assert!(!progress.is_second_look());
            }
            assert_eq!(progress.due_at_us, 800);
        }
        assert!(!Progress::at(0).is_second_look() && Progress::second_look(0).is_second_look());
    }

    #[test]
    fn a_thousand_tries_still_pause_the_longest() {
        let mut progress = Progress {
            tries: 1_000,
            due_at_us: 0,
        };
        progress.put_off(5, 2_000_000, 60_000_000);
        assert_eq!(progress.due_at_us, 60_000_005);
    }

    #[test]
    fn settles_only_after_the_providers_time() {
        let mut asked = Asked::at(0);
        assert!(
            !asked.settled(1_000, 10),
            "what was never sent cannot settle"
        );
        asked.send(100);
        assert!(!asked.settled(109, 10));
        assert!(asked.settled(110, 10));
    }
}
