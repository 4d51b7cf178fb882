//! The service's settings. Every key has a default that is safe in production.

use crate::dispute::EvidenceRules;
use crate::limits::Limit;
use crate::policy::Rules;
use crate::provider::simulator::{RemoteConfig, SimulatorConfig};
use crate::provider::stripe::StripeConfig;
use crate::provider::toss::TossConfig;
use crate::provider::{Capabilities, CircuitConfig};
use crate::routing::Route;
use mesh_events::RelayConfig;
use mesh_rabbitmq::RabbitMqConfig;
use mesh_runtime::telemetry::TelemetryConfig;
use mesh_store::{PostgresConfig, SqliteConfig};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Everything that the program reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where gRPC is served.
    pub listen: String,
    /// Where /livez, /readyz and /metrics are served.
    pub admin_listen: String,
    /// Logs.
    pub telemetry: TelemetryConfig,
    /// Calls to other services and from clients.
    pub mesh: mesh::Config,
    /// The broker that carries events.
    pub bus: RabbitMqConfig,
    /// The service itself.
    pub service: ServiceConfig,
    /// The simulator, as long as it is the provider. Of one in another process, what it can do and
    /// the secret of its webhooks.
    pub simulator: SimulatorConfig,
    /// The simulator's own journal, in a file of its own; not opened where it is in another process.
    pub simulator_journal: SqliteConfig,
    /// The simulator as a process of its own; used as soon as it has a URL.
    pub simulator_remote: RemoteConfig,
    /// Further simulators in other processes by name, each a provider that routes may name: to try out how
    /// payments are routed, and what becomes of them when a provider is away.
    pub simulators: BTreeMap<String, FurtherSimulator>,
}

/// A simulator in another process that is a provider of a name of its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FurtherSimulator {
    /// Where it is.
    pub remote: RemoteConfig,
    /// What it can do, and the secret of its webhooks.
    pub simulator: SimulatorConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:50052".to_owned(),
            admin_listen: "127.0.0.1:9052".to_owned(),
            telemetry: TelemetryConfig::default(),
            mesh: mesh::Config::default(),
            bus: RabbitMqConfig::default(),
            service: ServiceConfig::default(),
            simulator: SimulatorConfig::default(),
            simulator_journal: SqliteConfig {
                path: "data/simulator.db".into(),
                ..SqliteConfig::default()
            },
            simulator_remote: RemoteConfig::default(),
            simulators: BTreeMap::new(),
        }
    }
}

/// The settings of the service itself, however it is run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceConfig {
    /// Where payments are kept by one process: a SQLite file.
    pub database: SqliteConfig,
    /// Where payments are kept by any number of replicas; used as soon as it has a URL.
    pub postgres: PostgresConfig,
    /// What a shared database needs beside its connections.
    pub shared: SharedConfig,
    /// Publishing of events.
    pub relay: RelayConfig,
    /// How payments are carried out.
    pub saga: SagaConfig,
    /// The provider of new payments that no route is for.
    pub provider: String,
    /// Which payments go to which providers; the first route that fits and has a provider that answers.
    pub routes: Vec<Route>,
    /// What each caller may ask for within a time; without any, callers are not limited.
    pub limits: Vec<Limit>,
    /// When a provider that does not answer is left alone.
    pub circuit: CircuitConfig,
    /// Stripe, where it is the provider of something.
    pub stripe: StripeConfig,
    /// Toss Payments, where it is the provider of something.
    pub toss: TossConfig,
    /// Comparing providers' lists with the books.
    pub reconcile: ReconcileConfig,
    /// How often the worker looks for payments to go on with, in milliseconds.
    pub worker_poll_ms: u64,
    /// How many payments the worker carries out at the same time.
    pub worker_tasks_max: usize,
    /// How long the stored answers of commands are kept, in hours; at least 24.
    pub answers_keep_h: u32,
    /// How long the log of changes is kept, in hours.
    pub changes_keep_h: u32,
    /// How long the ids of webhooks are kept, in hours.
    pub webhooks_keep_h: u32,
    /// How often old rows are forgotten, in seconds.
    pub sweep_every_s: u64,
    /// How many rows of each kind are forgotten at once.
    pub sweep_rows_max: u32,
    /// How often records of who did what are given their places in the chain, in milliseconds: for so long they can be
    /// changed unnoticed by whoever can write to the database.
    pub audit_seal_ms: u64,
    /// How many of them are given their places at once.
    pub audit_seal_max: u32,
    /// How often a watch looks for changes without being woken, in milliseconds.
    pub watch_poll_ms: u64,
    /// How many changes a watch reads at once.
    pub watch_batch_max: u32,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            database: SqliteConfig {
                path: "data/payment.db".into(),
                ..SqliteConfig::default()
            },
            postgres: PostgresConfig::default(),
            shared: SharedConfig::default(),
            relay: RelayConfig::default(),
            saga: SagaConfig::default(),
            provider: crate::provider::simulator::NAME.to_owned(),
            routes: Vec::new(),
            limits: Vec::new(),
            circuit: CircuitConfig::default(),
            stripe: StripeConfig::default(),
            toss: TossConfig::default(),
            reconcile: ReconcileConfig::default(),
            worker_poll_ms: 200,
            worker_tasks_max: 16,
            answers_keep_h: 48,
            changes_keep_h: 7 * 24,
            webhooks_keep_h: 30 * 24,
            sweep_every_s: 60,
            sweep_rows_max: 1_000,
            audit_seal_ms: 250,
            audit_seal_max: 1_000,
            watch_poll_ms: 200,
            watch_batch_max: 256,
        }
    }
}

/// What a shared database needs beside its connections. SQLite uses none of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SharedConfig {
    /// New payments queue in so many lanes, and those that queue are written together. Each lane uses a connection.
    pub lanes: usize,
    /// New payments that queue in each lane; further ones are refused.
    pub queue_max: usize,
    /// New payments that are written together, at most; no more than 1024 are.
    pub batch_max: usize,
}

impl Default for SharedConfig {
    fn default() -> Self {
        Self {
            lanes: 2,
            queue_max: 1_024,
            batch_max: 64,
        }
    }
}

impl ServiceConfig {
    /// Every provider that new payments may go to.
    pub fn providers(&self) -> BTreeSet<&str> {
        let routed = self.routes.iter().flat_map(|route| &route.providers);
        let names = routed.map(|choice| choice.name.as_str());
        names.chain([self.provider.as_str()]).collect()
    }
}

/// How payments are carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SagaConfig {
    /// How long one step's lease lasts, in milliseconds; longer than any call may take.
    pub lease_ms: u32,
    /// How long the provider may take to answer, in milliseconds; then the outcome is unknown.
    pub provider_timeout_ms: u32,
    /// The most steps of one run; a longer one goes on in another.
    pub steps_max: u32,
    /// How often a run waits for something to become due, before it answers its callers as things
    /// stand and leaves the rest to the worker.
    pub pauses_max: u32,
    /// The longest such wait, in milliseconds.
    pub pause_ms_max: u32,
    /// How long a payment waits to be confirmed, in seconds.
    pub unconfirmed_s: u32,
    /// How long a customer has to authenticate, in seconds.
    pub action_s: u32,
    /// How often a payment may be attempted, one confirmation an attempt: else its cards could be guessed.
    pub attempts_max: usize,
    /// How long stock is held, and how long each extension holds it while an outcome is unknown, in
    /// seconds.
    pub hold_s: u32,
    /// How much of a hold must be left before money is asked for, and how much longer than an
    /// authorisation it lasts, in seconds.
    pub hold_margin_s: u32,
    /// How long stock is asked for in vain before the payment is given back, in seconds.
    pub product_give_up_s: u32,
    /// How long the provider is asked in vain before the payment is given back, in seconds.
    pub provider_give_up_s: u32,
    /// The first pause before a failed call is repeated, in milliseconds; it doubles.
    pub retry_first_ms: u32,
    /// The longest such pause, in milliseconds.
    pub retry_ms_max: u32,
    /// The first pause before the provider is asked what became of a call, in milliseconds; it
    /// doubles.
    pub look_up_first_ms: u32,
    /// The longest such pause, in milliseconds.
    pub look_up_ms_max: u32,
    /// After this time what the provider does not know of has not happened, in milliseconds. Longer
    /// than a request can be under way to the provider.
    pub settle_ms: u32,
    /// How long a charge that was given up is looked up, ever more rarely, in seconds: a request that was under
    /// way for longer than `settle_ms` may succeed after all, and its webhook may be lost. Then it is given back.
    pub late_success_s: u32,
    /// After this time an unknown outcome is listed for a person, in seconds; it is looked up all the same.
    pub escalate_s: u32,
    /// How often the provider is asked about a dispute that is not decided, in seconds: its webhooks may be lost.
    pub dispute_look_up_s: u32,
    /// How many files of evidence are taken for a dispute.
    pub evidence_files_max: usize,
    /// How long one of them may be, in bytes.
    pub evidence_file_bytes_max: usize,
    /// How long all texts and files of evidence may be, in bytes. As base64 they must fit into the edge's
    /// `limits.body_bytes_max`, and as they are into 4 MiB, the longest message that is taken.
    pub evidence_bytes_max: usize,
    /// How long one text of evidence may be, in characters.
    pub evidence_text_characters_max: usize,
}

impl Default for SagaConfig {
    fn default() -> Self {
        Self {
            lease_ms: 30_000,
            provider_timeout_ms: 10_000,
            steps_max: 200,
            pauses_max: 5,
            pause_ms_max: 1_000,
            unconfirmed_s: 24 * 3_600,
            action_s: 15 * 60,
            attempts_max: 20,
            hold_s: 15 * 60,
            hold_margin_s: 60,
            product_give_up_s: 120,
            provider_give_up_s: 120,
            retry_first_ms: 100,
            retry_ms_max: 30_000,
            look_up_first_ms: 2_000,
            look_up_ms_max: 60_000,
            settle_ms: 15_000,
            late_success_s: 24 * 3_600,
            escalate_s: 3_600,
            dispute_look_up_s: 6 * 3_600,
            evidence_files_max: 9,
            evidence_file_bytes_max: 512 * 1024,
            evidence_bytes_max: 720 * 1024,
            evidence_text_characters_max: 20_000,
        }
    }
}

impl SagaConfig {
    /// The limits for payments of a provider with these capabilities; nothing: it is not configured
    /// any more, and whatever can be finished without it is.
    pub fn rules(&self, provider: Option<Capabilities>) -> Rules {
        Rules {
            unconfirmed_us: seconds(self.unconfirmed_s),
            action_us: seconds(self.action_s),
            hold_us: seconds(self.hold_s),
            hold_margin_us: seconds(self.hold_margin_s),
            product_give_up_us: seconds(self.product_give_up_s),
            provider_give_up_us: seconds(self.provider_give_up_s),
            retry_first_us: milliseconds(self.retry_first_ms),
            retry_max_us: milliseconds(self.retry_ms_max),
            look_up_first_us: milliseconds(self.look_up_first_ms),
            look_up_max_us: milliseconds(self.look_up_ms_max),
            settle_us: milliseconds(self.settle_ms)
                .max(provider.map_or(0, |provider| provider.look_up_lag_us)),
            resend_us: provider.map_or(i64::MAX, |provider| provider.idempotency_window_us),
            late_success_us: seconds(self.late_success_s),
            captures_later: provider.is_none_or(|provider| provider.manual_capture),
            voids: provider.is_none_or(|provider| provider.void),
            captures_in_parts: provider.is_none_or(|provider| provider.partial_capture),
            method_is_charge: provider.is_some_and(|provider| provider.method_is_charge),
            attempts_max: self.attempts_max.max(1),
            disputes: provider.is_none_or(|provider| provider.disputes),
            dispute_look_up_us: seconds(self.dispute_look_up_s),
            evidence: EvidenceRules {
                files_max: self.evidence_files_max,
                file_bytes_max: self.evidence_file_bytes_max,
                bytes_max: self.evidence_bytes_max,
                text_characters_max: self.evidence_text_characters_max,
            },
        }
    }

    /// The lease in microseconds.
    pub fn lease_us(&self) -> i64 {
        milliseconds(self.lease_ms)
    }

    /// The longest wait of a run in microseconds.
    pub fn pause_us_max(&self) -> i64 {
        milliseconds(self.pause_ms_max)
    }

    /// After what time an unknown outcome waits for a person.
    pub fn escalate_us(&self) -> i64 {
        seconds(self.escalate_s)
    }

    /// How long the provider may take.
    pub fn provider_timeout(&self) -> Duration {
        Duration::from_millis(self.provider_timeout_ms.into())
    }
}

/// Comparing providers' lists with the books.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReconcileConfig {
    /// How often the lists of each provider are compared with the books, in seconds; 0: only when somebody asks for it.
    pub every_s: u32,
    /// What is younger is not yet a discrepancy, in seconds; at least as long as a provider's look-ups lag behind.
    pub grace_s: u32,
    /// How far before the end of the last comparison the next one begins, in seconds: a provider may book late.
    pub overlap_s: u32,
    /// How many of our own entries are compared at once.
    pub page_max: u32,
    /// How often it is looked whether a comparison is asked for or due, in milliseconds.
    pub poll_ms: u64,
    /// How long one page's lease lasts, in milliseconds; longer than a provider may take for it.
    pub lease_ms: u32,
    /// How long a provider may take for a page, in milliseconds.
    pub timeout_ms: u32,
    /// The pause before a page that a provider did not give is asked for again, in milliseconds.
    pub retry_ms: u32,
    /// How often in a row a page is asked for before the comparison is given up.
    pub tries_max: u32,
}

impl Default for ReconcileConfig {
    fn default() -> Self {
        Self {
            every_s: 3_600,
            grace_s: 3_600,
            overlap_s: 3 * 24 * 3_600,
            page_max: 500,
            poll_ms: 1_000,
            lease_ms: 300_000,
            timeout_ms: 30_000,
            retry_ms: 60_000,
            tries_max: 10,
        }
    }
}

impl ReconcileConfig {
    /// How often, in microseconds; 0: never.
    pub fn every_us(&self) -> i64 {
        seconds(self.every_s)
    }

    /// What is not yet a discrepancy, in microseconds.
    pub fn grace_us(&self) -> i64 {
        seconds(self.grace_s)
    }

    /// The overlap in microseconds.
    pub fn overlap_us(&self) -> i64 {
        seconds(self.overlap_s)
    }

    /// The lease in microseconds.
    pub fn lease_us(&self) -> i64 {
        milliseconds(self.lease_ms)
    }

    /// The pause in microseconds.
    pub fn retry_us(&self) -> i64 {
        milliseconds(self.retry_ms)
    }

    /// How often it is looked.
    pub fn poll(&self) -> Duration {
        Duration::from_millis(self.poll_ms.max(1))
    }

    /// How long a provider may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.into())
    }
}

fn seconds(seconds: u32) -> i64 {
    i64::from(seconds) * 1_000_000
}

fn milliseconds(milliseconds: u32) -> i64 {
    i64::from(milliseconds) * 1_000
}
