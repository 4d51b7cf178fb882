//! Carries reconciliations out: one page after the other, under a lease, each page recorded before the next is read.
//!
//! A run may end at any point: whoever takes the lease next goes on with the page that was not recorded. What is pending
//! here and done there is asked about by the saga, which alone writes states. Deliberately missing: whole lists; no more
//! than a page of either side is in memory.

mod metrics;

pub use metrics::Metrics;

use crate::audit::{self, Record};
use crate::commands::{Commands, Request};
use crate::config::ReconcileConfig;
use crate::error::Error;
use crate::ledger::Transaction;
use crate::provider::{Provider, ProviderError, SettlementKind, SettlementLine};
use crate::reconcile::{Case, Discrepancy, Finding, Kind, Phase, Run, RunState, compare, stranger};
use crate::store::Viewer;
use crate::store::reconcile::{Booking, Outcome, PageQuery, Reconciliations, RunLease, Touched};
use crate::wire::method;
use kernel::{Money, PaymentId, SettlementId};
use mesh::{CallContext, Principal};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Who acts where the schedule asked for a run.
const SCHEDULE: &str = "schedule";
/// How many open discrepancies are looked at between two records of a run: each may take several questions.
const OPEN_MAX: i64 = 20;
/// How often each replica shows what is open.
const SHOW_EVERY_US: i64 = 60_000_000;
/// What a run shows of an error that is none of the provider's; whoever reads runs is not told how it is stored.
const PAGE_FAILED: &str = "a page could not be compared; the log says why";

/// Carries reconciliations out, as often as it is told and whenever it is asked. Cheap to clone.
#[derive(Clone)]
pub struct Reconciler {
    store: Arc<dyn Reconciliations>,
    commands: Commands,
    config: ReconcileConfig,
    metrics: Metrics,
}

impl Reconciler {
    /// Over these parts; the providers, the clock and the saga are those of the commands.
    pub fn new(
        store: Arc<dyn Reconciliations>,
        commands: Commands,
        config: ReconcileConfig,
        metrics: Metrics,
    ) -> Self {
        Self {
            store,
            commands,
            config,
            metrics,
        }
    }

    /// Works until `shutdown`; a page under way is recorded first.
    pub async fn run(&self, shutdown: CancellationToken) {
        let started_us = self.now_us();
        let mut shown_us = i64::MIN;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(self.config.poll()) => {}
            }
            let worked = async {
                // What others find and resolve too, or a replica that has no more runs shows for ever what it last saw.
                if self.now_us().saturating_sub(shown_us) >= SHOW_EVERY_US {
                    self.show().await?;
                    shown_us = self.now_us();
                }
                self.schedule(started_us).await?;
                self.work(&shutdown).await
            };
            let context = CallContext::root(Principal::anonymous());
            if let Err(error) = context.scope(worked).await {
                warn!(%error, "reconciliation waits");
            }
        }
    }

    /// Carries out what is asked for now; says how many runs it worked on.
    pub async fn run_once(&self) -> Result<usize, Error> {
        let context = CallContext::root(Principal::anonymous());
        context.scope(self.work(&CancellationToken::new())).await
    }

    /// Asks for what is due, counted from when the process started where there was none yet; says how many runs.
    pub async fn schedule(&self, started_us: i64) -> Result<usize, Error> {
        let every_us = self.config.every_us();
        if every_us == 0 {
            return Ok(0);
        }
        let now_us = self.now_us();
        let mut asked = 0;
        for provider in self.commands.saga().providers().keys() {
            let last_us = self.store.last_requested(provider).await?;
            if last_us.unwrap_or(started_us) > now_us - every_us {
                continue;
            }
            let run = Run::new(provider, SCHEDULE, now_us);
            let record = Record::new(
                audit::SERVICE,
                SCHEDULE,
                run.id.to_string(),
                requested(&run),
                now_us,
            );
            asked += usize::from(
                self.store
                    .schedule(&run, &record, now_us - every_us)
                    .await?,
            );
        }
        Ok(asked)
    }

    async fn work(&self, shutdown: &CancellationToken) -> Result<usize, Error> {
        let mut runs = 0;
        while !shutdown.is_cancelled() {
            let owner = kernel::id::uuid_at(self.now_us()).to_string();
            let lease = self.lease(owner, self.config.lease_us());
            let Some(run) = self.store.take(&lease).await? else {
                break;
            };
            runs += 1;
            self.carry_out(run, &lease.owner, shutdown).await?;
        }
        if runs > 0 {
            self.show().await?;
        }
        Ok(runs)
    }

    /// One run, page after page, until it has ended, waits, or is somebody else's.
    async fn carry_out(
        &self,
        mut run: Run,
        owner: &str,
        shutdown: &CancellationToken,
    ) -> Result<(), Error> {
        let Some(provider) = self.commands.saga().providers().get(&run.provider).cloned() else {
            let reason = format!("provider \"{}\" is not configured here", run.provider);
            run.fail(reason, 1, true, self.now_us());
            return self.end(run, owner).await;
        };
        let last_until_us = self.store.compared_until(&run.provider).await?;
        let lag_us = provider.capabilities().look_up_lag_us;
        let grace_us = self.config.grace_us().max(lag_us);
        run.begin(
            last_until_us,
            self.config.overlap_us(),
            grace_us,
            self.now_us(),
        );
        while !shutdown.is_cancelled() {
            let page = self.page(&*provider, &mut run).await;
            let (reason, for_good) = match page {
                Ok(Ok((outcome, next))) => {
                    if self.turn(&mut run, &outcome, next, owner).await? {
                        continue;
                    }
                    return Ok(());
                }
                Ok(Err(error)) => {
                    let for_good = matches!(error, ProviderError::Refused { .. });
                    (error.to_string(), for_good)
                }
                Err(error) => {
                    warn!(reconciliation.id = %run.id, %error, "a page of a reconciliation");
                    (PAGE_FAILED.to_owned(), false)
                }
            };
            run.fail(reason, self.config.tries_max, for_good, self.now_us());
            return self.end(run, owner).await;
        }
        let lease = self.lease(owner.to_owned(), 0); // Whoever comes next need not wait.
        self.store
            .record(&mut run, &Outcome::default(), &lease, false)
            .await
            .map(drop)
    }

    /// Keeps what a page came to; says whether there is another.
    async fn turn(
        &self,
        run: &mut Run,
        outcome: &Outcome,
        next: Option<String>,
        owner: &str,
    ) -> Result<bool, Error> {
        run.advance(next, self.now_us());
        let ended = run.finished_at_us.is_some();
        if ended {
            self.told(run);
        }
        let lease = self.lease(owner.to_owned(), self.config.lease_us());
        let kept = self.store.record(run, outcome, &lease, !ended).await?;
        Ok(kept && !ended)
    }

    /// Gives a run back that has failed, or is to be tried again later.
    async fn end(&self, mut run: Run, owner: &str) -> Result<(), Error> {
        self.told(&run);
        let lease = self.lease(owner.to_owned(), self.config.retry_us());
        self.store
            .record(&mut run, &Outcome::default(), &lease, false)
            .await
            .map(drop)
    }

    fn told(&self, run: &Run) {
        let outcome = match run.state {
            RunState::Succeeded => "succeeded",
            RunState::Failed => "failed",
            RunState::Requested | RunState::Running => "waits",
        };
        let (id, provider) = (run.id, run.provider.as_str());
        self.metrics
            .runs
            .with_label_values(&[provider, outcome])
            .inc();
        if run.error.is_empty() {
            info!(reconciliation.id = %id, provider, outcome, "reconciliation");
        } else {
            warn!(reconciliation.id = %id, provider, outcome, error = run.error, "reconciliation");
        }
    }

    /// The next page of what a run is at: what came of it, and where the one after it begins.
    async fn page(
        &self,
        provider: &dyn Provider,
        run: &mut Run,
    ) -> Result<Result<(Outcome, Option<String>), ProviderError>, Error> {
        Ok(match run.phase {
            Phase::Transactions => match self
                .ask(provider.transactions(Some(&place(provider, run))))
                .await
            {
                Ok(page) => {
                    run.lines += i64::try_from(page.transactions.len()).unwrap_or(i64::MAX);
                    self.store.keep(&run.provider, &page.transactions).await?;
                    Ok((Outcome::default(), page.next))
                }
                Err(error) => Err(error),
            },
            Phase::Lines => Ok(self.lines(run).await?),
            Phase::Entries => Ok(self.entries(run).await?),
            Phase::Settlements => match self
                .ask(provider.settlements(Some(&place(provider, run))))
                .await
            {
                Ok(page) => {
                    let findings = self.settle(run, page.lines).await?;
                    Ok((found(findings), page.next))
                }
                Err(error) => Err(error),
            },
            Phase::Open => Ok(self.open(run).await?),
        })
    }

    /// What a provider that does not answer in time has answered: nothing.
    async fn ask<T>(
        &self,
        call: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        let limit = self.config.timeout();
        let late = |_| ProviderError::Unavailable(format!("no answer within {limit:?}"));
        tokio::time::timeout(limit, call).await.map_err(late)?
    }

    /// What the provider has listed, compared payment by payment.
    async fn lines(&self, run: &Run) -> Result<(Outcome, Option<String>), Error> {
        let page = self.store.lines(&self.query(run)).await?;
        let findings = touched(&page.touched, run.until_us);
        Ok((found(findings), page.last.map(next_after)))
    }

    /// Our entries that the provider may not have.
    async fn entries(&self, run: &Run) -> Result<(Outcome, Option<String>), Error> {
        let page = self.store.entries(&self.query(run)).await?;
        let cases = self.store.cases(&run.provider, &page.payments).await?;
        let findings = compared(&cases, run.until_us);
        Ok((found(findings), page.last.map(next_after)))
    }

    /// The next page of what a run is at, here.
    fn query(&self, run: &Run) -> PageQuery {
        PageQuery {
            provider: run.provider.clone(),
            since_us: run.since_us,
            until_us: run.until_us,
            after: parse_after(&run.place),
            limit: i64::from(self.config.page_max),
        }
    }

    /// Books what was not booked yet; what was booked with another amount is a discrepancy.
    async fn settle(
        &self,
        run: &mut Run,
        lines: Vec<SettlementLine>,
    ) -> Result<Vec<Finding>, Error> {
        let now_us = self.now_us();
        let mut bookings = Vec::with_capacity(lines.len());
        for line in lines {
            let id = SettlementId::generate(now_us);
            let entry = match line.kind {
                SettlementKind::Fee => {
                    Transaction::of_fee(None, id, &run.provider, line.amount, now_us)
                }
                SettlementKind::Payout => {
                    Transaction::of_payout(id, &run.provider, line.amount, now_us)
                }
            };
            match entry {
                Ok(entry) => bookings.push(Booking { id, line, entry }),
                Err(error) => warn!(line.id, %error, "a line of a settlement is left out"),
            }
        }
        let outcome = format!("fees and payouts of {} booked", run.provider);
        let record = Record::new(
            audit::SERVICE,
            SCHEDULE,
            run.id.to_string(),
            outcome,
            now_us,
        );
        let (booked, earlier) = self.store.book(&run.provider, &bookings, &record).await?;
        run.booked += booked;
        let differs = |earlier: SettlementLine| {
            let same = |booking: &&Booking| {
                booking.line.id == earlier.id && booking.line.kind == earlier.kind
            };
            let line = &bookings.iter().find(same)?.line;
            Some(settled_otherwise(&earlier, line))
        };
        Ok(earlier.into_iter().filter_map(differs).collect())
    }

    /// Looks again at what is open: asks through the saga what that can put right, and closes what is gone.
    async fn open(&self, run: &Run) -> Result<(Outcome, Option<String>), Error> {
        let open = self.store.open(&run.provider, &run.place, OPEN_MAX).await?;
        let next = open.last().map(|last| last.id.to_string());
        let payments: BTreeSet<PaymentId> =
            open.iter().filter_map(|one| one.finding.payment).collect();
        let safe = open.iter().filter(|one| one.finding.safe);
        let safe: BTreeSet<PaymentId> = safe.filter_map(|one| one.finding.payment).collect();
        for payment in safe {
            self.look_up(payment).await?;
        }
        let payments: Vec<PaymentId> = payments.into_iter().collect();
        let cases = self.store.cases(&run.provider, &payments).await?;
        let mut findings = compared(&cases, run.until_us);
        let unknown: Vec<String> = open
            .iter()
            .filter(|one| one.finding.payment.is_none())
            .map(|one| one.finding.provider_id.clone())
            .collect();
        let again = self.store.look_again(&run.provider, &unknown).await?;
        findings.extend(touched(&again, run.until_us));
        let gone = gone(&open, &findings);
        Ok((Outcome { findings, gone }, next))
    }

    /// Asks the provider what became of everything of a payment, as an operator can.
    async fn look_up(&self, payment: PaymentId) -> Result<(), Error> {
        let request = Request {
            viewer: Viewer::Operator,
            principal: audit::SERVICE.to_owned(),
            method: method::LOOK_UP_PAYMENT,
            request_id: String::new(),
            fingerprint: [0; 32],
        };
        self.commands.look_up(request, payment).await.map(drop)
    }

    fn lease(&self, owner: String, lasts_us: i64) -> RunLease {
        RunLease {
            owner,
            now_us: self.now_us(),
            lasts_us,
        }
    }

    fn now_us(&self) -> i64 {
        self.commands.saga().now_us()
    }
}

/// What came of asking for a run, for its record.
pub(crate) fn requested(run: &Run) -> String {
    format!("reconciliation with {} requested", run.provider)
}

fn place(provider: &dyn Provider, run: &Run) -> String {
    if run.place.is_empty() {
        provider.since(run.since_us)
    } else {
        run.place.clone()
    }
}

/// What differs on a page.
fn found(findings: Vec<Finding>) -> Outcome {
    Outcome {
        findings,
        gone: Vec::new(),
    }
}

/// What differs in the payments that lines belong to, and the lines that belong to none.
fn touched(touched: &Touched, until_us: i64) -> Vec<Finding> {
    let mut findings = compared(&touched.cases, until_us);
    let strangers = touched.strangers.iter();
    findings.extend(strangers.filter_map(|line| stranger(line, until_us)));
    findings
}

fn next_after((at_us, id): (i64, String)) -> String {
    format!("{at_us} {id}")
}

fn parse_after(place: &str) -> Option<(i64, String)> {
    let (at_us, id) = place.split_once(' ')?;
    Some((at_us.parse().ok()?, id.to_owned()))
}

fn compared(cases: &[Case], until_us: i64) -> Vec<Finding> {
    cases
        .iter()
        .flat_map(|case| compare(case, until_us))
        .collect()
}

/// Those that are found no more. A fee or payout that was booked otherwise stays booked so, and open.
fn gone(open: &[Discrepancy], findings: &[Finding]) -> Vec<kernel::DiscrepancyId> {
    let found: BTreeSet<(Kind, &str)> = findings
        .iter()
        .map(|finding| (finding.kind, finding.subject.as_str()))
        .collect();
    let stays = |one: &&Discrepancy| {
        let finding = &one.finding;
        found.contains(&(finding.kind, finding.subject.as_str())) || is_settlement(finding)
    };
    open.iter()
        .filter(|one| !stays(one))
        .map(|one| one.id)
        .collect()
}

fn is_settlement(finding: &Finding) -> bool {
    let kinds = [SettlementKind::Fee, SettlementKind::Payout];
    kinds
        .iter()
        .any(|kind| finding.subject == settlement_subject(*kind, &finding.provider_id))
}

/// Apart from the subjects of transactions, whose ids may be the same.
fn settlement_subject(kind: SettlementKind, id: &str) -> String {
    format!("{} {id}", kind.name())
}

fn settled_otherwise(earlier: &SettlementLine, line: &SettlementLine) -> Finding {
    let same: fn(Money, Money) -> bool = |one, other| one.currency() == other.currency();
    Finding {
        kind: if same(earlier.amount, line.amount) {
            Kind::Amount
        } else {
            Kind::Currency
        },
        subject: settlement_subject(line.kind, &line.id),
        payment: None,
        our_reference: line.reference.clone(),
        provider_id: line.id.clone(),
        ours: Some(earlier.amount),
        theirs: Some(line.amount),
        booked_at_us: line.booked_at_us,
        safe: false,
    }
}
