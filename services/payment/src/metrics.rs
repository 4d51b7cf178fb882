//! What happens to money after a sale, counted: who runs a shop wants to be woken by more disputes than usual.
//!
//! Deliberately missing: amounts (the ledger has them), and anything that a call's own metrics tell.

use crate::fact::Fact;
use prometheus::{Error, IntCounterVec, Opts, Registry};

/// The counters. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    disputes: IntCounterVec,
    refunds_reversed: IntCounterVec,
}

/// Something that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    /// A dispute was opened or decided: the word for it.
    Dispute(&'static str),
    /// A refund that had succeeded came back.
    RefundReversed,
}

impl Counted {
    /// What of a fact is counted.
    pub(crate) fn of(fact: &Fact) -> Option<Self> {
        match fact {
            Fact::DisputeOpened(_) => Some(Self::Dispute("OPENED")),
            Fact::DisputeClosed(dispute) => Some(Self::Dispute(dispute.state.name())),
            Fact::RefundFailed {
                reversed: Some(_), ..
            } => Some(Self::RefundReversed),
            _ => None,
        }
    }
}

impl Metrics {
    /// New ones, shown nowhere yet.
    pub fn new() -> Result<Self, Error> {
        let disputes = Opts::new(
            "payment_disputes_total",
            "Disputes that became known, and how they were decided",
        );
        let reversed = Opts::new(
            "payment_refunds_reversed_total",
            "Refunds that came back after they had succeeded",
        );
        Ok(Self {
            disputes: IntCounterVec::new(disputes, &["provider", "state"])?,
            refunds_reversed: IntCounterVec::new(reversed, &["provider"])?,
        })
    }

    /// Shows them, in place of those of a service that ran before in the same process.
    pub fn register(&self, registry: &Registry) -> Result<(), Error> {
        for counter in [&self.disputes, &self.refunds_reversed] {
            drop(registry.unregister(Box::new(counter.clone()))); // There may be none.
            registry.register(Box::new(counter.clone()))?;
        }
        Ok(())
    }

    pub(crate) fn count(&self, provider: &str, counted: &[Counted]) {
        for counted in counted {
            match counted {
                Counted::Dispute(state) => {
                    self.disputes.with_label_values(&[provider, *state]).inc();
                }
                Counted::RefundReversed => {
                    self.refunds_reversed.with_label_values(&[provider]).inc();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_counted_by_provider_and_shown_again_after_a_restart() {
        let registry = Registry::new();
        for _ in 0..2 {
            let metrics = Metrics::new().unwrap();
            metrics.register(&registry).unwrap();
            metrics.count("p", &[Counted::Dispute("WON"), Counted::RefundReversed]);
            metrics.count("p", &[Counted::Dispute("WON")]);
            let shown = registry.gather();
            assert_eq!(shown.len(), 2);
            let counts: Vec<f64> = shown
                .iter()
                .map(|family| family.get_metric()[0].get_counter().get_value())
                .collect();
            assert_eq!(counts, [2.0, 1.0]);
        }
    }
}
