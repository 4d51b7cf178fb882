//! The storage in PostgreSQL, shared by any number of replicas.
//!
//! A write is two round trips and takes no lock in between: one statement loads the payment with all its
//! parts, the domain decides, one statement ([`write`]) writes everything if the payment is still as it was
//! loaded, and nothing otherwise; then it is loaded and decided again. A run goes on from what it wrote itself
//! ([`recent`]): one round trip for each of its steps. New payments that come at the same time are
//! one statement ([`create`]).
//!
//! Leases run by the clock of the database, which all replicas share: how long a wish lasts is taken from
//! it, when it began is not.
//!
//! The log of changes is numbered by the transactions themselves (1024 numbers each), and readers stop
//! below the oldest one that is still running. So they see a prefix that never grows in the middle, in an
//! order in which each payment's changes follow each other; and nobody draws from a sequence that commits out
//! of order, takes a lock, or copies rows to give them numbers. The price: a long transaction anywhere on the
//! server keeps watchers waiting for as long as it runs, and numbers have gaps. They survive a fail-over and
//! an upgrade in place; in a cluster restored from a dump they begin anew, and watchers have to as well.

mod audit;
mod books;
mod cases;
mod create;
mod disputes;
mod keyed;
mod lists;
mod providers;
mod recent;
mod reconcile;
mod rows;
mod write;

use super::outcome::{self, decided, opened};
use super::{
    Advanced, Begun, Change, Decide, Decision, DisputesQuery, LeaseWish, LedgerAccount,
    LedgerEntry, ListedDispute, Make, Opened, PaymentsQuery, Recorded, Retention, Revisions, Store,
    Viewer, Work,
};
use crate::config::SharedConfig;
use crate::dispute::Evidence;
use crate::error::Error;
use crate::payment::Payment;
use crate::rejection::Rejection;
use crate::sales::{SalesQuery, SalesRow};
use async_trait::async_trait;
use create::New;
use kernel::{Currency, DisputeId, PaymentId, RefundId};
use mesh_store::Postgres;
use mesh_store::group::{Group, Limits};
use mesh_store::idempotency::{Claim, Key};
use mesh_store::postgres::{Schema, idempotency};
use recent::Recent;
use rows::Loaded;
use sqlx::PgConnection;
use sqlx::migrate::Migrator;
use std::fmt;
use std::sync::Arc;
use write::{Write, Written};

/// The tables of this service.
pub static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// How often a write is decided on again because another one came before it. Each time somebody got ahead.
const TRIES_MAX: u32 = 64;
/// How many changes one transaction can number: migration 2.
const CHANGES_MAX: usize = 1024;

/// The schema of this service for a role that may not alter the books.
pub fn schema(role: &str) -> Schema<'_> {
    Schema {
        migrations: &MIGRATIONS,
        role,
        append_only: &[
            "ledger_transactions",
            "ledger_postings",
            "payment_history",
            "audit_log",
            "settlement_lines",
            "ledger_periods",
        ],
    }
}

/// Payments in PostgreSQL.
#[derive(Clone)]
pub struct PostgresStore {
    postgres: Postgres,
    /// Ends with the last clone.
    new_payments: Arc<Group<New, create::Outcome>>,
    recent: Arc<Recent>,
}

/// What a change of a payment came to.
enum Changed {
    /// It is written.
    Done(Option<Begun>, Work),
    /// The key was claimed before.
    Known(Opened),
}

impl PostgresStore {
    /// Over a database that was connected to with [`MIGRATIONS`].
    pub fn new(postgres: Postgres, config: &SharedConfig) -> Self {
        let limits = Limits {
            lanes: config.lanes,
            queue_max: config.queue_max,
            batch_max: config.batch_max.min(CHANGES_MAX),
        };
        let new_payments = Arc::new(create::lanes(&postgres, limits));
        Self {
            postgres,
            new_payments,
            recent: Arc::default(),
        }
    }

    /// Loads, decides and writes until nobody comes between. `holds` says of what was loaded whether it is
    /// decided on with the lease; nothing: it is not decided on at all, and nothing is answered.
    async fn change(
        &self,
        connection: &mut PgConnection,
        id: PaymentId,
        key: Option<&Key>,
        lease: &LeaseWish,
        holds: impl Fn(&Loaded) -> Option<bool>,
        decide: Decide<'_>,
    ) -> Result<Option<Changed>, Error> {
        let mut guess = self.recent.take(id, &lease.owner);
        for _ in 0..TRIES_MAX {
            let before = match guess.take() {
                Some(before) => before,
                None => match rows::load(connection, id).await? {
                    Some(before) => before,
                    None => return Ok(None),
                },
            };
            let Some(holds_lease) = holds(&before) else {
                return Ok(None);
            };
            let (after, decision) = match decided(&before.payment, lease, holds_lease, &mut *decide)
            {
                Ok(decided) => decided,
                // What forbids it may be what the same call did the first time.
                Err(rejection) => match known(connection, key).await? {
                    Some(known) => return Ok(Some(Changed::Known(known))),
                    None => return Err(rejection.into()),
                },
            };
            let work = if holds_lease {
                outcome::work(&decision)
            } else {
                Work::Queued
            };
            let write = Write {
                key,
                after: &after,
                decision: &decision,
                work: &work,
                lease,
            };
            let committing = self.postgres.committing();
            match write.change(connection, &before).await? {
                Written::Yes => {
                    let events = !decision.effects.facts.is_empty();
                    committing.has_committed(events);
                    self.keep(&write, Some(&before));
                    return Ok(Some(Changed::Done(decision.begun, work)));
                }
                Written::Stale => {}
                Written::OverLimit => {
                    if let Some(known) = known(connection, key).await? {
                        return Ok(Some(Changed::Known(known)));
                    }
                    refuse_spending(connection, &decision, lease).await?; // Else there is room by now.
                }
                Written::KeyTaken | Written::OrderTaken => {
                    let known = known(connection, key).await?;
                    return Ok(Some(Changed::Known(known.ok_or(Error::Interrupted)?)));
                }
            }
        }
        Err(Error::Interrupted)
    }

    /// Where a run goes on from after a write of its own.
    fn keep(&self, write: &Write<'_>, before: Option<&Loaded>) {
        if let Work::Call(_) | Work::Pause(_) = write.work {
            self.recent.keep(write.loaded(before));
        }
    }

    /// One step of whoever may take it.
    async fn proceed(
        &self,
        payment: PaymentId,
        lease: &LeaseWish,
        may: impl Fn(&Loaded) -> bool,
        decide: Decide<'_>,
    ) -> Result<Advanced, Error> {
        let mut connection = self.postgres.pool().acquire().await?;
        let holds = |loaded: &Loaded| may(loaded).then_some(true);
        let changed = self.change(&mut connection, payment, None, lease, holds, decide);
        Ok(match changed.await? {
            Some(Changed::Done(_, Work::Call(call))) => Advanced::Call(call),
            Some(Changed::Done(_, Work::Pause(due_us))) => Advanced::Pause(due_us),
            Some(Changed::Done(_, Work::Done | Work::Queued)) => Advanced::Left,
            Some(Changed::Known(_)) | None => Advanced::Lost,
        })
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn find(&self, key: &Key) -> Result<Option<Claim>, Error> {
        let mut connection = self.postgres.reads().acquire().await?;
        Ok(idempotency::find(&mut connection, key).await?)
    }

    async fn create(
        &self,
        key: Option<&Key>,
        lease: &LeaseWish,
        make: Make<'_>,
    ) -> Result<Opened, Error> {
        let (payment, decision) = make()?;
        let work = outcome::work(&decision);
        let write = Write {
            key,
            after: &payment,
            decision: &decision,
            work: &work,
            lease,
        };
        if !decision.effects.spending.is_empty() {
            // Before it joins others, which would all be written one by one for its sake.
            let mut connection = self.postgres.pool().acquire().await?;
            refuse_spending(&mut connection, &decision, lease).await?;
        }
        for _ in 0..TRIES_MAX {
            let new = write.new_payment()?;
            match self.new_payments.join(new.id.uuid(), new).await?? {
                Written::Yes => {
                    self.keep(&write, None);
                    return Ok(Opened::Recorded(Recorded {
                        payment: payment.id,
                        begun: None,
                        answer: write.answer(),
                        work,
                    }));
                }
                Written::OrderTaken => {
                    // Where it was canceled meanwhile, the order_ref is free.
                    let mut connection = self.postgres.reads().acquire().await?;
                    if let Some(id) = lists::with_order(&mut connection, &payment.order).await? {
                        let order_ref = payment.order.order_ref.clone();
                        return Err(Rejection::OrderRefTaken { order_ref, id }.into());
                    }
                }
                Written::OverLimit => {
                    let mut connection = self.postgres.pool().acquire().await?;
                    if let Some(known) = known(&mut connection, key).await? {
                        return Ok(known);
                    }
                    refuse_spending(&mut connection, &decision, lease).await?;
                }
                Written::KeyTaken | Written::Stale => {
                    // Where it was swept meanwhile, the key is free.
                    let mut connection = self.postgres.reads().acquire().await?;
                    if let Some(known) = known(&mut connection, key).await? {
                        return Ok(known);
                    }
                }
            }
        }
        Err(Error::Interrupted)
    }

    async fn command(
        &self,
        key: Option<&Key>,
        payment: PaymentId,
        viewer: &Viewer,
        lease: &LeaseWish,
        decide: Decide<'_>,
    ) -> Result<Opened, Error> {
        let mut connection = self.postgres.pool().acquire().await?;
        let holds = |loaded: &Loaded| {
            let visible = viewer.sees(&loaded.payment.order.principal);
            visible.then(|| is_free(loaded, lease))
        };
        let changed = self.change(&mut connection, payment, key, lease, holds, decide);
        match changed.await? {
            None => Err(Error::PaymentNotFound(payment.to_string())),
            Some(Changed::Known(known)) => Ok(known),
            Some(Changed::Done(begun, work)) => Ok(Opened::Recorded(Recorded {
                payment,
                begun,
                work,
                answer: None,
            })),
        }
    }

    async fn take(
        &self,
        payment: PaymentId,
        lease: &LeaseWish,
        decide: Decide<'_>,
    ) -> Result<Advanced, Error> {
        let may = |loaded: &Loaded| is_free(loaded, lease);
        self.proceed(payment, lease, may, decide).await
    }

    async fn advance(
        &self,
        payment: PaymentId,
        lease: &LeaseWish,
        decide: Decide<'_>,
    ) -> Result<Advanced, Error> {
        // A lease that ran out and that nobody took is still ours.
        let may = |loaded: &Loaded| loaded.lease_owner.as_ref() == Some(&lease.owner);
        self.proceed(payment, lease, may, decide).await
    }

    async fn due(&self, now_us: i64, limit: u32) -> Result<Vec<PaymentId>, Error> {
        lists::due(self.postgres.reads(), now_us, limit).await
    }

    /// In a transaction, for the event is stored whether or not it concerns a payment.
    async fn webhook(
        &self,
        provider: &str,
        event_id: &str,
        reference: &str,
        lease: &LeaseWish,
        decide: Decide<'_>,
    ) -> Result<Option<Recorded>, Error> {
        let mut write = self.postgres.begin().await?;
        if !lists::note_webhook(&mut write, provider, event_id, reference, lease.now_us).await? {
            return Ok(None);
        }
        let Some(payment) = lists::payment_of(&mut write, reference).await? else {
            write.commit().await?;
            return Ok(None);
        };
        let holds = |loaded: &Loaded| {
            let ours = loaded.payment.order.provider == provider;
            ours.then(|| is_free(loaded, lease))
        };
        let changed = self.change(&mut write, payment, None, lease, holds, decide);
        let recorded = match changed.await? {
            Some(Changed::Done(begun, work)) => Some(Recorded {
                payment,
                begun,
                work,
                answer: None,
            }),
            Some(Changed::Known(_)) | None => None,
        };
        write.commit().await?;
        Ok(recorded)
    }

    async fn payment(&self, id: PaymentId) -> Result<Option<Payment>, Error> {
        let mut connection = self.postgres.reads().acquire().await?;
        let loaded = rows::load(&mut connection, id).await?;
        Ok(loaded.map(|loaded| loaded.payment))
    }

    async fn payment_of_refund(&self, id: RefundId) -> Result<Option<Payment>, Error> {
        let mut connection = self.postgres.reads().acquire().await?;
        match lists::payment_of(&mut connection, &id.to_string()).await? {
            Some(payment) => {
                let loaded = rows::load(&mut connection, payment).await?;
                Ok(loaded.map(|loaded| loaded.payment))
            }
            None => Ok(None),
        }
    }

    async fn payment_of_dispute(&self, id: DisputeId) -> Result<Option<Payment>, Error> {
        let mut connection = self.postgres.reads().acquire().await?;
        match lists::payment_of(&mut connection, &id.to_string()).await? {
            Some(payment) => {
                let loaded = rows::load(&mut connection, payment).await?;
                Ok(loaded.map(|loaded| loaded.payment))
            }
            None => Ok(None),
        }
    }

    async fn disputes(&self, query: &DisputesQuery) -> Result<Vec<ListedDispute>, Error> {
        disputes::page(self.postgres.reads(), query).await
    }

    async fn evidence(&self, id: DisputeId) -> Result<Evidence, Error> {
        disputes::evidence(self.postgres.reads(), id).await
    }

    async fn payments(&self, query: &PaymentsQuery) -> Result<Vec<Payment>, Error> {
        lists::payments(self.postgres.reads(), query).await
    }

    async fn sales(&self, query: &SalesQuery) -> Result<Vec<SalesRow>, Error> {
        lists::sales(self.postgres.reads(), query).await
    }

    async fn accounts(&self, currency: Option<Currency>) -> Result<Vec<LedgerAccount>, Error> {
        lists::accounts(self.postgres.reads(), currency).await
    }

    async fn entries(
        &self,
        payment: Option<PaymentId>,
        after: Option<(i64, String)>,
        limit: i64,
    ) -> Result<Vec<LedgerEntry>, Error> {
        lists::entries(self.postgres.reads(), payment, after, limit).await
    }

    async fn revisions(&self) -> Result<Revisions, Error> {
        lists::revisions(self.postgres.reads()).await
    }

    async fn changes(
        &self,
        viewer: &Viewer,
        after: i64,
        limit: i64,
    ) -> Result<(Vec<Change>, i64), Error> {
        lists::changes(self.postgres.reads(), viewer, after, limit).await
    }

    async fn sweep(&self, retention: Retention) -> Result<u64, Error> {
        let mut connection = self.postgres.pool().acquire().await?;
        let (before_us, rows_max) = (retention.answers_before_us, retention.rows_max);
        let answers = idempotency::sweep(&mut connection, before_us, rows_max).await?;
        Ok(answers + lists::sweep(&mut connection, retention).await?)
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}

/// Nobody holds the lease, or it ran out, or it is ours.
fn is_free(loaded: &Loaded, lease: &LeaseWish) -> bool {
    loaded.lease_ended || loaded.lease_owner.as_ref() == Some(&lease.owner)
}

/// An error where the caller's limits have no room for what is asked for.
async fn refuse_spending(
    connection: &mut PgConnection,
    decision: &Decision,
    lease: &LeaseWish,
) -> Result<(), Error> {
    let spending = &decision.effects.spending;
    match audit::refused(connection, spending, lease.now_us).await? {
        Some(refused) => Err(refused.into()),
        None => Ok(()),
    }
}

/// What is known about a key.
async fn known(connection: &mut PgConnection, key: Option<&Key>) -> Result<Option<Opened>, Error> {
    match key {
        Some(key) => Ok(idempotency::find(connection, key).await?.and_then(opened)),
        None => Ok(None),
    }
}
