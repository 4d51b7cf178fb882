//! What reconciliation needs, in PostgreSQL. Leases run by the clock of the database.

use super::super::reconcile::rows::{
    self, COMPARED_UNTIL, DISCREPANCIES, DISCREPANCY, DiscrepancyRow, FIND, FOUND_BEFORE, GONE,
    LAST_REQUESTED, LineRow, OPEN, OPEN_COUNTS, OPEN_RUN, REQUEST, RESOLVE, RUN, RUNS, RunRow,
    SCHEDULE, SettlementRow,
};
use super::super::reconcile::{
    Answering, Booking, DiscrepanciesQuery, EntriesPage, LinesPage, OpenCount, Outcome, PageQuery,
    Reconciliations, Resolution, RunLease, RunsQuery, Touched,
};
use super::cases::{cases, payment_id, payments_of, touched};
use super::keyed::{claimed, complete, fresh};
use super::{PostgresStore, audit, write};
use crate::audit::Record;
use crate::commands::Answer;
use crate::error::Error;
use crate::provider::SettlementLine;
use crate::reconcile::{Case, Discrepancy, Finding, Kind, Line, Phase, Run, Status};
use async_trait::async_trait;
use kernel::{DiscrepancyId, PaymentId, ReconciliationId, TransactionId};
use mesh_store::idempotency::Key;
use serde_json::{Value, json};
use sqlx::PgConnection;
use sqlx::types::Uuid;

const PROGRESS: &str = "UPDATE reconciliations SET state = $2, phase = $3, place = $4, \
    since_us = $5, until_us = $6, started_at_us = $7, finished_at_us = $8, lines = $9, found = $10, resolved = $11, \
    booked = $12, tries = $13, error = $14, lease_owner = $15, lease_until_us = mesh_now_us() + $16 \
    WHERE id = $1 AND lease_owner = $17";

#[async_trait]
impl Reconciliations for PostgresStore {
    async fn request(
        &self,
        key: Option<&Key>,
        new: &Run,
        record: &Record,
        answer: Answering<'_, Run>,
    ) -> Result<Answer, Error> {
        let mut write = self.postgres.begin().await?;
        if let Some(known) =
            claimed(&mut write, key, &new.id.to_string(), new.requested_at_us).await?
        {
            return Ok(known);
        }
        let asked = sqlx::query(REQUEST)
            .bind(new.id.to_string())
            .bind(&new.provider)
            .bind(Phase::Transactions.name())
            .bind(&new.requested_by)
            .bind(new.requested_at_us)
            .execute(&mut *write)
            .await?;
        let open: Option<RunRow> = sqlx::query_as(OPEN_RUN)
            .bind(&new.provider)
            .fetch_optional(&mut *write)
            .await?;
        let open = open.ok_or(Error::Interrupted)?; // It has ended since it stood in the way.
        if asked.rows_affected() == 1 {
            audit::add(&mut write, record).await?;
        }
        let bytes = answer(&open.read()?);
        complete(&mut write, key, &bytes, new.requested_at_us).await?;
        write.commit().await?;
        Ok(fresh(bytes))
    }

    async fn schedule(&self, new: &Run, record: &Record, not_since_us: i64) -> Result<bool, Error> {
        let mut write = self.postgres.begin().await?;
        let asked = sqlx::query(SCHEDULE)
            .bind(new.id.to_string())
            .bind(&new.provider)
            .bind(Phase::Transactions.name())
            .bind(&new.requested_by)
            .bind(new.requested_at_us)
            .bind(not_since_us)
            .execute(&mut *write)
            .await?;
        if asked.rows_affected() == 0 {
            return Ok(false);
        }
        audit::add(&mut write, record).await?;
        write.commit().await?;
        Ok(true)
    }

    async fn take(&self, lease: &RunLease) -> Result<Option<Run>, Error> {
        let run: Option<RunRow> = sqlx::query_as(
            "UPDATE reconciliations SET lease_owner = $1, lease_until_us = mesh_now_us() + $2 \
             WHERE id = (SELECT id FROM reconciliations WHERE state IN ('requested', 'running') \
                 AND lease_until_us <= mesh_now_us() ORDER BY requested_at_us LIMIT 1 FOR UPDATE SKIP LOCKED) \
             RETURNING *",
        )
        .bind(&lease.owner)
        .bind(lease.lasts_us)
        .fetch_optional(self.postgres.pool())
        .await?;
        run.map(RunRow::read).transpose()
    }

    async fn compared_until(&self, provider: &str) -> Result<Option<i64>, Error> {
        let until = sqlx::query_scalar(COMPARED_UNTIL).bind(provider);
        Ok(until.fetch_one(self.postgres.reads()).await?)
    }

    async fn last_requested(&self, provider: &str) -> Result<Option<i64>, Error> {
        let last = sqlx::query_scalar(LAST_REQUESTED).bind(provider);
        Ok(last.fetch_one(self.postgres.reads()).await?)
    }

    async fn keep(&self, provider: &str, lines: &[Line]) -> Result<(), Error> {
        let mut write = self.postgres.begin().await?;
        let found = payments_of(&mut write, provider, lines).await?;
        let kept: Vec<LineRow> = lines
            .iter()
            .map(|line| LineRow::of(line, rows::payment_of(line, &found)))
            .collect();
        sqlx::query(
            "INSERT INTO statement_lines (provider, provider_id, kind, reference, charge_reference, order_ref, \
                 currency, amount_minor, booked_at_us, payment_id) \
             SELECT $1, provider_id, kind, reference, charge_reference, order_ref, currency, amount_minor, \
                 booked_at_us, payment_id \
             FROM jsonb_populate_recordset(NULL::statement_lines, $2) ON CONFLICT DO NOTHING",
        )
        .bind(provider)
        .bind(document(&kept))
        .execute(&mut *write)
        .await?;
        write.commit().await?;
        Ok(())
    }

    async fn lines(&self, query: &PageQuery) -> Result<LinesPage, Error> {
        let beginning = (query.since_us, String::new());
        let (at_us, id) = query.after.clone().unwrap_or(beginning);
        let mut read = self.postgres.reads().acquire().await?;
        let rows: Vec<LineRow> = sqlx::query_as(
            "SELECT * FROM statement_lines WHERE provider = $1 AND (booked_at_us, provider_id) > ($2, $3) \
             AND booked_at_us <= $4 ORDER BY booked_at_us, provider_id LIMIT $5",
        )
        .bind(&query.provider)
        .bind(at_us)
        .bind(id)
        .bind(query.until_us)
        .bind(query.limit)
        .fetch_all(&mut *read)
        .await?;
        let lines = rows.into_iter().map(LineRow::read);
        let lines = lines.collect::<Result<Vec<_>, _>>()?;
        let found = payments_of(&mut read, &query.provider, &lines).await?;
        Ok(LinesPage {
            touched: touched(&mut read, &query.provider, &lines, &found).await?,
            last: lines
                .last()
                .map(|last| (last.booked_at_us, last.id.clone())),
        })
    }

    async fn look_again(&self, provider: &str, ids: &[String]) -> Result<Touched, Error> {
        let mut write = self.postgres.begin().await?;
        let lines: Vec<LineRow> = sqlx::query_as(
            "SELECT * FROM statement_lines WHERE provider = $1 AND payment_id IS NULL AND provider_id = ANY ($2)",
        )
        .bind(provider)
        .bind(ids)
        .fetch_all(&mut *write)
        .await?;
        let lines = lines
            .into_iter()
            .map(LineRow::read)
            .collect::<Result<Vec<_>, _>>()?;
        let found = payments_of(&mut write, provider, &lines).await?;
        for line in &lines {
            let Some(payment) = rows::payment_of(line, &found) else {
                continue;
            };
            sqlx::query("UPDATE statement_lines SET payment_id = $1 WHERE provider = $2 AND provider_id = $3")
                .bind(payment.to_string())
                .bind(provider)
                .bind(&line.id)
                .execute(&mut *write)
                .await?;
        }
        let touched = touched(&mut write, provider, &lines, &found).await?;
        write.commit().await?;
        Ok(touched)
    }

    async fn entries(&self, query: &PageQuery) -> Result<EntriesPage, Error> {
        let after = query.after.as_ref();
        let after = after.map(|(at_us, id)| Ok((*at_us, TransactionId::parse(id)?.uuid())));
        let after = after
            .transpose()
            .map_err(|_: kernel::InvalidId| Error::Corrupt("cursor"))?;
        let (at_us, id) = after.unwrap_or((query.since_us, Uuid::nil()));
        let rows: Vec<(i64, Uuid, Uuid, bool)> = sqlx::query_as(
            "WITH page AS MATERIALIZED ( \
                 SELECT recorded_at_us, id, payment_id FROM ledger_transactions \
                 WHERE (recorded_at_us, id) > ($2, $3) AND recorded_at_us <= $4 \
                     AND kind IN ('capture', 'refund') \
                 ORDER BY recorded_at_us, id LIMIT $5) \
             SELECT page.*, p.provider = $1 FROM page JOIN payments p ON p.id = page.payment_id \
             ORDER BY page.recorded_at_us, page.id",
        )
        .bind(&query.provider)
        .bind(at_us)
        .bind(id)
        .bind(query.until_us)
        .bind(query.limit)
        .fetch_all(self.postgres.reads())
        .await?;
        let last = rows.last().map(|(at_us, id, _, _)| {
            let id = TransactionId::from_uuid(*id).map_err(|_| Error::Corrupt("id"))?;
            Ok::<_, Error>((*at_us, id.to_string()))
        });
        let ours = rows.iter().filter(|(_, _, _, ours)| *ours);
        let payments = ours.map(|(_, _, payment, _)| payment_id(*payment));
        let mut payments = payments.collect::<Result<Vec<_>, _>>()?;
        payments.sort_unstable();
        payments.dedup();
        Ok(EntriesPage {
            payments,
            last: last.transpose()?,
        })
    }

    async fn cases(&self, provider: &str, payments: &[PaymentId]) -> Result<Vec<Case>, Error> {
        let mut connection = self.postgres.reads().acquire().await?;
        cases(&mut connection, provider, payments).await
    }

    async fn book(
        &self,
        provider: &str,
        bookings: &[Booking],
        record: &Record,
    ) -> Result<(i64, Vec<SettlementLine>), Error> {
        let mut write = self.postgres.begin().await?;
        let ids: Vec<&str> = bookings
            .iter()
            .map(|booking| booking.line.id.as_str())
            .collect();
        let known: Vec<SettlementRow> = sqlx::query_as(
            "SELECT * FROM settlement_lines WHERE provider = $1 AND provider_id = ANY ($2)",
        )
        .bind(provider)
        .bind(ids)
        .fetch_all(&mut *write)
        .await?;
        let known = known
            .into_iter()
            .map(SettlementRow::read)
            .collect::<Result<Vec<_>, _>>()?;
        let earlier = |line: &SettlementLine| {
            known
                .iter()
                .find(|known| known.id == line.id && known.kind == line.kind)
        };
        let changed = bookings.iter().filter_map(|booking| {
            let earlier = earlier(&booking.line)?;
            (earlier.amount != booking.line.amount).then(|| earlier.clone())
        });
        let changed = changed.collect();
        let new: Vec<&Booking> = bookings
            .iter()
            .filter(|booking| earlier(&booking.line).is_none())
            .collect();
        let booked = if new.is_empty() {
            0
        } else {
            sqlx::query_scalar(include_str!("book.sql"))
                .bind(booking_document(provider, &new, record.at_us))
                .fetch_one(&mut *write)
                .await?
        };
        if booked > 0 {
            audit::add(&mut write, record).await?;
        }
        write.commit().await?;
        Ok((booked, changed))
    }

    async fn open(
        &self,
        provider: &str,
        after: &str,
        limit: i64,
    ) -> Result<Vec<Discrepancy>, Error> {
        let rows: Vec<DiscrepancyRow> = sqlx::query_as(OPEN)
            .bind(provider)
            .bind(after)
            .bind(limit)
            .fetch_all(self.postgres.reads())
            .await?;
        rows.into_iter().map(DiscrepancyRow::read).collect()
    }

    async fn record(
        &self,
        run: &mut Run,
        outcome: &Outcome,
        lease: &RunLease,
        hold: bool,
    ) -> Result<bool, Error> {
        let mut write = self.postgres.begin().await?;
        let mut progress = run.clone();
        for finding in &outcome.findings {
            progress.found += i64::from(find(&mut write, run, finding, lease.now_us).await?);
        }
        for id in &outcome.gone {
            let gone = sqlx::query(GONE).bind(id.to_string()).bind(lease.now_us);
            let gone = gone.execute(&mut *write).await?.rows_affected();
            progress.resolved += i64::from(gone == 1);
        }
        let kept = sqlx::query(PROGRESS)
            .bind(run.id.to_string())
            .bind(run.state.name())
            .bind(run.phase.name())
            .bind(&run.place)
            .bind(run.since_us)
            .bind(run.until_us)
            .bind(run.started_at_us)
            .bind(run.finished_at_us)
            .bind(run.lines)
            .bind(progress.found)
            .bind(progress.resolved)
            .bind(run.booked)
            .bind(run.tries)
            .bind(&run.error)
            .bind(hold.then_some(&lease.owner))
            .bind(lease.lasts_us)
            .bind(&lease.owner)
            .execute(&mut *write)
            .await?;
        if kept.rows_affected() == 0 {
            return Ok(false);
        }
        write.commit().await?;
        *run = progress;
        Ok(true)
    }

    async fn run(&self, id: ReconciliationId) -> Result<Option<Run>, Error> {
        let row: Option<RunRow> = sqlx::query_as(RUN)
            .bind(id.to_string())
            .fetch_optional(self.postgres.reads())
            .await?;
        row.map(RunRow::read).transpose()
    }

    async fn runs(&self, query: &RunsQuery) -> Result<Vec<Run>, Error> {
        let (at_us, id) = query.after.clone().unwrap_or((i64::MAX, String::new()));
        let rows: Vec<RunRow> = sqlx::query_as(RUNS)
            .bind(&query.provider)
            .bind(at_us)
            .bind(id)
            .bind(query.limit)
            .fetch_all(self.postgres.reads())
            .await?;
        rows.into_iter().map(RunRow::read).collect()
    }

    async fn discrepancies(&self, query: &DiscrepanciesQuery) -> Result<Vec<Discrepancy>, Error> {
        let (at_us, id) = query.after.clone().unwrap_or((i64::MAX, String::new()));
        let rows: Vec<DiscrepancyRow> = sqlx::query_as(DISCREPANCIES)
            .bind(&query.provider)
            .bind(query.kind.map(Kind::name))
            .bind(query.status.map(Status::name))
            .bind(at_us)
            .bind(id)
            .bind(query.limit)
            .fetch_all(self.postgres.reads())
            .await?;
        rows.into_iter().map(DiscrepancyRow::read).collect()
    }

    async fn resolve(
        &self,
        key: Option<&Key>,
        resolution: &Resolution,
        record: &Record,
        answer: Answering<'_, Discrepancy>,
    ) -> Result<Answer, Error> {
        let (id, now_us) = (resolution.id.to_string(), resolution.now_us);
        let mut write = self.postgres.begin().await?;
        if let Some(known) = claimed(&mut write, key, &id, now_us).await? {
            return Ok(known);
        }
        let resolved = sqlx::query(RESOLVE)
            .bind(&id)
            .bind(now_us)
            .bind(&resolution.by)
            .bind(&resolution.note)
            .execute(&mut *write)
            .await?;
        let row: Option<DiscrepancyRow> = sqlx::query_as(DISCREPANCY)
            .bind(&id)
            .fetch_optional(&mut *write)
            .await?;
        let row = row.ok_or(Error::DiscrepancyNotFound(id))?;
        if resolved.rows_affected() == 1 {
            audit::add(&mut write, record).await?;
        }
        let bytes = answer(&row.read()?);
        complete(&mut write, key, &bytes, now_us).await?;
        write.commit().await?;
        Ok(fresh(bytes))
    }

    async fn open_counts(&self) -> Result<Vec<OpenCount>, Error> {
        let rows: Vec<(String, String, i64)> = sqlx::query_as(OPEN_COUNTS)
            .fetch_all(self.postgres.reads())
            .await?;
        rows::open_counts(rows)
    }
}

fn document(rows: &[LineRow]) -> Value {
    serde_json::to_value(rows).expect("texts and numbers are JSON")
}

/// What `book.sql` takes.
fn booking_document(provider: &str, bookings: &[&Booking], now_us: i64) -> Value {
    let line = |booking: &&Booking| {
        let row = SettlementRow::of(&booking.line);
        let mut row = serde_json::to_value(row).expect("texts and numbers are JSON");
        row["id"] = json!(booking.id.uuid().to_string());
        row["provider"] = json!(provider);
        row["recorded_at_us"] = json!(now_us);
        row
    };
    let postings = bookings
        .iter()
        .flat_map(|booking| write::striped_postings(&booking.entry));
    json!({
        "lines": bookings.iter().map(line).collect::<Vec<_>>(),
        "entries": bookings.iter().map(|booking| write::entry(&booking.entry)).collect::<Vec<_>>(),
        "postings": postings.collect::<Vec<_>>(),
    })
}

/// Keeps a finding; says whether it is new or open again.
async fn find(
    connection: &mut PgConnection,
    run: &Run,
    finding: &Finding,
    now_us: i64,
) -> Result<bool, Error> {
    let before: Option<String> = sqlx::query_scalar(FOUND_BEFORE)
        .bind(&run.provider)
        .bind(finding.kind.name())
        .bind(&finding.subject)
        .fetch_optional(&mut *connection)
        .await?;
    sqlx::query(FIND)
        .bind(DiscrepancyId::generate(now_us).to_string())
        .bind(&run.provider)
        .bind(finding.kind.name())
        .bind(&finding.subject)
        .bind(finding.payment.map(|payment| payment.to_string()))
        .bind(&finding.our_reference)
        .bind(&finding.provider_id)
        .bind(finding.ours.map(|ours| ours.currency().code()))
        .bind(finding.ours.map(kernel::Money::amount_minor))
        .bind(finding.theirs.map(|theirs| theirs.currency().code()))
        .bind(finding.theirs.map(kernel::Money::amount_minor))
        .bind(finding.booked_at_us)
        .bind(finding.safe)
        .bind(run.id.to_string())
        .bind(now_us)
        .execute(connection)
        .await?;
    Ok(before.is_none_or(|status| status == Status::ResolvedItself.name()))
}
