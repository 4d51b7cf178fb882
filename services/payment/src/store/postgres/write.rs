//! One write as one statement: a document with the rows of each table, which PostgreSQL takes apart; tables without
//! rows are left out of it.
//! Every part of it depends on the payment having been written, so that all of it happens or nothing.
//! Bytes travel as PostgreSQL writes them in text, `\x…`.

use super::audit;
use super::create::New;
use super::disputes::{self, DisputeRow};
use super::rows::{AttemptRow, CaptureRow, Loaded, PaymentRow, RefundRow};
use crate::error::Error;
use crate::ledger::Transaction;
use crate::payment::Payment;
use crate::sales::{SaleKind, SaleLine};
use crate::step::Next;
use crate::store::{Begun, Decision, LeaseWish, Work, outcome};
use crate::wire::{self, method};
use kernel::{CaptureId, PaymentId, RefundId};
use mesh_events::Event;
use mesh_store::idempotency::Key;
use mesh_store::postgres::with_parts;
use serde_json::{Map, Value, json};
use sqlx::{AssertSqlSafe, PgConnection};

/// How many rows an account's balance in one currency is spread over.
const STRIPES: u128 = 64;

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// It is done, and commits with the caller's transaction if there is one.
    Yes,
    /// Nothing was written: somebody else has written the payment since it was loaded.
    Stale,
    /// Nothing was written: the key is claimed.
    KeyTaken,
    /// Nothing was written: another payment has the order_ref.
    OrderTaken,
    /// Nothing was written: a limit of the caller has no room for it.
    OverLimit,
}

/// What is written.
pub(super) struct Write<'a> {
    pub(super) key: Option<&'a Key>,
    pub(super) after: &'a Payment,
    pub(super) decision: &'a Decision,
    pub(super) work: &'a Work,
    pub(super) lease: &'a LeaseWish,
}

impl Write<'_> {
    /// A new payment, to be inserted unless its key or its order_ref is taken.
    pub(super) fn new_payment(&self) -> Result<New, Error> {
        let mut rows = self.rows(None)?;
        let mut payment = json!(self.payment(None));
        payment["lease_until_us"] = json!(self.lease_us().unwrap_or(0));
        rows.insert("payments".to_owned(), json!([payment]));
        Ok(New {
            id: self.after.id,
            rows,
        })
    }

    /// Writes what differs from what was loaded, if nobody else has written since.
    pub(super) async fn change(
        &self,
        connection: &mut PgConnection,
        before: &Loaded,
    ) -> Result<Written, Error> {
        let mut rows = self.rows(Some(before))?;
        rows.insert("payment".to_owned(), json!(self.payment(Some(before))));
        let document = Value::Object(rows);
        let statement = statement(include_str!("change.sql"), &document);
        let changed = sqlx::query_scalar::<_, i64>(AssertSqlSafe(statement))
            .bind(document)
            .bind(before.writes)
            .bind(self.lease_us())
            .fetch_one(connection)
            .await;
        match changed {
            Ok(0) => Ok(Written::Stale),
            Ok(_) => Ok(Written::Yes),
            Err(error) if broken(&error) == Some("mesh_idempotency_pkey") => Ok(Written::KeyTaken),
            Err(error) if is_order_taken(&error) => Ok(Written::OrderTaken),
            Err(error) if is_over_limit(&error) => Ok(Written::OverLimit),
            Err(error) => Err(error.into()),
        }
    }

    /// How long the lease lasts from now on, by the clock of the database; nothing: as long as it does.
    fn lease_us(&self) -> Option<i64> {
        match self.work {
            Work::Call(_) | Work::Pause(_) => Some(self.lease.until_us - self.lease.now_us),
            Work::Done => Some(0),
            Work::Queued => None,
        }
    }

    /// The payment with its lease. A time that is due already stays as it is: moving it would cost every
    /// step of a payment a place in the index.
    fn payment(&self, before: Option<&Loaded>) -> PaymentRow {
        let mut row = PaymentRow::of(self.after);
        let due_at_us = before.and_then(|before| before.due_at_us);
        let now_us = self.lease.now_us;
        (row.lease_owner, row.due_at_us) = match (self.work, &self.decision.next) {
            (Work::Queued, _) => (
                before.and_then(|before| before.lease_owner.clone()),
                due_at_us,
            ),
            (Work::Call(_), _) => (
                Some(self.lease.owner.clone()),
                Some(due_at_us.map_or(now_us, |due_us| due_us.min(now_us))),
            ),
            (Work::Pause(due_us), _) => (Some(self.lease.owner.clone()), Some(*due_us)),
            (Work::Done, Next::Later(due_us)) => (None, Some(*due_us)),
            (Work::Done, Next::Call(_) | Next::Nothing) => (None, None),
        };
        row
    }

    /// The payment as it is once this is written.
    pub(super) fn loaded(&self, before: Option<&Loaded>) -> Loaded {
        let row = self.payment(before);
        Loaded {
            payment: self.after.clone(),
            writes: before.map_or(0, |before| before.writes) + 1,
            due_at_us: row.due_at_us,
            lease_owner: row.lease_owner,
            lease_ended: false,
        }
    }

    /// The rows of this write beside the payment's own, by table; tables without any are left out.
    fn rows(&self, before: Option<&Loaded>) -> Result<Map<String, Value>, Error> {
        let (after, now_us) = (self.after, self.lease.now_us);
        let old = before.map(|before| &before.payment);
        let effects = &self.decision.effects;
        let answers = match (before, self.work) {
            (Some(_), Work::Done) => answers(after, now_us),
            _ => Vec::new(), // Of a new payment nothing but its own claim can be open.
        };
        let sales = effects.sales.iter();
        let sales = sales.map(|line| sale(after.id, line));
        let entries = &effects.entries;
        let change = outcome::change(old, after);
        let tables = json!({
            "claims": self.key.map(|key| self.claim(key)).into_iter().collect::<Vec<_>>(),
            "answers": answers,
            "attempts": changed(old.map(|old| &*old.attempts), &after.attempts)
                .map(|(number, attempt)| AttemptRow::of(after.id, number, attempt)).collect::<Vec<_>>(),
            "captures": changed(old.map(|old| &*old.captures), &after.captures)
                .map(|(number, capture)| CaptureRow::of(after.id, number, capture)).collect::<Vec<_>>(),
            "refunds": changed(old.map(|old| &*old.refunds), &after.refunds)
                .map(|(number, refund)| RefundRow::of(after.id, number, refund)).collect::<Vec<_>>(),
            "disputes": changed(old.map(|old| &*old.disputes), &after.disputes)
                .map(|(number, dispute)| DisputeRow::of(after.id, number, dispute)).collect::<Vec<_>>(),
            "evidence": disputes::kept(&effects.evidence),
            "evidence_dropped": disputes::dropped(&effects.evidence),
            "moves": effects.moves.iter().map(|moved| json!({
                "payment_id": after.id.uuid().to_string(),
                "version": moved.version,
                "from_state": moved.from.map(crate::state::State::name),
                "to_state": moved.to.name(),
                "at_us": now_us,
            })).collect::<Vec<_>>(),
            "entries": entries.iter().map(entry).collect::<Vec<_>>(),
            "postings": entries.iter().flat_map(postings).collect::<Vec<_>>(),
            "balances": entries.iter().flat_map(balances).collect::<Vec<_>>(),
            "sales": sales.collect::<Result<Vec<_>, Error>>()?,
            "changes": change.map(|body| json!({
                "payment_id": after.id.uuid().to_string(),
                "principal": after.order.principal,
                "body": bytea(&body),
                "at_us": now_us,
            })).into_iter().collect::<Vec<_>>(),
            "audit": effects.audit.iter()
                .map(|record| audit::record(after.id.uuid(), record)).collect::<Vec<_>>(),
            "spending": effects.spending.iter()
                .map(|spending| audit::spending(after.id.uuid(), spending)).collect::<Vec<_>>(),
            "events": outcome::events(after, effects, now_us).iter()
                .map(|told| event(told, now_us)).collect::<Vec<_>>(),
        });
        let Value::Object(tables) = tables else {
            return Ok(Map::new());
        };
        Ok(tables)
    }

    /// What is answered under the caller's key, where nothing is left to do.
    pub(super) fn answer(&self) -> Option<Vec<u8>> {
        let key = self.key.filter(|_| matches!(self.work, Work::Done))?;
        Some(wire::answer(&key.method, self.after, self.decision.begun))
    }

    /// The claim of the caller's key, with its answer.
    fn claim(&self, key: &Key) -> Value {
        let begun = self.decision.begun;
        let answer = self.answer().map(|answer| bytea(&answer));
        json!({
            "principal": key.principal,
            "method": key.method,
            "request_id": key.request_id,
            "fingerprint": bytea(&key.fingerprint),
            "reference": begun.map_or_else(|| self.after.id.to_string(), |begun| begun.to_string()),
            "claimed_at_us": self.lease.now_us,
            "completed_at_us": answer.is_some().then_some(self.lease.now_us),
            "answer": answer,
        })
    }
}

/// A statement with the parts that the document has rows for.
pub(super) fn statement(statement: &str, document: &Value) -> String {
    let rows = |part: &str| document[part].as_array().map_or(0, Vec::len);
    with_parts(statement, |part| rows(part) > 0)
}

/// Whether a write failed because another payment has the order_ref.
pub(super) fn is_order_taken(error: &sqlx::Error) -> bool {
    broken(error) == Some("payments_order_ref")
}

/// Whether a write failed because a limit of the caller has no room for it.
pub(super) fn is_over_limit(error: &sqlx::Error) -> bool {
    broken(error) == Some("spending_within_limit")
}

/// The constraint that a write broke.
fn broken(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error()?.constraint()
}

/// Parts that are new or not as they were, with their numbers.
fn changed<'a, T: PartialEq>(
    before: Option<&'a [T]>,
    after: &'a [T],
) -> impl Iterator<Item = (usize, &'a T)> {
    let before = before.unwrap_or_default();
    after
        .iter()
        .enumerate()
        .filter(|(number, part)| before.get(*number) != Some(part))
}

/// The answers to whatever commands on a payment are still open, as the payment is now.
fn answers(payment: &Payment, now_us: i64) -> Vec<Value> {
    let answer = |reference: String, method: &str, begun: Option<Begun>| {
        json!({
            "reference": reference,
            "method": method,
            "answer": bytea(&wire::answer(method, payment, begun)),
            "completed_at_us": now_us,
        })
    };
    let commands = [
        method::CREATE_PAYMENT,
        method::CONFIRM_PAYMENT,
        method::CAPTURE_PAYMENT,
        method::CANCEL_PAYMENT,
        method::REPLAY_WEBHOOK,
        method::LOOK_UP_PAYMENT,
    ];
    let of_payment = commands.map(|method| answer(payment.id.to_string(), method, None));
    let refunds = payment.refunds.iter().map(|of| Begun::Refund(of.id));
    let of_refunds =
        refunds.map(|begun| answer(begun.to_string(), method::CREATE_REFUND, Some(begun)));
    let responses = payment.disputes.iter().map(|of| Begun::Response(of.id));
    let of_responses = responses.flat_map(|begun| {
        [method::SUBMIT_DISPUTE_EVIDENCE, method::ACCEPT_DISPUTE]
            .map(|method| answer(begun.to_string(), method, Some(begun)))
    });
    let parts = of_refunds.chain(of_responses);
    of_payment.into_iter().chain(parts).collect()
}

pub(super) fn entry(entry: &Transaction) -> Value {
    json!({
        "id": entry.id().uuid().to_string(),
        "kind": entry.source().kind(),
        "payment_id": entry.payment().map(|payment| payment.uuid().to_string()),
        "source_id": entry.source().uuid().to_string(),
        "recorded_at_us": entry.recorded_at_us(),
    })
}

fn postings(entry: &Transaction) -> impl Iterator<Item = Value> {
    entry.postings().iter().enumerate().map(|(line, posting)| {
        json!({
            "transaction_id": entry.id().uuid().to_string(),
            "line": line,
            "account": posting.account.to_string(),
            "currency": posting.amount.currency().code(),
            "amount_minor": posting.amount.amount_minor(),
        })
    })
}

/// Postings with the stripe of each balance that they change.
pub(super) fn striped_postings(entry: &Transaction) -> impl Iterator<Item = Value> {
    let stripe = u64::try_from(entry.stripe(STRIPES)).expect("below 64");
    postings(entry).map(move |mut posting| {
        posting["stripe"] = json!(stripe);
        posting
    })
}

fn balances(entry: &Transaction) -> impl Iterator<Item = Value> {
    let stripe = u64::try_from(entry.stripe(STRIPES)).expect("below 64");
    entry.postings().iter().map(move |posting| {
        json!({
            "account": posting.account.to_string(),
            "currency": posting.amount.currency().code(),
            "stripe": stripe,
            "balance_minor": posting.amount.amount_minor(),
        })
    })
}

fn sale(payment: PaymentId, line: &SaleLine) -> Result<Value, Error> {
    let source = match line.kind {
        SaleKind::Capture => CaptureId::parse(&line.source).map(CaptureId::uuid),
        SaleKind::Refund | SaleKind::RefundReversal => {
            RefundId::parse(&line.source).map(RefundId::uuid)
        }
    };
    Ok(json!({
        "source_id": source.map_err(|_| Error::Corrupt("source"))?.to_string(),
        "sku": line.sku,
        "kind": line.kind.name(),
        "payment_id": payment.uuid().to_string(),
        "day": line.day,
        "category": line.category,
        "product_id": line.product_id,
        "currency": line.currency.code(),
        "quantity": line.kind.sign() * i64::from(line.quantity),
        "amount_minor": line.kind.sign() * line.amount_minor,
    }))
}

fn event(event: &Event, now_us: i64) -> Value {
    json!({
        "message_id": event.message_id.to_string(),
        "kind": event.kind,
        "aggregate_id": event.aggregate_id,
        "aggregate_version": event.aggregate_version,
        "occurred_at_us": event.occurred_at_us,
        "traceparent": event.traceparent,
        "mandatory": event.mandatory,
        "body": bytea(&event.body),
        "appended_at_us": now_us,
    })
}

/// <https://www.postgresql.org/docs/current/datatype-binary.html#DATATYPE-BINARY-BYTEA-HEX-FORMAT>
pub(super) fn bytea(bytes: &[u8]) -> String {
    format!("\\x{}", hex::encode(bytes))
}
