//! Whether this process should get traffic, by named checks.
//!
//! Deliberately without memory: every question asks every check anew.

use std::{
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long one check may take, where nothing else is said.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);

type CheckFuture = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
type CheckFn = Arc<dyn Fn() -> CheckFuture + Send + Sync>;

#[derive(Clone)]
struct Check {
    name: String,
    ask: CheckFn,
    required: bool,
}

/// The named checks that decide whether this process should get traffic. Cheap to clone; the clones
/// share their checks. Without any it is ready.
#[derive(Clone)]
pub struct Readiness {
    checks: Arc<RwLock<Vec<Check>>>,
    timeout: Duration,
    stopping: CancellationToken,
}

/// What the checks said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether every required check passed.
    pub ready: bool,
    /// Each check, in the order of registration.
    pub checks: Vec<CheckReport>,
}

/// What one check said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// Its name.
    pub name: String,
    /// Whether it passed.
    pub ready: bool,
    /// Whether traffic goes elsewhere when it does not; shown where it does not matter.
    #[serde(skip_serializing_if = "Clone::clone")]
    pub required: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Readiness {
    /// Ready, until checks say otherwise; each has two seconds to answer.
    pub fn new() -> Self {
        Self::within(TIMEOUT_DEFAULT)
    }

    /// The same, with so long for each check to answer before it counts as failed.
    pub fn within(timeout: Duration) -> Self {
        Self {
            checks: Arc::default(),
            timeout,
            stopping: CancellationToken::new(),
        }
    }

    /// Adds a check that runs with every question, concurrently with the others and for the time that each
    /// has. Its error is shown to whoever can reach the admin endpoint.
    pub fn check<F>(&self, name: impl Into<String>, check: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.add(name.into(), Arc::new(move || Box::pin(check())), true);
    }

    /// Adds a check that is shown and decides nothing: of what the process can do without for a while.
    pub fn warning<F>(&self, name: impl Into<String>, check: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.add(name.into(), Arc::new(move || Box::pin(check())), false);
    }

    fn add(&self, name: String, ask: CheckFn, required: bool) {
        // A list of checks is whole even if a thread panicked while it held the lock.
        let mut checks = self.checks.write().unwrap_or_else(PoisonError::into_inner);
        checks.push(Check {
            name,
            ask,
            required,
        });
    }

    /// From now on not ready, so that traffic goes elsewhere while the process drains.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Asks every check.
    pub async fn report(&self) -> Report {
        let checks = self
            .checks
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let patience = self.timeout;
        let mut reports = join_all(checks.into_iter().map(|check| async move {
            let outcome = timeout(patience, (check.ask)())
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {patience:?}")));
            CheckReport {
                name: check.name,
                ready: outcome.is_ok(),
                required: check.required,
                reason: outcome.err(),
            }
        }))
        .await;
        if self.stopping.is_cancelled() {
            let reason = Some("shutting down".to_owned());
            reports.push(CheckReport {
                name: "shutdown".to_owned(),
                ready: false,
                required: true,
                reason,
            });
        }
        Report {
            ready: reports
                .iter()
                .all(|report| report.ready || !report.required),
            checks: reports,
        }
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Readiness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readiness").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failing_warning_is_shown_and_decides_nothing() {
        let readiness = Readiness::new();
        readiness.warning("broker", || async { Err("connection refused".to_owned()) });
        let report = readiness.report().await;
        let shown = serde_json::json!({"ready": true, "checks": [
            {"name": "broker", "ready": false, "required": false, "reason": "connection refused"},
        ]});
        assert_eq!(serde_json::to_value(report).unwrap(), shown);
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_counts_as_failed() {
        let (usual, patient) = (Readiness::new(), Readiness::within(Duration::from_secs(5)));
        for (readiness, said) in [
            (usual, "no answer within 2s"),
            (patient, "no answer within 5s"),
        ] {
            readiness.check("store", std::future::pending::<Result<(), String>>);
            let report = readiness.report().await;
            assert!(!report.ready);
            assert_eq!(report.checks[0].reason.as_deref(), Some(said));
        }
    }
}
