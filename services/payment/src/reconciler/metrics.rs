//! What is to be seen of reconciliations: what is open, how far they have come, how they ended.

use super::Reconciler;
use crate::error::Error;
use crate::reconcile::Kind;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};
use std::collections::BTreeMap;

/// What reconciliations show of themselves. Clones share the numbers.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) open: IntGaugeVec,
    pub(super) compared_until: IntGaugeVec,
    pub(super) runs: IntCounterVec,
}

impl Metrics {
    /// Shows them, once for a registry.
    pub fn register_in(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.open.clone()))?;
        registry.register(Box::new(self.compared_until.clone()))?;
        registry.register(Box::new(self.runs.clone()))
    }

    /// Ones that are not shown yet.
    pub fn unregistered() -> prometheus::Result<Self> {
        let open = Opts::new(
            "payment_discrepancies_open",
            "Discrepancies with a provider that nobody has resolved.",
        );
        let compared_until = Opts::new(
            "payment_reconciled_until_seconds",
            "Up to when the books were compared with a provider's, in seconds since the Unix epoch.",
        );
        let runs = Opts::new(
            "payment_reconciliations_total",
            "Reconciliations by how they ended.",
        );
        Ok(Self {
            open: IntGaugeVec::new(open, &["provider", "kind"])?,
            compared_until: IntGaugeVec::new(compared_until, &["provider"])?,
            runs: IntCounterVec::new(runs, &["provider", "outcome"])?,
        })
    }
}

impl Reconciler {
    /// Shows what is open, and how far comparing has come.
    pub async fn show(&self) -> Result<(), Error> {
        let mut counts: BTreeMap<(String, Kind), i64> = BTreeMap::new();
        for open in self.store.open_counts().await? {
            counts.insert((open.provider, open.kind), open.count);
        }
        for provider in self.commands.saga().providers().keys() {
            for kind in Kind::ALL {
                let count = counts.get(&(provider.clone(), kind)).copied().unwrap_or(0);
                let open = &self.metrics.open;
                open.with_label_values(&[provider.as_str(), kind.name()])
                    .set(count);
            }
            if let Some(until_us) = self.store.compared_until(provider).await? {
                let until = self
                    .metrics
                    .compared_until
                    .with_label_values(&[provider.as_str()]);
                until.set(until_us / 1_000_000);
            }
        }
        Ok(())
    }
}
