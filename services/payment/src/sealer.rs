//! The one writer behind the commits: gives records of who did what their places in the chain.
//!
//! Apart from the transactions that write them, so that no payment waits for another one's hash. Any number of replicas
//! may run it; the store lets one at a time.

use crate::store::AuditLog;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Gives records their places, as often as it is told.
pub struct Sealer {
    /// Where they are.
    pub log: Arc<dyn AuditLog>,
    /// How long it rests once none waits.
    pub every: Duration,
    /// How many it takes at once.
    pub batch_max: u32,
}

impl Sealer {
    /// Until `shutdown`, and then once more.
    pub async fn run(&self, shutdown: CancellationToken) {
        loop {
            let stopping = shutdown.is_cancelled();
            self.seal_all().await;
            if stopping {
                return;
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(self.every) => {}
            }
        }
    }

    async fn seal_all(&self) {
        loop {
            match self.log.seal(self.batch_max).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    warn!(%error, "records of who did what wait for their places");
                    return;
                }
            }
        }
    }
}
