//! A payment service over a real database and the simulator, with a small catalogue in memory, a
//! clock that tests move, and a check of everything that must hold once the dust has settled.

use crate::storage::Storage;
use crate::suite::catalogue::MemoryCatalogue;
use crate::suite::fuse::Fuse;
use kernel::{Currency, PaymentId};
use mesh_events::FaultPoints;
use mesh_runtime::Clock;
use mesh_store::{Durability, SqliteConfig};
use payment::charges::Charges;
use payment::commands::{Answer, Commands, NewPayment, Request};
use payment::config::{SagaConfig, ServiceConfig};
use payment::error::Error;
use payment::limits::Limits;
use payment::payment::{CaptureMethod, Payment};
use payment::provider::simulator::{self, Simulator, SimulatorConfig};
use payment::reconciler::{Metrics, Reconciler};
use payment::refund::{How, Wanted};
use payment::saga::{Providers, Saga};
use payment::store::{AuditLog, Books, Desk, Reconciliations, Store, Viewer};
use payment::webhook::DirectWebhooks;
use payment::wire::method;
use payment::worker::Worker;
use prost::Message;
use proto::commerce::payment::v1 as pb;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

pub(crate) const NOW_US: i64 = 1_700_000_000_000_000;
pub(crate) const SECOND_US: i64 = 1_000_000;
pub(crate) const VISA: &str = "pm_card_visa";

/// Everything that outlives a process.
pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) storage: Storage,
    pub(crate) simulator: Arc<Simulator>,
    pub(crate) catalogue: Arc<MemoryCatalogue>,
    pub(crate) config: ServiceConfig,
    requests: AtomicU64,
    /// Of the simulator's journal.
    folder: TempDir,
}

/// What a process has of its own.
pub(crate) struct Process {
    pub(crate) commands: Commands,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) desk: Arc<dyn Desk>,
    pub(crate) audit: Arc<dyn AuditLog>,
    pub(crate) reconciliations: Arc<dyn Reconciliations>,
    pub(crate) books: Arc<dyn Books>,
    pub(crate) worker: Worker,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(SimulatorConfig::default(), Durability::Full).await
    }

    /// With a provider that charges in one step.
    pub(crate) async fn one_step() -> Self {
        let simulator = SimulatorConfig {
            one_step: true,
            ..SimulatorConfig::default()
        };
        Self::with(simulator, Durability::Full).await
    }

    pub(crate) async fn with(simulator: SimulatorConfig, durability: Durability) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(NOW_US);
        let journal = SqliteConfig {
            path: folder.path().join("simulator.db"),
            durability,
            ..SqliteConfig::default()
        };
        let simulator = Simulator::open(&simulator, &journal, clock.clone())
            .await
            .unwrap();
        let config = ServiceConfig {
            saga: SagaConfig {
                pauses_max: 0,
                ..SagaConfig::default()
            },
            ..ServiceConfig::default()
        };
        Self {
            catalogue: Arc::new(MemoryCatalogue::new(clock.clone())),
            clock,
            storage: Storage::fresh(durability).await,
            simulator: Arc::new(simulator),
            config,
            requests: AtomicU64::new(0),
            folder,
        }
    }

    /// A process over this world.
    pub(crate) fn process(&self) -> Process {
        self.process_with(&Fuse::never())
    }

    /// Another process, with connections of its own to the same database.
    pub(crate) async fn replica(&self) -> Process {
        self.process_on(self.storage.replica().await, &Fuse::never())
    }

    /// A process that ends where the fuse says.
    pub(crate) fn process_with(&self, fuse: &Arc<Fuse>) -> Process {
        self.process_on(self.storage.store(), fuse)
    }

    fn process_on(&self, store: Arc<dyn Store>, fuse: &Arc<Fuse>) -> Process {
        let store = fuse.store(store);
        let catalogue = fuse.catalogue(self.catalogue.clone());
        let provider = fuse.provider(self.simulator.clone());
        let saga = Saga::new(
            store.clone(),
            catalogue.clone(),
            Providers::from([(simulator::NAME.to_owned(), provider)]),
            self.config.saga.clone(),
            self.clock.clone(),
            TaskTracker::new(),
            FaultPoints::default(),
        )
        .limited(Limits::new(&self.config.limits).unwrap());
        let worker = Worker::new(store.clone(), saga.clone(), self.config.clone());
        let commands = Commands::new(store.clone(), saga, catalogue, simulator::NAME.to_owned());
        Process {
            commands,
            store,
            desk: self.storage.desk(),
            audit: self.storage.audit(),
            reconciliations: self.storage.reconciliations(),
            books: self.storage.books(),
            worker,
        }
    }

    /// Who compares the simulator's lists with the books, for one process.
    pub(crate) fn reconciler(&self, process: &Process) -> Reconciler {
        self.reconciler_with(process, Metrics::unregistered().unwrap())
    }

    /// The same with metrics to look at.
    pub(crate) fn reconciler_with(&self, process: &Process, metrics: Metrics) -> Reconciler {
        Reconciler::new(
            self.storage.reconciliations(),
            process.commands.clone(),
            self.config.reconcile.clone(),
            metrics,
        )
    }

    /// Where the simulator's journal is, for whoever writes past the simulator.
    pub(crate) fn journal(&self) -> PathBuf {
        self.folder.path().join("simulator.db")
    }

    /// A number that no other call of this world got.
    pub(crate) fn number(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    /// Lets so much time pass that no lease lasts, whoever's clock it runs by.
    pub(crate) async fn outlast_leases(&self) {
        let lease_us = i64::from(self.config.saga.lease_ms) * 1_000;
        self.clock.advance(lease_us + 1);
        self.storage.outlast_leases().await;
    }

    /// Lets time pass in small steps, with webhooks delivered and the worker working, until nothing
    /// is left to do but wait for something to run out.
    pub(crate) async fn settle(&self, process: &Process) {
        for _ in 0..90 {
            self.clock.advance(2 * SECOND_US);
            self.deliver(process).await;
            let worked = process.worker.run_once().await.unwrap();
            let due = process
                .store
                .due(self.clock.now_us() + 3_600 * SECOND_US, 1_000)
                .await;
            if worked == 0 && self.idle(&due.unwrap()).await {
                return;
            }
        }
    }

    /// Delivers the webhooks that are due, and waits until what they ask for is done.
    pub(crate) async fn deliver(&self, process: &Process) {
        let webhooks = DirectWebhooks::new(process.commands.clone(), simulator::NAME);
        self.simulator.deliver_webhooks(&webhooks).await.unwrap();
        process.commands.saga().tasks().close();
        process.commands.saga().tasks().wait().await;
        process.commands.saga().tasks().reopen();
    }

    /// Whether payments that are due within the hour only wait to run out, or for a late success of what was given up.
    async fn idle(&self, due: &[PaymentId]) -> bool {
        for id in due {
            let payment = self.storage.store().payment(*id).await.unwrap().unwrap();
            let is_open = payment.state == payment::state::State::Processing
                || payment.stock_is_owed()
                || payment
                    .refunds
                    .iter()
                    .any(|refund| refund.state == payment::refund::RefundState::Pending)
                || payment
                    .captures
                    .iter()
                    .any(|c| c.state == payment::capture::CaptureState::Pending)
                || payment.refunds.iter().any(|refund| refund.check)
                || payment
                    .disputes
                    .iter()
                    .any(|dispute| dispute.response.is_open());
            if is_open {
                return false;
            }
        }
        true
    }
}

impl Process {
    pub(crate) async fn create(&self, world: &World, new: Buy) -> Result<pb::Payment, Error> {
        let request = request(method::CREATE_PAYMENT, &format!("key-{}", world.number()));
        let answer = self.commands.create(request, new.order(world)).await?;
        Ok(decoded(&answer))
    }

    pub(crate) async fn confirm(
        &self,
        world: &World,
        id: &str,
        payment_method: &str,
    ) -> Result<pb::Payment, Error> {
        let request = request(method::CONFIRM_PAYMENT, &format!("key-{}", world.number()));
        let id = PaymentId::parse(id).unwrap();
        let answer = self
            .commands
            .confirm(request, id, Some(payment_method.to_owned()))
            .await?;
        Ok(decoded(&answer))
    }

    pub(crate) async fn capture(
        &self,
        world: &World,
        id: &str,
        lines: &[(&str, i32)],
        is_final: bool,
    ) -> Result<pb::Payment, Error> {
        let request = request(method::CAPTURE_PAYMENT, &format!("key-{}", world.number()));
        let id = PaymentId::parse(id).unwrap();
        let answer = self
            .commands
            .capture(request, id, owned(lines), is_final)
            .await?;
        Ok(decoded(&answer))
    }

    pub(crate) async fn cancel(&self, world: &World, id: &str) -> Result<pb::Payment, Error> {
        let request = request(method::CANCEL_PAYMENT, &format!("key-{}", world.number()));
        let answer = self
            .commands
            .cancel(request, PaymentId::parse(id).unwrap())
            .await?;
        Ok(decoded(&answer))
    }

    pub(crate) async fn refund(
        &self,
        world: &World,
        id: &str,
        wanted: Wanted,
        restock: bool,
    ) -> Result<pb::Refund, Error> {
        let request = request(method::CREATE_REFUND, &format!("key-{}", world.number()));
        let id = PaymentId::parse(id).unwrap();
        let answer = self
            .commands
            .refund(request, id, wanted, how(restock))
            .await?;
        Ok(pb::CreateRefundResponse::decode(answer.bytes.as_slice())
            .unwrap()
            .refund
            .unwrap())
    }

    /// Asks the provider about everything of a payment.
    pub(crate) async fn look_up(&self, world: &World, id: &str) {
        let request = request(method::LOOK_UP_PAYMENT, &format!("key-{}", world.number()));
        let id = PaymentId::parse(id).unwrap();
        self.commands.look_up(request, id).await.unwrap();
    }

    pub(crate) async fn payment(&self, id: &str) -> Payment {
        self.store
            .payment(PaymentId::parse(id).unwrap())
            .await
            .unwrap()
            .unwrap()
    }
}

/// A purchase as tests write it.
#[derive(Debug, Clone)]
pub(crate) struct Buy {
    pub(crate) order_ref: Option<String>,
    pub(crate) lines: Vec<(String, i32)>,
    pub(crate) charges: Charges,
    pub(crate) payment_method: &'static str,
    pub(crate) capture_method: CaptureMethod,
    pub(crate) confirm: bool,
}

impl Buy {
    /// Two of A and one of B, taken at once.
    pub(crate) fn some() -> Self {
        Self {
            order_ref: None,
            lines: owned(&[("A", 2), ("B", 1)]),
            charges: Charges::default(),
            payment_method: VISA,
            capture_method: CaptureMethod::Automatic,
            confirm: true,
        }
    }

    pub(crate) fn manual() -> Self {
        Self {
            capture_method: CaptureMethod::Manual,
            ..Self::some()
        }
    }

    pub(crate) fn by(payment_method: &'static str) -> Self {
        Self {
            payment_method,
            ..Self::some()
        }
    }

    pub(crate) fn unconfirmed() -> Self {
        Self {
            confirm: false,
            ..Self::some()
        }
    }

    pub(crate) fn order(&self, world: &World) -> NewPayment {
        NewPayment {
            order_ref: self
                .order_ref
                .clone()
                .unwrap_or_else(|| format!("order-{}", world.number())),
            customer_ref: "customer".into(),
            currency: Currency::parse("USD").unwrap(),
            lines: self.lines.clone(),
            charges: self.charges.clone(),
            payment_method: self.payment_method.into(),
            capture_method: self.capture_method,
            confirm: self.confirm,
            expected: None,
            ordered_at_us: None,
        }
    }
}

/// A request of the client `shop`; its fingerprint is that of its key.
pub(crate) fn request(method: &'static str, key: &str) -> Request {
    Request {
        viewer: Viewer::Client("shop".into()),
        principal: "shop".into(),
        method,
        request_id: key.into(),
        fingerprint: mesh_store::idempotency::fingerprint(key.as_bytes()),
    }
}

pub(crate) fn owned(lines: &[(&str, i32)]) -> Vec<(String, i32)> {
    lines
        .iter()
        .map(|(sku, quantity)| ((*sku).to_owned(), *quantity))
        .collect()
}

/// How tests give money back.
pub(crate) fn how(restock: bool) -> How {
    How {
        restock,
        reason: "why".into(),
        disputed_too: false,
    }
}

/// The payment in an answer; all answers but that of a refund carry it in their first field.
pub(crate) fn decoded(answer: &Answer) -> pb::Payment {
    pb::CreatePaymentResponse::decode(answer.bytes.as_slice())
        .unwrap()
        .payment
        .unwrap()
}
