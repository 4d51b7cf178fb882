//! `grpc.health.v1`: what load balancers and kubelets ask, by fixed names.
//!
//! | name | serves |
//! |---|---|
//! | `startup` | from the moment that calls are taken |
//! | `liveness` | the same, whatever becomes of what the server depends on: a restart would mend none of that |
//! | `readiness`, and the empty name | while the check of `Server::ready_when` passes, until the shutdown |
//! | the full name of each gRPC service | until the shutdown |
//!
//! The check runs at an interval and not with each question: probes, however many, cost the database nothing.

use std::{future::Future, pin::Pin, sync::Arc};

use tokio::time::{sleep, timeout};
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

use crate::ServerConfig;

/// Whether calls are taken at all.
const STARTUP: &str = "startup";
/// Whether the process is worth keeping.
const LIVENESS: &str = "liveness";
/// Whether calls should come here; the empty name is the whole server's.
const READINESS: [&str; 2] = ["readiness", ""];

type Outcome = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Whether the server should get calls, and why not.
#[derive(Clone)]
pub(crate) struct ReadyCheck(Arc<dyn Fn() -> Outcome + Send + Sync>);

impl ReadyCheck {
    pub(crate) fn new<F>(check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(check())))
    }
}

impl std::fmt::Debug for ReadyCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadyCheck").finish_non_exhaustive()
    }
}

/// Says which services serve. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Health {
    reporter: HealthReporter,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self {
            reporter: HealthReporter::new(),
        }
    }

    pub(crate) fn service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }

    /// Sets the state of one service, by its full name (`package.Service`), or of the whole server (`""`).
    pub async fn set(&self, service: &str, serving: bool) {
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        self.reporter.set_service_status(service, status).await;
    }

    /// Calls are taken from now on; whether they should come here says the first check, if there is one.
    pub(crate) async fn begin(&self, services: &[&'static str], has_check: bool) {
        self.all(&[STARTUP, LIVENESS], true).await;
        self.all(services, true).await;
        self.all(&READINESS, !has_check).await;
    }

    /// Asks the check again and again and says what came out; never ends. Each round goes by the limits of its
    /// moment.
    pub(crate) async fn follow(&self, check: &ReadyCheck, limits: impl Fn() -> ServerConfig) {
        let mut said = None;
        loop {
            let limits = limits();
            let patience = limits.readiness_timeout();
            let late = |_| Err(format!("no answer within {patience:?}"));
            let outcome = timeout(patience, (check.0)()).await.unwrap_or_else(late);
            if said != Some(outcome.is_ok()) {
                match &outcome {
                    Ok(()) => tracing::info!("ready"),
                    Err(reason) => tracing::warn!(reason, "not ready"),
                }
                self.all(&READINESS, outcome.is_ok()).await;
                said = Some(outcome.is_ok());
            }
            sleep(limits.readiness_interval()).await;
        }
    }

    /// Calls should go elsewhere from now on; the process lives.
    pub(crate) async fn leave(&self, services: &[&'static str]) {
        self.all(&READINESS, false).await;
        self.all(services, false).await;
    }

    async fn all(&self, names: &[&'static str], serving: bool) {
        for name in names {
            self.set(name, serving).await;
        }
    }
}
