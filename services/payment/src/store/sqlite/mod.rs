//! The storage in SQLite. One process writes; a transaction begins with the write lock, so what it
//! reads cannot change under it.

mod audit;
mod books;
mod cases;
mod disputes;
mod effects;
mod keyed;
mod lists;
mod providers;
mod reconcile;
mod rows;

use super::outcome::{self, decided, opened};
use super::{
    Advanced, Change, Decide, Decision, DisputesQuery, LeaseWish, LedgerAccount, LedgerEntry,
    ListedDispute, Make, Opened, PaymentsQuery, Recorded, Retention, Revisions, Store, Viewer,
    Work,
};
use crate::dispute::Evidence;
use crate::error::Error;
use crate::payment::Payment;
use crate::rejection::Rejection;
use crate::sales::{SalesQuery, SalesRow};
use crate::step::Next;
use async_trait::async_trait;
use kernel::{Currency, DisputeId, PaymentId, RefundId};
use mesh_store::idempotency::{Claim, Key};
use mesh_store::sqlite::idempotency;
use mesh_store::{Sqlite, Write};
use rows::Loaded;
use sqlx::SqliteConnection;
use sqlx::migrate::Migrator;

/// The tables of this service.
pub static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// Payments in a SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    sqlite: Sqlite,
}

impl SqliteStore {
    /// Over a database that was opened with [`MIGRATIONS`].
    pub fn new(sqlite: Sqlite) -> Self {
        Self { sqlite }
    }

    /// Ends every lease; for the start of the process. A SQLite file belongs to one process, so who
    /// held them is gone, and what they left half done need not wait. Should one live on after all,
    /// it finds its lease lost and records nothing more.
    pub async fn end_leases(&self) -> Result<u64, Error> {
        let mut write = self.sqlite.begin().await?;
        let ended = sqlx::query(
            "UPDATE payments SET lease_owner = NULL, lease_until_us = 0 \
             WHERE lease_owner IS NOT NULL",
        )
        .execute(&mut *write)
        .await?;
        write.commit().await?;
        Ok(ended.rows_affected())
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn find(&self, key: &Key) -> Result<Option<Claim>, Error> {
        let mut reader = self.sqlite.reader().acquire().await?;
        Ok(idempotency::find(&mut reader, key).await?)
    }

    async fn create(
        &self,
        key: Option<&Key>,
        lease: &LeaseWish,
        make: Make<'_>,
    ) -> Result<Opened, Error> {
        let mut write = self.sqlite.begin().await?;
        let (payment, decision) = make()?;
        let reference = payment.id.to_string();
        if let Some(known) = claim(&mut write, key, &reference, lease.now_us).await? {
            return Ok(known);
        }
        refuse_taken_order(&mut write, &payment).await?;
        rows::insert(&mut write, &payment).await?;
        if !rows::save(&mut write, &payment, &payment).await? {
            return Err(Error::Corrupt("version"));
        }
        for (number, attempt) in payment.attempts.iter().enumerate() {
            rows::save_attempt(&mut write, payment.id, number, attempt).await?;
        }
        effects::write(&mut write, None, &payment, &decision.effects, lease.now_us).await?;
        audit::spend(&mut write, &decision.effects.spending, lease.now_us).await?;
        audit::record(&mut write, &decision.effects.audit).await?;
        let work = settle(&mut write, &payment, &decision, lease).await?;
        write.commit().await?;
        Ok(Opened::Recorded(Recorded {
            payment: payment.id,
            begun: None,
            work,
            answer: None,
        }))
    }

    async fn command(
        &self,
        key: Option<&Key>,
        payment: PaymentId,
        viewer: &Viewer,
        lease: &LeaseWish,
        decide: Decide<'_>,
    ) -> Result<Opened, Error> {
        let mut write = self.sqlite.begin().await?;
        if let Some(key) = key
            && let Some(Some(known)) = idempotency::find(&mut write, key).await?.map(opened)
        {
            return Ok(known);
        }
        let loaded = rows::load(&mut write, payment).await?;
        let loaded = loaded.filter(|loaded| viewer.sees(&loaded.payment.order.principal));
        let loaded = loaded.ok_or_else(|| Error::PaymentNotFound(payment.to_string()))?;
        let free = is_free(&loaded, lease);
        let (after, decision) = change(&mut write, &loaded.payment, lease, free, decide).await?;
        let reference = decision
            .begun
            .map_or_else(|| payment.to_string(), |begun| begun.to_string());
        if let Some(known) = claim(&mut write, key, &reference, lease.now_us).await? {
            return Ok(known);
        }
        let work = if free {
            settle(&mut write, &after, &decision, lease).await?
        } else {
            Work::Queued
        };
        write.commit().await?;
        Ok(Opened::Recorded(Recorded {
            payment,
            begun: decision.begun,
            work,
            answer: None,
        }))
    }

    async fn take(
        &self,
        payment: PaymentId,
        lease: &LeaseWish,
        decide: Decide<'_>,
    ) -> Result<Advanced, Error> {
        let mut write = self.sqlite.begin().await?;
        match rows::load(&mut write, payment).await? {
            Some(loaded) if is_free(&loaded, lease) => {
                proceed(write, &loaded.payment, lease, decide).await
            }
            Some(_) | None => Ok(Advanced::Lost),
        }
    }

    async fn advance(
        &self,
        payment: PaymentId,
        lease: &LeaseWish,
        decide: Decide<'_>,
    ) -> Result<Advanced, Error> {
        let mut write = self.sqlite.begin().await?;
        match rows::load(&mut write, payment).await? {
            // A lease that ran out and that nobody took is still ours.
            Some(loaded) if loaded.lease_owner.as_ref() == Some(&lease.owner) => {
                proceed(write, &loaded.payment, lease, decide).await
            }
            Some(_) | None => Ok(Advanced::Lost),
        }
    }

    async fn due(&self, now_us: i64, limit: u32) -> Result<Vec<PaymentId>, Error> {
        lists::due(self.sqlite.reader(), now_us, limit).await
    }

    async fn webhook(
        &self,
        provider: &str,
        event_id: &str,
        reference: &str,
        lease: &LeaseWish,
        decide: Decide<'_>,
    ) -> Result<Option<Recorded>, Error> {
        let mut write = self.sqlite.begin().await?;
        let noted = sqlx::query(
            "INSERT INTO webhook_events (provider, event_id, reference, received_at_us) \
             VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(provider)
        .bind(event_id)
        .bind(reference)
        .bind(lease.now_us)
        .execute(&mut *write)
        .await?;
        if noted.rows_affected() == 0 {
            return Ok(None);
        }
        let loaded = match lists::payment_of(&mut write, reference).await? {
            Some(payment) => rows::load(&mut write, payment).await?,
            None => None,
        };
        let Some(loaded) = loaded.filter(|loaded| loaded.payment.order.provider == provider) else {
            write.commit().await?;
            return Ok(None);
        };
        let free = is_free(&loaded, lease);
        let (after, decision) = change(&mut write, &loaded.payment, lease, free, decide).await?;
        let work = if free {
            settle(&mut write, &after, &decision, lease).await?
        } else {
            Work::Queued
        };
        write.commit().await?;
        Ok(Some(Recorded {
            payment: after.id,
            begun: None,
            work,
            answer: None,
        }))
    }

    async fn payment(&self, id: PaymentId) -> Result<Option<Payment>, Error> {
        let mut read = self.sqlite.reader().begin().await?; // One state of all its rows.
        Ok(rows::load(&mut read, id)
            .await?
            .map(|loaded| loaded.payment))
    }

    async fn payment_of_refund(&self, id: RefundId) -> Result<Option<Payment>, Error> {
        let mut read = self.sqlite.reader().begin().await?;
        match lists::payment_of(&mut read, &id.to_string()).await? {
            Some(payment) => Ok(rows::load(&mut read, payment)
                .await?
                .map(|found| found.payment)),
            None => Ok(None),
        }
    }

    async fn payment_of_dispute(&self, id: DisputeId) -> Result<Option<Payment>, Error> {
        let mut read = self.sqlite.reader().begin().await?;
        match lists::payment_of(&mut read, &id.to_string()).await? {
            Some(payment) => Ok(rows::load(&mut read, payment)
                .await?
                .map(|found| found.payment)),
            None => Ok(None),
        }
    }

    async fn disputes(&self, query: &DisputesQuery) -> Result<Vec<ListedDispute>, Error> {
        disputes::page(self.sqlite.reader(), query).await
    }

    async fn evidence(&self, id: DisputeId) -> Result<Evidence, Error> {
        disputes::evidence(self.sqlite.reader(), id).await
    }

    async fn payments(&self, query: &PaymentsQuery) -> Result<Vec<Payment>, Error> {
        let mut read = self.sqlite.reader().begin().await?;
        let mut payments = lists::payments(&mut read, query).await?;
        rows::load_parts(&mut read, &mut payments).await?;
        Ok(payments)
    }

    async fn sales(&self, query: &SalesQuery) -> Result<Vec<SalesRow>, Error> {
        lists::sales(self.sqlite.reader(), query).await
    }

    async fn accounts(&self, currency: Option<Currency>) -> Result<Vec<LedgerAccount>, Error> {
        lists::accounts(self.sqlite.reader(), currency).await
    }

    async fn entries(
        &self,
        payment: Option<PaymentId>,
        after: Option<(i64, String)>,
        limit: i64,
    ) -> Result<Vec<LedgerEntry>, Error> {
        lists::entries(self.sqlite.reader(), payment, after, limit).await
    }

    async fn revisions(&self) -> Result<Revisions, Error> {
        lists::revisions(self.sqlite.reader()).await
    }

    async fn changes(
        &self,
        viewer: &Viewer,
        after: i64,
        limit: i64,
    ) -> Result<(Vec<Change>, i64), Error> {
        lists::changes(self.sqlite.reader(), viewer, after, limit).await
    }

    async fn sweep(&self, retention: Retention) -> Result<u64, Error> {
        let mut write = self.sqlite.begin().await?;
        let answers =
            idempotency::sweep(&mut write, retention.answers_before_us, retention.rows_max).await?;
        let others = lists::sweep(&mut write, retention).await?;
        write.commit().await?;
        Ok(answers + others)
    }
}

/// Nobody holds the lease, or it ran out, or it is ours.
fn is_free(loaded: &Loaded, lease: &LeaseWish) -> bool {
    loaded.lease_until_us <= lease.now_us || loaded.lease_owner.as_ref() == Some(&lease.owner)
}

async fn claim(
    connection: &mut SqliteConnection,
    key: Option<&Key>,
    reference: &str,
    now_us: i64,
) -> Result<Option<Opened>, Error> {
    match key {
        Some(key) => Ok(opened(
            idempotency::claim(connection, key, reference, now_us).await?,
        )),
        None => Ok(None),
    }
}

async fn refuse_taken_order(
    connection: &mut SqliteConnection,
    payment: &Payment,
) -> Result<(), Error> {
    let order = &payment.order;
    let taken: Option<String> = sqlx::query_scalar(
        "SELECT id FROM payments WHERE principal = ? AND order_ref = ? AND state <> 'CANCELED'",
    )
    .bind(&order.principal)
    .bind(&order.order_ref)
    .fetch_optional(connection)
    .await?;
    match taken {
        None => Ok(()),
        Some(id) => Err(Rejection::OrderRefTaken {
            order_ref: order.order_ref.clone(),
            id: PaymentId::parse(&id).map_err(|_| Error::Corrupt("id"))?,
        }
        .into()),
    }
}

/// Decides on a payment and writes the difference.
async fn change(
    connection: &mut SqliteConnection,
    before: &Payment,
    lease: &LeaseWish,
    holds_lease: bool,
    decide: Decide<'_>,
) -> Result<(Payment, Decision), Error> {
    let (after, decision) = decided(before, lease, holds_lease, decide)?;
    audit::spend(connection, &decision.effects.spending, lease.now_us).await?;
    audit::record(connection, &decision.effects.audit).await?; // Also of what changed nothing that is stored.
    disputes::keep(connection, &decision.effects.evidence).await?;
    if after == *before {
        return Ok((after, decision));
    }
    if !rows::save(connection, before, &after).await? {
        return Err(Error::Interrupted);
    }
    effects::write(
        connection,
        Some(before),
        &after,
        &decision.effects,
        lease.now_us,
    )
    .await?;
    Ok((after, decision))
}

/// Takes the lease where something is to be called, else gives it back and answers open commands.
async fn settle(
    connection: &mut SqliteConnection,
    payment: &Payment,
    decision: &Decision,
    lease: &LeaseWish,
) -> Result<Work, Error> {
    let work = outcome::work(decision);
    let due_at_us = match &decision.next {
        Next::Call(_) => Some(lease.now_us),
        Next::Later(due_us) => Some(*due_us),
        Next::Nothing => None,
    };
    let (owner, until_us) = match &work {
        Work::Call(_) | Work::Pause(_) => (Some(lease.owner.as_str()), lease.until_us),
        Work::Done | Work::Queued => (None, 0),
    };
    sqlx::query(
        "UPDATE payments SET lease_owner = ?, lease_until_us = ?, due_at_us = ? WHERE id = ?",
    )
    .bind(owner)
    .bind(until_us)
    .bind(due_at_us)
    .bind(payment.id.to_string())
    .execute(&mut *connection)
    .await?;
    if owner.is_none() {
        effects::answer_open(connection, payment, lease.now_us).await?;
    }
    Ok(work)
}

/// One step of the holder of the lease.
async fn proceed(
    mut write: Write,
    payment: &Payment,
    lease: &LeaseWish,
    decide: Decide<'_>,
) -> Result<Advanced, Error> {
    let (after, decision) = change(&mut write, payment, lease, true, decide).await?;
    let work = settle(&mut write, &after, &decision, lease).await?;
    write.commit().await?;
    Ok(match work {
        Work::Call(call) => Advanced::Call(call),
        Work::Pause(due_us) => Advanced::Pause(due_us),
        Work::Done | Work::Queued => Advanced::Left,
    })
}
