//! Carries payments out: takes each step that the persisted state asks for, one at a time, under a
//! lease, and records what the world answered.
//!
//! Deliberately without decisions: what is next is `step`, what an answer means is `record`.
//! A run may end at any point, between any two lines: whoever takes the lease next goes on from what
//! is stored.

use crate::audit::{self, Record};
use crate::catalogue::{Catalogue, ask_catalogue};
use crate::config::SagaConfig;
use crate::dispute::Dispute;
use crate::error::Error;
use crate::fact::{Effects, Fact, Turn};
use crate::ledger::Source;
use crate::limits::Limits;
use crate::metrics::{Counted, Metrics};
use crate::money::{ask_provider, not_configured, submit_evidence};
use crate::payment::CaptureMethod;
use crate::payment::Payment;
use crate::policy::Rules;
use crate::provider::{Provider, SubmitEvidence};
use crate::record::{Report, ResponseAnswer};
use crate::rejection::Rejection;
use crate::routing::{self, Fit, Route, Wish};
use crate::step::{Call, DisputeCall, MoneyCall, Next};
use crate::store::{Advanced, Begun, Decision, LeaseWish, Store, Work};
use kernel::PaymentId;
use mesh_events::{AFTER_PROVIDER_CALL, BEFORE_PROVIDER_CALL, FaultPoints};
use mesh_runtime::Clock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};

/// How often a step is recorded in vain before the lease is left to run out.
const RECORD_TRIES_MAX: u32 = 5;
const RECORD_PAUSE: Duration = Duration::from_millis(50);

/// Who moves the money, by name.
pub type Providers = BTreeMap<String, Arc<dyn Provider>>;

/// Carries payments out. Cheap to clone.
#[derive(Clone)]
pub struct Saga {
    inner: Arc<Inner>,
    routes: Arc<[Route]>,
    limits: Limits,
    metrics: Option<Metrics>,
}

struct Inner {
    store: Arc<dyn Store>,
    catalogue: Arc<dyn Catalogue>,
    providers: Providers,
    config: SagaConfig,
    clock: Clock,
    tasks: TaskTracker,
    fault_points: FaultPoints,
    instance: String,
    runs: AtomicU64,
    moved: Notify,
}

impl Saga {
    /// Over these parts. Runs are tasks of `tasks`, so that shutdown can wait for them. Calls to providers pass
    /// `fault_points`.
    pub fn new(
        store: Arc<dyn Store>,
        catalogue: Arc<dyn Catalogue>,
        providers: Providers,
        config: SagaConfig,
        clock: Clock,
        tasks: TaskTracker,
        fault_points: FaultPoints,
    ) -> Self {
        let instance = kernel::id::uuid_at(clock.now_us()).simple().to_string();
        let runs = AtomicU64::new(0);
        let moved = Notify::new();
        let inner = Inner {
            store,
            catalogue,
            providers,
            config,
            clock,
            tasks,
            fault_points,
            instance,
            runs,
            moved,
        };
        Self {
            inner: Arc::new(inner),
            routes: Arc::default(),
            limits: Limits::default(),
            metrics: None,
        }
    }

    /// The same with what happens after sales counted.
    #[must_use]
    pub fn counted(mut self, metrics: Metrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// The same with new payments routed.
    #[must_use]
    pub fn routed(mut self, routes: Vec<Route>) -> Self {
        self.routes = routes.into();
        self
    }

    /// The same with limits on what callers may ask for.
    #[must_use]
    pub fn limited(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The limits on what callers may ask for.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The provider for a new payment; nothing where no route is for it. `dice`: any number, the same for the
    /// same choice.
    pub fn route(&self, wish: &Wish<'_>, dice: u64) -> Option<&str> {
        routing::choose(&self.routes, wish, dice, &|name| {
            self.fit(name, wish.capture_method)
        })
    }

    /// Gives a payment that no provider can have heard of to the one that is right for it now, when it is charged
    /// to `method`, or to the one that it has.
    pub fn redirect(&self, payment: &mut Payment, method: Option<&str>) {
        if self.routes.is_empty() || !payment.is_unsent() {
            return;
        }
        let dice = payment.id.uuid().as_u64_pair().1; // Random, and the same each time.
        let method = method.unwrap_or(&payment.order.payment_method);
        let chosen = self.route(&payment.routing_wish(method), dice);
        if let Some(name) = chosen.map(str::to_owned) {
            payment.order.provider = name;
        }
    }

    fn fit(&self, provider: &str, capture_method: CaptureMethod) -> Fit {
        let Some(provider) = self.inner.providers.get(provider) else {
            return Fit::Unfit;
        };
        if capture_method == CaptureMethod::Manual && !provider.capabilities().manual_capture {
            Fit::Unfit
        } else if provider.is_available() {
            Fit::Ready
        } else {
            Fit::Away
        }
    }

    /// The providers.
    pub fn providers(&self) -> &Providers {
        &self.inner.providers
    }

    /// The time.
    pub fn now_us(&self) -> i64 {
        self.inner.clock.now_us()
    }

    /// The tasks of all runs.
    pub fn tasks(&self) -> &TaskTracker {
        &self.inner.tasks
    }

    /// Notified whenever some payment may have changed.
    pub fn moved(&self) -> &Notify {
        &self.inner.moved
    }

    /// A wish for the lease in the name of a new run.
    pub fn wish(&self) -> LeaseWish {
        let run = self.inner.runs.fetch_add(1, Ordering::Relaxed);
        self.lease(format!("{}/{run}", self.inner.instance))
    }

    fn lease(&self, owner: String) -> LeaseWish {
        let now_us = self.now_us();
        LeaseWish {
            owner,
            now_us,
            until_us: now_us + self.inner.config.lease_us(),
        }
    }

    /// The limits that hold for payments of a provider.
    pub fn rules(&self, provider: &str) -> Rules {
        let capabilities = self.inner.providers.get(provider).map(|p| p.capabilities());
        self.inner.config.rules(capabilities)
    }

    /// Carries out a command on a payment within a transaction, and decides what is next where that
    /// transaction holds the lease.
    pub fn decide(
        &self,
        payment: &mut Payment,
        now_us: i64,
        holds_lease: bool,
        command: impl FnOnce(&mut Payment, &mut Turn<'_>) -> Result<Option<Begun>, Rejection>,
    ) -> Result<Decision, Rejection> {
        let rules = self.rules(&payment.order.provider);
        let mut turn = Turn::new(now_us, &rules);
        let attempts = payment.attempts.len();
        let begun = command(payment, &mut turn)?;
        turn.effects.spending = self.limits.spending(payment, attempts, now_us);
        let next = if holds_lease {
            payment.next(&mut turn)
        } else {
            Next::Later(now_us)
        };
        Ok(Decision {
            effects: turn.effects,
            next,
            pause: false,
            begun,
        })
    }

    /// Runs a payment in a task of its own, which no caller's going away ends.
    pub fn start(
        &self,
        payment: PaymentId,
        owner: String,
        work: Work,
    ) -> tokio::task::JoinHandle<()> {
        let saga = self.clone();
        self.inner.tasks.spawn(mesh::detach(async move {
            saga.run(payment, owner, work).await;
        }))
    }

    /// Takes the lease of a payment that nobody carries out, and runs it to where nothing is to be
    /// done now. False: somebody carries it out.
    pub async fn resume(&self, payment: PaymentId) -> Result<bool, Error> {
        let wish = self.wish();
        let patience = self.inner.config.pauses_max;
        let taken = self.step(payment, &wish, None, patience, true).await?;
        let work = match taken {
            Advanced::Lost => return Ok(false),
            Advanced::Left => Work::Done,
            Advanced::Call(call) => Work::Call(call),
            Advanced::Pause(due_us) => Work::Pause(due_us),
        };
        self.run(payment, wish.owner, work).await;
        Ok(true)
    }

    /// Takes step after step until nothing is to be done now, or the lease is somebody else's.
    pub async fn run(&self, payment: PaymentId, owner: String, mut work: Work) {
        let mut pauses = self.inner.config.pauses_max;
        for _ in 0..self.inner.config.steps_max {
            let report = match work {
                Work::Call(call) => Some(self.perform(payment, &call).await),
                Work::Pause(due_us) => {
                    pauses = pauses.saturating_sub(1);
                    self.pause_until(due_us).await;
                    None
                }
                Work::Done | Work::Queued => break,
            };
            work = match self.record(payment, &owner, report, pauses).await {
                Ok(Advanced::Call(call)) => Work::Call(call),
                Ok(Advanced::Pause(due_us)) => Work::Pause(due_us),
                Ok(Advanced::Left) => Work::Done,
                Ok(Advanced::Lost) => {
                    debug!(payment.id = %payment, "lease lost");
                    Work::Done
                }
                Err(error) => {
                    warn!(payment.id = %payment, error = %error, "step not recorded");
                    Work::Done
                }
            };
        }
        self.inner.moved.notify_waiters();
    }

    /// Records an answer, patiently: what the world did must not be forgotten for a busy database.
    async fn record(
        &self,
        payment: PaymentId,
        owner: &str,
        report: Option<Report>,
        pauses: u32,
    ) -> Result<Advanced, Error> {
        let mut tries = 0;
        loop {
            let lease = self.lease(owner.to_owned());
            match self
                .step(payment, &lease, report.as_ref(), pauses, false)
                .await
            {
                Err(error) if tries < RECORD_TRIES_MAX && is_passing(&error) => {
                    tries += 1;
                    tokio::time::sleep(RECORD_PAUSE * tries).await;
                }
                done => return done,
            }
        }
    }

    async fn step(
        &self,
        id: PaymentId,
        lease: &LeaseWish,
        report: Option<&Report>,
        pauses: u32,
        take: bool,
    ) -> Result<Advanced, Error> {
        let pause_us = self.inner.config.pause_us_max();
        let mut counted = (String::new(), Vec::new());
        let mut decide = |payment: &mut Payment, holds_lease: bool| {
            self.redirect(payment, None);
            let mut decision =
                self.decide(payment, lease.now_us, holds_lease, |payment, turn| {
                    if let Some(report) = report {
                        payment.record(turn, report.clone());
                    }
                    Ok(None)
                })?;
            let effects = &mut decision.effects;
            let facts = effects.facts.iter();
            counted.1 = facts.filter_map(|(_, fact)| Counted::of(fact)).collect();
            if !counted.1.is_empty() {
                counted.0.clone_from(&payment.order.provider);
            }
            effects
                .audit
                .extend(by_itself(payment, effects, lease.now_us));
            decision.pause = pauses > 0
                && matches!(decision.next, Next::Later(due) if due <= lease.now_us + pause_us);
            Ok(decision)
        };
        let advanced = if take {
            self.inner.store.take(id, lease, &mut decide).await?
        } else {
            self.inner.store.advance(id, lease, &mut decide).await?
        };
        if let (Some(metrics), false) = (&self.metrics, matches!(advanced, Advanced::Lost)) {
            metrics.count(&counted.0, &counted.1);
        }
        Ok(advanced)
    }

    async fn pause_until(&self, due_us: i64) {
        let pause_us = (due_us - self.now_us()).clamp(0, self.inner.config.pause_us_max());
        tokio::time::sleep(Duration::from_micros(pause_us.unsigned_abs())).await;
    }

    async fn ask(&self, provider: &dyn Provider, call: &MoneyCall) -> Report {
        let limit = self.inner.config.provider_timeout();
        let MoneyCall::Dispute(DisputeCall::SubmitEvidence {
            dispute,
            provider_ref,
            reference,
        }) = call
        else {
            return ask_provider(provider, call, limit).await;
        };
        match self.inner.store.evidence(*dispute).await {
            // Somebody else has carried it out meanwhile: what was sent is looked up, never sent empty.
            Ok(evidence) if evidence.texts.is_empty() && evidence.files.is_empty() => {
                Report::Response(*dispute, ResponseAnswer::Unavailable)
            }
            Ok(evidence) => {
                let request = SubmitEvidence {
                    reference: reference.clone(),
                    dispute_ref: provider_ref.clone(),
                    evidence,
                };
                submit_evidence(provider, *dispute, &request, limit).await
            }
            Err(error) => {
                warn!(dispute.id = %dispute, %error, "evidence waits");
                Report::Response(*dispute, ResponseAnswer::Unavailable)
            }
        }
    }

    async fn perform(&self, payment: PaymentId, call: &Call) -> Report {
        debug!(payment.id = %payment, call = call.name(), "saga step");
        match call {
            Call::Stock(call) => {
                ask_catalogue(&*self.inner.catalogue, payment, call, self.now_us()).await
            }
            Call::Money(name, call) => {
                if let Some(provider) = self.inner.providers.get(name) {
                    self.inner.fault_points.pass(BEFORE_PROVIDER_CALL);
                    let report = self.ask(&**provider, call).await;
                    self.inner.fault_points.pass(AFTER_PROVIDER_CALL);
                    report
                } else {
                    error!(payment.id = %payment, provider = name, "provider not configured");
                    not_configured(call)
                }
            }
        }
    }
}

/// Whether the same step can be recorded a moment later. Where the books were closed in between, it is dated anew then.
fn is_passing(error: &Error) -> bool {
    match error {
        Error::Database(error) => mesh_store::retry(error) != mesh_store::Retry::Never,
        Error::PeriodClosed => true,
        _ => false,
    }
}

/// What the service does by itself is recorded where it moves the state, the books or a dispute; all else is on its way
/// there.
fn by_itself(payment: &Payment, effects: &Effects, now_us: i64) -> Option<Record> {
    let disputes = effects
        .facts
        .iter()
        .any(|(_, fact)| of_dispute(fact).is_some());
    if effects.moves.is_empty() && effects.entries.is_empty() && !disputes {
        return None;
    }
    let outcome = audit_outcome(payment, effects, None);
    let id = payment.id.to_string();
    Some(Record::new(
        audit::SERVICE,
        audit::SAGA,
        id,
        outcome,
        now_us,
    ))
}

/// What came of a change, for its record: the state, what was begun, what was booked, how disputes stand.
pub(crate) fn audit_outcome(payment: &Payment, effects: &Effects, begun: Option<Begun>) -> String {
    let begun = begun.map(|begun| format!("began {begun}"));
    let booked = effects.entries.iter();
    let booked = booked.map(|entry| match entry.source() {
        source @ (Source::RefundReversal(_) | Source::DisputeReversal(_)) => {
            format!("reversed {source}")
        }
        source => format!("booked {source}"),
    });
    let disputes = effects
        .facts
        .iter()
        .filter_map(|(_, fact)| of_dispute(fact));
    let disputes = disputes.map(|dispute| {
        let (state, response) = (dispute.state.name(), dispute.response.name());
        format!("{} is {state}, response {response}", dispute.id)
    });
    let state = payment.state.name().to_owned();
    let words = [state].into_iter().chain(begun).chain(booked);
    words.chain(disputes).collect::<Vec<String>>().join(", ")
}

fn of_dispute(fact: &Fact) -> Option<&Dispute> {
    match fact {
        Fact::DisputeOpened(of) | Fact::DisputeUpdated(of) | Fact::DisputeClosed(of) => Some(of),
        _ => None,
    }
}
