//! Runs, lines and discrepancies as rows, the same in both databases, and the statements that are.

use super::OpenCount;
use crate::error::Error;
use crate::provider::{SettlementKind, SettlementLine, Transaction, TransactionKind};
use crate::reconcile::{Discrepancy, Finding, Kind, Line, Phase, Run, RunState, Status};
use kernel::{Currency, DiscrepancyId, Money, PaymentId, ReconciliationId};
use serde::Serialize;
use sqlx::FromRow;

/// A run that is asked for, unless one is open.
pub(in crate::store) const REQUEST: &str = "INSERT INTO reconciliations (id, provider, state, phase, place, since_us, \
    until_us, requested_by, requested_at_us, lines, found, resolved, booked, tries, error) \
    VALUES ($1, $2, 'requested', $3, '', 0, 0, $4, $5, 0, 0, 0, 0, 0, '') ON CONFLICT DO NOTHING";
/// The same unless one was asked for since.
pub(in crate::store) const SCHEDULE: &str = "INSERT INTO reconciliations (id, provider, state, phase, place, since_us, \
    until_us, requested_by, requested_at_us, lines, found, resolved, booked, tries, error) \
    SELECT $1, $2, 'requested', $3, '', 0, 0, $4, $5, 0, 0, 0, 0, 0, '' \
    WHERE NOT EXISTS (SELECT 1 FROM reconciliations WHERE provider = $2 AND requested_at_us > $6) \
    ON CONFLICT DO NOTHING";
pub(in crate::store) const OPEN_RUN: &str =
    "SELECT * FROM reconciliations WHERE provider = $1 AND state IN ('requested', 'running')";
pub(in crate::store) const RUN: &str = "SELECT * FROM reconciliations WHERE id = $1";
pub(in crate::store) const RUNS: &str = "SELECT * FROM reconciliations \
    WHERE provider = COALESCE($1, provider) AND (requested_at_us, id) < ($2, $3) \
    ORDER BY requested_at_us DESC, id DESC LIMIT $4";
pub(in crate::store) const COMPARED_UNTIL: &str =
    "SELECT MAX(until_us) FROM reconciliations WHERE provider = $1 AND state = 'succeeded'";
pub(in crate::store) const LAST_REQUESTED: &str =
    "SELECT MAX(requested_at_us) FROM reconciliations WHERE provider = $1";
/// How what differs stood when it was found before.
pub(in crate::store) const FOUND_BEFORE: &str =
    "SELECT status FROM discrepancies WHERE provider = $1 AND kind = $2 AND subject = $3";
/// Something that differs, as it looks now; found again after it had resolved itself, it is open again, and what a person
/// has resolved stays as it is.
pub(in crate::store) const FIND: &str = "INSERT INTO discrepancies AS old (id, provider, kind, subject, payment_id, \
    our_reference, provider_id, our_currency, our_minor, their_currency, their_minor, booked_at_us, safe, \
    reconciliation_id, found_at_us, status, resolved_by, note) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, 'open', '', '') \
    ON CONFLICT (provider, kind, subject) DO UPDATE SET status = 'open', resolved_at_us = NULL, \
    payment_id = excluded.payment_id, our_reference = excluded.our_reference, our_currency = excluded.our_currency, \
    our_minor = excluded.our_minor, their_currency = excluded.their_currency, their_minor = excluded.their_minor, \
    safe = excluded.safe \
    WHERE old.status <> 'resolved'";
pub(in crate::store) const GONE: &str = "UPDATE discrepancies SET status = 'resolved_itself', resolved_at_us = $2 \
    WHERE id = $1 AND status = 'open'";
pub(in crate::store) const RESOLVE: &str = "UPDATE discrepancies SET status = 'resolved', resolved_at_us = $2, \
    resolved_by = $3, note = $4 WHERE id = $1 AND status = 'open'";
pub(in crate::store) const DISCREPANCY: &str = "SELECT * FROM discrepancies WHERE id = $1";
pub(in crate::store) const OPEN: &str = "SELECT * FROM discrepancies WHERE provider = $1 AND status = 'open' \
    AND id > $2 ORDER BY id LIMIT $3";
pub(in crate::store) const DISCREPANCIES: &str = "SELECT * FROM discrepancies \
    WHERE provider = COALESCE($1, provider) AND kind = COALESCE($2, kind) AND status = COALESCE($3, status) \
    AND (found_at_us, id) < ($4, $5) ORDER BY found_at_us DESC, id DESC LIMIT $6";
pub(in crate::store) const OPEN_COUNTS: &str = "SELECT provider, kind, COUNT(*) FROM discrepancies \
    WHERE status = 'open' GROUP BY provider, kind ORDER BY provider, kind";

/// A row of `reconciliations`.
#[derive(FromRow)]
pub(in crate::store) struct RunRow {
    id: String,
    provider: String,
    state: String,
    phase: String,
    place: String,
    since_us: i64,
    until_us: i64,
    requested_by: String,
    requested_at_us: i64,
    started_at_us: Option<i64>,
    finished_at_us: Option<i64>,
    lines: i64,
    found: i64,
    resolved: i64,
    booked: i64,
    tries: i64,
    error: String,
}

impl RunRow {
    pub(in crate::store) fn read(self) -> Result<Run, Error> {
        Ok(Run {
            id: ReconciliationId::parse(&self.id).map_err(|_| Error::Corrupt("id"))?,
            provider: self.provider,
            state: RunState::parse(&self.state).ok_or(Error::Corrupt("state"))?,
            phase: Phase::parse(&self.phase).ok_or(Error::Corrupt("phase"))?,
            place: self.place,
            since_us: self.since_us,
            until_us: self.until_us,
            requested_by: self.requested_by,
            requested_at_us: self.requested_at_us,
            started_at_us: self.started_at_us,
            finished_at_us: self.finished_at_us,
            lines: self.lines,
            found: self.found,
            resolved: self.resolved,
            booked: self.booked,
            tries: self.tries,
            error: self.error,
        })
    }
}

/// A row of `discrepancies`.
#[derive(FromRow)]
pub(in crate::store) struct DiscrepancyRow {
    id: String,
    provider: String,
    kind: String,
    subject: String,
    payment_id: Option<String>,
    our_reference: String,
    provider_id: String,
    our_currency: Option<String>,
    our_minor: Option<i64>,
    their_currency: Option<String>,
    their_minor: Option<i64>,
    booked_at_us: i64,
    safe: bool,
    reconciliation_id: String,
    found_at_us: i64,
    status: String,
    resolved_at_us: Option<i64>,
    resolved_by: String,
    note: String,
}

impl DiscrepancyRow {
    pub(in crate::store) fn read(self) -> Result<Discrepancy, Error> {
        let unreadable = |_| Error::Corrupt("id");
        let payment = self.payment_id.as_deref().map(PaymentId::parse);
        Ok(Discrepancy {
            id: DiscrepancyId::parse(&self.id).map_err(unreadable)?,
            provider: self.provider,
            finding: Finding {
                kind: Kind::parse(&self.kind).ok_or(Error::Corrupt("kind"))?,
                subject: self.subject,
                payment: payment.transpose().map_err(unreadable)?,
                our_reference: self.our_reference,
                provider_id: self.provider_id,
                ours: optional(self.our_currency, self.our_minor)?,
                theirs: optional(self.their_currency, self.their_minor)?,
                booked_at_us: self.booked_at_us,
                safe: self.safe,
            },
            run: ReconciliationId::parse(&self.reconciliation_id).map_err(unreadable)?,
            found_at_us: self.found_at_us,
            status: Status::parse(&self.status).ok_or(Error::Corrupt("status"))?,
            resolved_at_us: self.resolved_at_us,
            resolved_by: self.resolved_by,
            note: self.note,
        })
    }
}

/// A row of `statement_lines`, both ways.
#[derive(FromRow, Serialize)]
pub(in crate::store) struct LineRow {
    provider_id: String,
    kind: String,
    reference: String,
    charge_reference: String,
    order_ref: String,
    currency: String,
    amount_minor: i64,
    booked_at_us: i64,
    /// The payment that was found for it.
    pub(in crate::store) payment_id: Option<String>,
}

impl LineRow {
    pub(in crate::store) fn of(line: &Line, payment: Option<PaymentId>) -> Self {
        Self {
            provider_id: line.id.clone(),
            kind: line.kind.name().to_owned(),
            reference: line.reference.clone(),
            charge_reference: line.charge_reference.clone(),
            order_ref: line.order_ref.clone(),
            currency: line.amount.currency().code().to_owned(),
            amount_minor: line.amount.amount_minor(),
            booked_at_us: line.booked_at_us,
            payment_id: payment.map(|payment| payment.to_string()),
        }
    }

    pub(in crate::store) fn read(self) -> Result<Line, Error> {
        Ok(Transaction {
            id: self.provider_id,
            kind: TransactionKind::parse(&self.kind).ok_or(Error::Corrupt("kind"))?,
            reference: self.reference,
            charge_reference: self.charge_reference,
            order_ref: self.order_ref,
            amount: money(&self.currency, self.amount_minor)?,
            booked_at_us: self.booked_at_us,
        })
    }
}

/// A row of `settlement_lines`, both ways.
#[derive(FromRow, Serialize)]
pub(in crate::store) struct SettlementRow {
    pub(in crate::store) kind: String,
    pub(in crate::store) provider_id: String,
    reference: String,
    payout: String,
    currency: String,
    amount_minor: i64,
    arrival_day: String,
    booked_at_us: i64,
}

impl SettlementRow {
    pub(in crate::store) fn of(line: &SettlementLine) -> Self {
        Self {
            kind: line.kind.name().to_owned(),
            provider_id: line.id.clone(),
            reference: line.reference.clone(),
            payout: line.payout.clone(),
            currency: line.amount.currency().code().to_owned(),
            amount_minor: line.amount.amount_minor(),
            arrival_day: line.arrival_day.clone(),
            booked_at_us: line.booked_at_us,
        }
    }

    pub(in crate::store) fn read(self) -> Result<SettlementLine, Error> {
        Ok(SettlementLine {
            kind: match self.kind.as_str() {
                "fee" => SettlementKind::Fee,
                "payout" => SettlementKind::Payout,
                _ => return Err(Error::Corrupt("kind")),
            },
            id: self.provider_id,
            reference: self.reference,
            payout: self.payout,
            amount: money(&self.currency, self.amount_minor)?,
            arrival_day: self.arrival_day,
            booked_at_us: self.booked_at_us,
        })
    }
}

/// What [`OPEN_COUNTS`] finds.
pub(in crate::store) fn open_counts(
    rows: Vec<(String, String, i64)>,
) -> Result<Vec<OpenCount>, Error> {
    let read = |(provider, kind, count): (String, String, i64)| {
        let kind = Kind::parse(&kind).ok_or(Error::Corrupt("kind"))?;
        Ok(OpenCount {
            provider,
            kind,
            count,
        })
    };
    rows.into_iter().map(read).collect()
}

/// The references of lines by which their payments can be found: that of the charge before their own.
pub(in crate::store) fn references(lines: &[Line]) -> Vec<&str> {
    let both = |line: &'_ Line| {
        [
            base(&line.charge_reference).len(),
            base(&line.reference).len(),
        ]
    };
    lines
        .iter()
        .flat_map(|line| {
            let [charge, own] = both(line);
            [&line.charge_reference[..charge], &line.reference[..own]]
        })
        .collect()
}

/// The payment of a line, among those that were found by reference.
pub(in crate::store) fn payment_of(
    line: &Line,
    found: &std::collections::HashMap<String, PaymentId>,
) -> Option<PaymentId> {
    let by = |reference: &str| found.get(base(reference)).copied();
    by(&line.charge_reference).or_else(|| by(&line.reference))
}

/// The id in a reference: that of a reversal begins with its attempt's.
fn base(reference: &str) -> &str {
    reference.split_once('-').map_or(reference, |(id, _)| id)
}

pub(in crate::store) fn money(code: &str, amount_minor: i64) -> Result<Money, Error> {
    let currency = Currency::parse(code).map_err(|_| Error::Corrupt("currency"))?;
    Money::new(currency, amount_minor).map_err(|_| Error::Corrupt("amount"))
}

fn optional(code: Option<String>, amount_minor: Option<i64>) -> Result<Option<Money>, Error> {
    let both = code.zip(amount_minor);
    both.map(|(code, amount_minor)| money(&code, amount_minor))
        .transpose()
}
