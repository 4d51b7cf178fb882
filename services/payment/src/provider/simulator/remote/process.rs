//! The simulator as a program: its settings, and its parts put together.

use super::calls::{Calls, LostAnswers};
use super::connect::http_url;
use super::post::Post;
use super::server;
use crate::provider::simulator::{Simulator, SimulatorConfig, WebhookSender};
use anyhow::{Context as _, ensure};
use mesh_runtime::admin::{self, Readiness};
use mesh_runtime::config::Secret;
use mesh_runtime::telemetry::TelemetryConfig;
use mesh_runtime::{Clock, shutdown};
use mesh_store::SqliteConfig;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long webhooks under way may take when the program stops; they are sent again at the next start.
const DRAIN: Duration = Duration::from_secs(15);

/// Everything that the program reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessConfig {
    /// Where commands are taken.
    pub listen: String,
    /// Where /livez, /readyz and /metrics are served.
    pub admin_listen: String,
    /// How long the journal may take to say that it answers before /readyz says no, in milliseconds.
    /// Default: 2000.
    pub readiness_timeout_ms: u64,
    /// Logs.
    pub telemetry: TelemetryConfig,
    /// What callers present as `Authorization: Bearer KEY`; without one it listens on loopback only.
    pub key: Secret,
    /// Where webhooks are posted, such as `http://127.0.0.1:8080/v1/webhooks/simulator`; empty: they
    /// wait.
    pub webhook_url: String,
    /// What becomes of a connection whose answer is lost: it breaks, or nothing comes.
    pub lost_answers: LostAnswers,
    /// What it does.
    pub simulator: SimulatorConfig,
    /// Its journal.
    pub journal: SqliteConfig,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:50053".to_owned(),
            admin_listen: "127.0.0.1:9053".to_owned(),
            readiness_timeout_ms: 2_000,
            telemetry: TelemetryConfig::default(),
            key: Secret::default(),
            webhook_url: String::new(),
            lost_answers: LostAnswers::default(),
            simulator: SimulatorConfig::default(),
            journal: SqliteConfig {
                path: "data/simulator.db".into(),
                ..SqliteConfig::default()
            },
        }
    }
}

impl ProcessConfig {
    /// Refuses what contradicts itself.
    pub fn validate(&self) -> anyhow::Result<()> {
        self.simulator.validate()?;
        if !self.webhook_url.is_empty() {
            http_url("webhook_url", &self.webhook_url)?;
            ensure!(
                !self.simulator.webhook_secret.is_empty(),
                "simulator.webhook_secret: must be set where webhook_url is, and the same there"
            );
        }
        Ok(())
    }
}

/// Runs the simulator until `shutdown`.
pub async fn run(
    config: ProcessConfig,
    listener: TcpListener,
    admin_listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    config.validate()?;
    let address = listener.local_addr().context("the listener's address")?;
    ensure!(
        address.ip().is_loopback() || !config.key.is_empty(),
        "key: must be set to listen on {address}, which others can reach"
    );
    let simulator = Simulator::open(&config.simulator, &config.journal, Clock::system())
        .await
        .context("the simulator's journal")?;
    let simulator = Arc::new(simulator);
    let registry = prometheus::Registry::new();
    let calls = Calls::new(
        simulator.clone(),
        config.key,
        config.lost_answers,
        &registry,
    )?;

    let readiness = Readiness::within(Duration::from_millis(config.readiness_timeout_ms));
    let asked = simulator.clone();
    readiness.check("journal", move || {
        let asked = asked.clone();
        async move { asked.ready().await.map_err(|error| error.to_string()) }
    });
    let background = TaskTracker::new();
    let admin_stop = CancellationToken::new();
    let (told, until_drained) = (readiness.clone(), admin_stop.clone());
    background.spawn(admin::serve(
        admin_listener,
        registry,
        told,
        admin::Pages::none(),
        until_drained,
    ));
    let post = match config.webhook_url.as_str() {
        "" => None,
        url => Some(Post::to(url)?),
    };
    let (working, until_stop) = (simulator.clone(), shutdown.clone());
    background.spawn(async move {
        let sender = post.as_ref().map(|post| post as &dyn WebhookSender);
        working.run(sender, until_stop).await;
    });
    let stopping = shutdown.clone();
    background.spawn(async move {
        stopping.cancelled().await;
        readiness.stop();
    });
    let (faults, webhook_faults) = (config.simulator.faults, config.simulator.webhook_faults);
    tracing::info!(?faults, ?webhook_faults, "what goes wrong on purpose");
    tracing::info!(%address, "simulator is listening");
    server::serve(listener, calls, shutdown).await;
    admin_stop.cancel();
    if let Err(error) = shutdown::drain(&background, DRAIN).await {
        tracing::warn!(%error, "stopped without waiting longer");
    }
    simulator
        .close()
        .await
        .context("closing the simulator's journal")
}
