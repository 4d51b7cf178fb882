//! What reconciliation needs, in SQLite.

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
use super::rows::json;
use super::{SqliteStore, audit, effects};
use crate::audit::Record;
use crate::commands::Answer;
use crate::error::Error;
use crate::provider::SettlementLine;
use crate::reconcile::{Case, Discrepancy, Finding, Kind, Line, Phase, Run, Status};
use async_trait::async_trait;
use kernel::{DiscrepancyId, PaymentId, ReconciliationId};
use mesh_store::idempotency::Key;
use sqlx::SqliteConnection;

const PROGRESS: &str = "UPDATE reconciliations SET state = $2, phase = $3, place = $4, \
    since_us = $5, until_us = $6, started_at_us = $7, finished_at_us = $8, lines = $9, found = $10, resolved = $11, \
    booked = $12, tries = $13, error = $14, lease_owner = $15, lease_until_us = $16 \
    WHERE id = $1 AND lease_owner = $17";

#[async_trait]
impl Reconciliations for SqliteStore {
    async fn request(
        &self,
        key: Option<&Key>,
        new: &Run,
        record: &Record,
        answer: Answering<'_, Run>,
    ) -> Result<Answer, Error> {
        let mut write = self.sqlite.begin().await?;
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
        let open: RunRow = sqlx::query_as(OPEN_RUN)
            .bind(&new.provider)
            .fetch_one(&mut *write)
            .await?;
        if asked.rows_affected() == 1 {
            audit::record(&mut write, std::slice::from_ref(record)).await?;
        }
        let bytes = answer(&open.read()?);
        complete(&mut write, key, &bytes, new.requested_at_us).await?;
        write.commit().await?;
        Ok(fresh(bytes))
    }

    async fn schedule(&self, new: &Run, record: &Record, not_since_us: i64) -> Result<bool, Error> {
        let mut write = self.sqlite.begin().await?;
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
        audit::record(&mut write, std::slice::from_ref(record)).await?;
        write.commit().await?;
        Ok(true)
    }

    async fn take(&self, lease: &RunLease) -> Result<Option<Run>, Error> {
        const FREE: &str = "SELECT id FROM reconciliations WHERE state IN ('requested', 'running') \
            AND lease_until_us <= $1 ORDER BY requested_at_us LIMIT 1";
        let free: Option<String> = sqlx::query_scalar(FREE)
            .bind(lease.now_us)
            .fetch_optional(self.sqlite.reader())
            .await?;
        if free.is_none() {
            return Ok(None); // The one connection that writes is left alone.
        }
        let mut write = self.sqlite.begin().await?;
        let free: Option<String> = sqlx::query_scalar(FREE)
            .bind(lease.now_us)
            .fetch_optional(&mut *write)
            .await?;
        let Some(id) = free else { return Ok(None) };
        sqlx::query("UPDATE reconciliations SET lease_owner = ?, lease_until_us = ? WHERE id = ?")
            .bind(&lease.owner)
            .bind(lease.now_us + lease.lasts_us)
            .bind(&id)
            .execute(&mut *write)
            .await?;
        let run: RunRow = sqlx::query_as(RUN).bind(&id).fetch_one(&mut *write).await?;
        write.commit().await?;
        run.read().map(Some)
    }

    async fn compared_until(&self, provider: &str) -> Result<Option<i64>, Error> {
        let until = sqlx::query_scalar(COMPARED_UNTIL).bind(provider);
        Ok(until.fetch_one(self.sqlite.reader()).await?)
    }

    async fn last_requested(&self, provider: &str) -> Result<Option<i64>, Error> {
        let last = sqlx::query_scalar(LAST_REQUESTED).bind(provider);
        Ok(last.fetch_one(self.sqlite.reader()).await?)
    }

    async fn keep(&self, provider: &str, lines: &[Line]) -> Result<(), Error> {
        let mut write = self.sqlite.begin().await?;
        let found = payments_of(&mut write, provider, lines).await?;
        let kept: Vec<LineRow> = lines
            .iter()
            .map(|line| LineRow::of(line, rows::payment_of(line, &found)))
            .collect();
        sqlx::query(
            "INSERT INTO statement_lines (provider, provider_id, kind, reference, charge_reference, order_ref, \
                 currency, amount_minor, booked_at_us, payment_id) \
             SELECT ?, value ->> 'provider_id', value ->> 'kind', value ->> 'reference', \
                 value ->> 'charge_reference', value ->> 'order_ref', value ->> 'currency', \
                 value ->> 'amount_minor', value ->> 'booked_at_us', value ->> 'payment_id' \
             FROM json_each(?) WHERE true ON CONFLICT DO NOTHING",
        )
        .bind(provider)
        .bind(json(&kept))
        .execute(&mut *write)
        .await?;
        write.commit().await?;
        Ok(())
    }

    async fn lines(&self, query: &PageQuery) -> Result<LinesPage, Error> {
        let beginning = (query.since_us, String::new());
        let (at_us, id) = query.after.clone().unwrap_or(beginning);
        let mut read = self.sqlite.reader().begin().await?; // One state of all its rows.
        let rows: Vec<LineRow> = sqlx::query_as(
            "SELECT * FROM statement_lines WHERE provider = ?1 AND (booked_at_us, provider_id) > (?2, ?3) \
             AND booked_at_us <= ?4 ORDER BY booked_at_us, provider_id LIMIT ?5",
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
        let mut write = self.sqlite.begin().await?;
        let lines: Vec<LineRow> = sqlx::query_as(
            "SELECT * FROM statement_lines WHERE provider = ? AND payment_id IS NULL \
             AND provider_id IN (SELECT value FROM json_each(?))",
        )
        .bind(provider)
        .bind(json(&ids))
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
            sqlx::query(
                "UPDATE statement_lines SET payment_id = ? WHERE provider = ? AND provider_id = ?",
            )
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
        let (at_us, id) = query
            .after
            .clone()
            .unwrap_or((query.since_us, String::new()));
        let rows: Vec<(i64, String, String, bool)> = sqlx::query_as(
            "WITH page AS MATERIALIZED ( \
                 SELECT recorded_at_us, id, payment_id FROM ledger_transactions \
                 WHERE (recorded_at_us, id) > ($2, $3) AND recorded_at_us <= $4 AND kind IN ('capture', 'refund') \
                 ORDER BY recorded_at_us, id LIMIT $5) \
             SELECT page.*, p.provider = $1 FROM page JOIN payments p ON p.id = page.payment_id \
             ORDER BY page.recorded_at_us, page.id",
        )
        .bind(&query.provider)
        .bind(at_us)
        .bind(id)
        .bind(query.until_us)
        .bind(query.limit)
        .fetch_all(self.sqlite.reader())
        .await?;
        let last = rows.last().map(|(at_us, id, _, _)| (*at_us, id.clone()));
        let mut payments = rows
            .iter()
            .filter(|(_, _, _, ours)| *ours)
            .map(|(_, _, payment, _)| payment_id(payment))
            .collect::<Result<Vec<_>, _>>()?;
        payments.sort_unstable();
        payments.dedup();
        Ok(EntriesPage { payments, last })
    }

    async fn cases(&self, provider: &str, payments: &[PaymentId]) -> Result<Vec<Case>, Error> {
        let mut read = self.sqlite.reader().begin().await?; // One state of all its rows.
        cases(&mut read, provider, payments).await
    }

    async fn book(
        &self,
        provider: &str,
        bookings: &[Booking],
        record: &Record,
    ) -> Result<(i64, Vec<SettlementLine>), Error> {
        let mut write = self.sqlite.begin().await?;
        let ids: Vec<&str> = bookings
            .iter()
            .map(|booking| booking.line.id.as_str())
            .collect();
        let known: Vec<SettlementRow> = sqlx::query_as(
            "SELECT * FROM settlement_lines WHERE provider = ? \
             AND provider_id IN (SELECT value FROM json_each(?))",
        )
        .bind(provider)
        .bind(json(&ids))
        .fetch_all(&mut *write)
        .await?;
        let known = known
            .into_iter()
            .map(SettlementRow::read)
            .collect::<Result<Vec<_>, _>>()?;
        let mut new = 0;
        let mut changed = Vec::new();
        for booking in bookings {
            let line = &booking.line;
            let earlier = known
                .iter()
                .find(|known| known.id == line.id && known.kind == line.kind);
            if let Some(earlier) = earlier {
                changed.extend((earlier.amount != line.amount).then(|| earlier.clone()));
                continue;
            }
            new += i64::from(insert_settlement(&mut write, provider, booking, record.at_us).await?);
        }
        if new > 0 {
            audit::record(&mut write, std::slice::from_ref(record)).await?;
        }
        write.commit().await?;
        Ok((new, changed))
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
            .fetch_all(self.sqlite.reader())
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
        let mut write = self.sqlite.begin().await?;
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
            .bind(lease.now_us + lease.lasts_us)
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
            .fetch_optional(self.sqlite.reader())
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
            .fetch_all(self.sqlite.reader())
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
            .fetch_all(self.sqlite.reader())
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
        let mut write = self.sqlite.begin().await?;
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
            audit::record(&mut write, std::slice::from_ref(record)).await?;
        }
        let bytes = answer(&row.read()?);
        complete(&mut write, key, &bytes, now_us).await?;
        write.commit().await?;
        Ok(fresh(bytes))
    }

    async fn open_counts(&self) -> Result<Vec<OpenCount>, Error> {
        let rows: Vec<(String, String, i64)> = sqlx::query_as(OPEN_COUNTS)
            .fetch_all(self.sqlite.reader())
            .await?;
        rows::open_counts(rows)
    }
}

async fn insert_settlement(
    connection: &mut SqliteConnection,
    provider: &str,
    booking: &Booking,
    now_us: i64,
) -> Result<bool, Error> {
    let row = json(&SettlementRow::of(&booking.line));
    let inserted = sqlx::query(
        "INSERT INTO settlement_lines (id, provider, kind, provider_id, reference, payout, currency, amount_minor, \
             arrival_day, booked_at_us, recorded_at_us) \
         VALUES ($1, $2, $3 ->> 'kind', $3 ->> 'provider_id', $3 ->> 'reference', $3 ->> 'payout', \
             $3 ->> 'currency', $3 ->> 'amount_minor', $3 ->> 'arrival_day', $3 ->> 'booked_at_us', $4) \
         ON CONFLICT DO NOTHING", // Twice on one page.
    )
    .bind(booking.id.to_string())
    .bind(provider)
    .bind(row)
    .bind(now_us)
    .execute(&mut *connection)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(false);
    }
    effects::write_entry(connection, &booking.entry).await?;
    Ok(true)
}

/// Keeps a finding; says whether it is new or open again.
async fn find(
    connection: &mut SqliteConnection,
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
