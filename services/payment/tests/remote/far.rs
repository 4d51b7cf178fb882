//! A simulator behind the protocol on a port of its own, and its client.

use kernel::{Currency, Money};
use mesh_runtime::Clock;
use mesh_runtime::config::Secret;
use mesh_store::SqliteConfig;
use payment::provider::simulator::remote::{Calls, LostAnswers, serve};
use payment::provider::simulator::{RemoteConfig, RemoteSimulator, Simulator, SimulatorConfig};
use payment::provider::{Authorize, Capture, ProviderError, Refund, Void};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const NOW_US: i64 = 1_700_000_000_000_000;
pub(crate) const KEY: &str = "sim_key";
pub(crate) const VISA: &str = "pm_card_visa";

pub(crate) struct Far {
    pub(crate) simulator: Arc<Simulator>,
    pub(crate) config: SimulatorConfig,
    pub(crate) clock: Clock,
    pub(crate) address: SocketAddr,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
    _folder: TempDir,
}

impl Far {
    pub(crate) async fn new() -> Self {
        Self::with(config(), LostAnswers::Close).await
    }

    pub(crate) async fn with(config: SimulatorConfig, lost_answers: LostAnswers) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(NOW_US);
        let simulator = open(folder.path(), &config, &clock).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let registry = prometheus::Registry::new();
        let key = Secret::new(KEY);
        let calls = Calls::new(simulator.clone(), key, lost_answers, &registry).unwrap();
        let serving = mesh::spawn(serve(listener, calls, shutdown.clone()));
        Self {
            simulator,
            config,
            clock,
            address,
            shutdown,
            serving,
            _folder: folder,
        }
    }

    /// A client with the right key.
    pub(crate) fn client(&self) -> RemoteSimulator {
        client(&self.url(), KEY, &self.config)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops serving; the simulator goes on.
    pub(crate) async fn stop(self) -> Arc<Simulator> {
        self.shutdown.cancel();
        self.serving.await.unwrap();
        self.simulator
    }
}

pub(crate) fn config() -> SimulatorConfig {
    SimulatorConfig {
        webhook_secret: Secret::new("whsec"),
        ..SimulatorConfig::default()
    }
}

pub(crate) fn client(url: &str, key: &str, simulator: &SimulatorConfig) -> RemoteSimulator {
    let config = RemoteConfig {
        url: url.to_owned(),
        key: Secret::new(key),
        ..RemoteConfig::default()
    };
    RemoteSimulator::new("simulator", &config, simulator).unwrap()
}

pub(crate) async fn open(folder: &Path, config: &SimulatorConfig, clock: &Clock) -> Arc<Simulator> {
    let journal = SqliteConfig {
        path: folder.join("simulator.db"),
        ..SqliteConfig::default()
    };
    let simulator = Simulator::open(config, &journal, clock.clone());
    Arc::new(simulator.await.unwrap())
}

pub(crate) fn usd(amount_minor: i64) -> Money {
    Money::new(Currency::parse("USD").unwrap(), amount_minor).unwrap()
}

pub(crate) fn authorize(reference: &str, token: &str) -> Authorize {
    Authorize {
        reference: reference.to_owned(),
        payment_reference: String::new(),
        amount: usd(1000),
        payment_method: token.to_owned(),
        order_ref: "order-1".to_owned(),
        capture: false,
    }
}

pub(crate) fn capture(reference: &str, charge: &str, amount_minor: i64) -> Capture {
    Capture {
        reference: reference.to_owned(),
        charge_reference: charge.to_owned(),
        amount: usd(amount_minor),
        last: false,
    }
}

pub(crate) fn refund(reference: &str, charge: &str, amount_minor: i64) -> Refund {
    Refund {
        reference: reference.to_owned(),
        charge_reference: charge.to_owned(),
        amount: usd(amount_minor),
    }
}

pub(crate) fn void(charge: &str) -> Void {
    Void {
        charge_reference: charge.to_owned(),
    }
}

pub(crate) fn is_unknown<T>(answer: &Result<T, ProviderError>) -> bool {
    matches!(answer, Err(ProviderError::Unknown(_)))
}

pub(crate) fn is_unavailable<T>(answer: &Result<T, ProviderError>) -> bool {
    matches!(answer, Err(ProviderError::Unavailable(_)))
}
