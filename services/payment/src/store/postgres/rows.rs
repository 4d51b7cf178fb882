//! Rows of a payment and its parts as JSON documents: PostgreSQL gives them as `to_jsonb` and takes them
//! with `jsonb_populate_recordset`, so one description of a table's columns serves both ways. Columns that
//! a newer release has added are left alone.

use super::disputes::DisputeRow;
use crate::attempt::{Attempt, AttemptState, Hold};
use crate::capture::{Capture, CaptureState, Follow, Line, tax_of};
use crate::charges::{Charges, Part};
use crate::error::Error;
use crate::failure::Failure;
use crate::payment::{CancelReason, CaptureMethod, Item, Order, Payment};
use crate::policy::{Asked, Progress};
use crate::refund::{Refund, RefundState};
use crate::state::State;
use kernel::{AttemptId, CaptureId, Currency, PaymentId, RefundId};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::types::{Json, Uuid};
use sqlx::{PgConnection, Row as _};

/// A payment as it was loaded, and what a write of it must know.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    pub(super) payment: Payment,
    /// How often it had been written: what the next write compares.
    pub(super) writes: i64,
    pub(super) due_at_us: Option<i64>,
    pub(super) lease_owner: Option<String>,
    /// Whether the lease had run out by the clock of the database.
    pub(super) lease_ended: bool,
}

/// All columns of a payment that are read or written; `writes` and the lease's end are the statements'.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PaymentRow {
    id: String,
    principal: String,
    order_ref: String,
    customer_ref: String,
    currency: String,
    amount_minor: i64,
    captured_minor: i64,
    refunded_minor: i64,
    items: Vec<Item>,
    charges: Charges,
    state: String,
    capture_method: String,
    payment_method: String,
    provider: String,
    last_error: Option<Failure>,
    redirect_url: Option<String>,
    closing: Option<String>,
    late_success: bool,
    ordered_at_us: Option<i64>,
    expires_at_us: Option<i64>,
    created_at_us: i64,
    updated_at_us: i64,
    version: i64,
    #[serde(skip_serializing)]
    writes: i64,
    pub(super) due_at_us: Option<i64>,
    pub(super) lease_owner: Option<String>,
}

/// An attempt's columns.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AttemptRow {
    id: String,
    payment_id: String,
    number: usize,
    payment_method: String,
    amount_minor: i64,
    state: String,
    sent_at_us: Option<i64>,
    tries: u32,
    due_at_us: i64,
    reversal_sent_at_us: Option<i64>,
    reversal_tries: u32,
    reversal_due_at_us: i64,
    taken: bool,
    look_up: bool,
    authorization_expires_at_us: Option<i64>,
    hold: String,
    reservation_id: Option<String>,
    hold_expires_at_us: Option<i64>,
    stock_tries: u32,
    stock_due_at_us: i64,
    failure: Option<Failure>,
    created_at_us: i64,
    disputes_due_at_us: Option<i64>,
    disputes_tries: u32,
}

/// A capture's columns.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CaptureRow {
    id: String,
    payment_id: String,
    number: usize,
    attempt_id: String,
    state: String,
    amount_minor: i64,
    tax_minor: i64,
    shipping_minor: i64,
    lines: Vec<Line>,
    is_final: bool,
    sent_at_us: Option<i64>,
    tries: u32,
    due_at_us: i64,
    stock: String,
    stock_tries: u32,
    stock_due_at_us: i64,
    failure: Option<Failure>,
    created_at_us: i64,
    captured_at_us: Option<i64>,
}

/// A refund's columns.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RefundRow {
    id: String,
    payment_id: String,
    number: usize,
    attempt_id: String,
    state: String,
    amount_minor: i64,
    tax_minor: i64,
    shipping_minor: i64,
    lines: Vec<Line>,
    restock: bool,
    reason: String,
    sent_at_us: Option<i64>,
    tries: u32,
    due_at_us: i64,
    stock: String,
    stock_tries: u32,
    stock_due_at_us: i64,
    failure: Option<Failure>,
    created_at_us: i64,
    updated_at_us: i64,
    look_up: bool,
    reversed_at_us: Option<i64>,
}

/// Loads a payment with everything that belongs to it, in one round trip and without a lock.
pub(super) async fn load(
    connection: &mut PgConnection,
    id: PaymentId,
) -> Result<Option<Loaded>, Error> {
    let row = sqlx::query(concat!(include_str!("load.sql"), "WHERE p.id = $1"))
        .bind(id.uuid())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(loaded).transpose()
}

/// Reads a row of `load.sql`.
pub(super) fn loaded(row: &PgRow) -> Result<Loaded, Error> {
    let Json(payment): Json<PaymentRow> = row.try_get("payment")?;
    let attempts: Option<Json<Vec<AttemptRow>>> = row.try_get("attempts")?;
    let captures: Option<Json<Vec<CaptureRow>>> = row.try_get("captures")?;
    let refunds: Option<Json<Vec<RefundRow>>> = row.try_get("refunds")?;
    let disputes: Option<Json<Vec<DisputeRow>>> = row.try_get("disputes")?;
    Ok(Loaded {
        writes: payment.writes,
        due_at_us: payment.due_at_us,
        lease_owner: payment.lease_owner.clone(),
        lease_ended: row.try_get("lease_ended")?,
        payment: Payment {
            attempts: all(attempts, AttemptRow::read)?,
            captures: all(captures, CaptureRow::read)?,
            refunds: all(refunds, RefundRow::read)?,
            disputes: all(disputes, DisputeRow::read)?,
            ..payment.read()?
        },
    })
}

fn all<R, T>(
    rows: Option<Json<Vec<R>>>,
    read: impl Fn(R) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let rows = rows.map_or_else(Vec::new, |Json(rows)| rows);
    rows.into_iter().map(read).collect()
}

impl PaymentRow {
    pub(super) fn of(payment: &Payment) -> Self {
        let order = &payment.order;
        Self {
            id: payment.id.uuid().to_string(),
            principal: order.principal.clone(),
            order_ref: order.order_ref.clone(),
            customer_ref: order.customer_ref.clone(),
            currency: order.currency.code().to_owned(),
            amount_minor: payment.amount_minor,
            captured_minor: payment.captured_minor(),
            refunded_minor: payment.refunded_minor(),
            items: order.items.clone(),
            charges: order.charges.clone(),
            state: payment.state.name().to_owned(),
            capture_method: order.capture_method.name().to_owned(),
            payment_method: order.payment_method.clone(),
            provider: order.provider.clone(),
            last_error: payment.last_error.clone(),
            redirect_url: payment.redirect_url.clone(),
            closing: payment.closing.map(|reason| reason.name().to_owned()),
            late_success: payment.late_success,
            ordered_at_us: order.ordered_at_us,
            expires_at_us: payment.expires_at_us,
            created_at_us: payment.created_at_us,
            updated_at_us: payment.updated_at_us,
            version: payment.version,
            writes: 0,
            due_at_us: None,
            lease_owner: None,
        }
    }

    /// The payment without its attempts, captures, refunds and disputes.
    fn read(self) -> Result<Payment, Error> {
        let closing = self.closing.as_deref();
        Ok(Payment {
            id: id(&self.id, PaymentId::from_uuid)?,
            order: Order {
                principal: self.principal,
                order_ref: self.order_ref,
                customer_ref: self.customer_ref,
                currency: Currency::parse(&self.currency)
                    .map_err(|_| Error::Corrupt("currency"))?,
                items: self.items,
                charges: self.charges,
                payment_method: self.payment_method,
                capture_method: match self.capture_method.as_str() {
                    "manual" => CaptureMethod::Manual,
                    _ => CaptureMethod::Automatic, // The table checks the column.
                },
                provider: self.provider,
                ordered_at_us: self.ordered_at_us,
            },
            amount_minor: self.amount_minor,
            state: State::parse(&self.state).ok_or(Error::Corrupt("state"))?,
            last_error: self.last_error,
            redirect_url: self.redirect_url,
            closing: closing
                .map(|text| CancelReason::parse(text).ok_or(Error::Corrupt("closing")))
                .transpose()?,
            late_success: self.late_success,
            attempts: Vec::new(),
            captures: Vec::new(),
            refunds: Vec::new(),
            disputes: Vec::new(),
            expires_at_us: self.expires_at_us,
            created_at_us: self.created_at_us,
            updated_at_us: self.updated_at_us,
            version: self.version,
        })
    }
}

impl AttemptRow {
    pub(super) fn of(payment: PaymentId, number: usize, attempt: &Attempt) -> Self {
        Self {
            id: attempt.id.uuid().to_string(),
            payment_id: payment.uuid().to_string(),
            number,
            payment_method: attempt.payment_method.clone(),
            amount_minor: attempt.amount_minor,
            state: attempt.state.name().to_owned(),
            sent_at_us: attempt.asked.sent_at_us,
            tries: attempt.asked.progress.tries,
            due_at_us: attempt.asked.progress.due_at_us,
            reversal_sent_at_us: attempt.reversal.sent_at_us,
            reversal_tries: attempt.reversal.progress.tries,
            reversal_due_at_us: attempt.reversal.progress.due_at_us,
            taken: attempt.taken,
            look_up: attempt.check,
            authorization_expires_at_us: attempt.authorization_expires_at_us,
            hold: attempt.hold.name().to_owned(),
            reservation_id: attempt.reservation.clone(),
            hold_expires_at_us: attempt.hold_expires_at_us,
            stock_tries: attempt.stock.tries,
            stock_due_at_us: attempt.stock.due_at_us,
            failure: attempt.failure.clone(),
            created_at_us: attempt.created_at_us,
            disputes_due_at_us: attempt.disputes.map(|progress| progress.due_at_us),
            disputes_tries: attempt.disputes.map_or(0, |progress| progress.tries),
        }
    }

    fn read(self) -> Result<Attempt, Error> {
        Ok(Attempt {
            id: id(&self.id, AttemptId::from_uuid)?,
            payment_method: self.payment_method,
            amount_minor: self.amount_minor,
            state: AttemptState::parse(&self.state).ok_or(Error::Corrupt("state"))?,
            asked: asked(self.sent_at_us, self.tries, self.due_at_us),
            reversal: asked(
                self.reversal_sent_at_us,
                self.reversal_tries,
                self.reversal_due_at_us,
            ),
            taken: self.taken,
            check: self.look_up,
            disputes: self
                .disputes_due_at_us
                .map(|due_at_us| progress(self.disputes_tries, due_at_us)),
            authorization_expires_at_us: self.authorization_expires_at_us,
            hold: Hold::parse(&self.hold).ok_or(Error::Corrupt("hold"))?,
            reservation: self.reservation_id,
            hold_expires_at_us: self.hold_expires_at_us,
            stock: progress(self.stock_tries, self.stock_due_at_us),
            failure: self.failure,
            created_at_us: self.created_at_us,
        })
    }
}

impl CaptureRow {
    pub(super) fn of(payment: PaymentId, number: usize, capture: &Capture) -> Self {
        Self {
            id: capture.id.uuid().to_string(),
            payment_id: payment.uuid().to_string(),
            number,
            attempt_id: capture.attempt.uuid().to_string(),
            state: capture.state.name().to_owned(),
            amount_minor: capture.amount_minor,
            tax_minor: tax_of(&capture.lines, capture.shipping),
            shipping_minor: capture.shipping.net_minor,
            lines: capture.lines.clone(),
            is_final: capture.is_final,
            sent_at_us: capture.asked.sent_at_us,
            tries: capture.asked.progress.tries,
            due_at_us: capture.asked.progress.due_at_us,
            stock: capture.stock.name().to_owned(),
            stock_tries: capture.stock_progress.tries,
            stock_due_at_us: capture.stock_progress.due_at_us,
            failure: capture.failure.clone(),
            created_at_us: capture.created_at_us,
            captured_at_us: capture.captured_at_us,
        }
    }

    fn read(self) -> Result<Capture, Error> {
        Ok(Capture {
            id: id(&self.id, CaptureId::from_uuid)?,
            attempt: id(&self.attempt_id, AttemptId::from_uuid)?,
            state: CaptureState::parse(&self.state).ok_or(Error::Corrupt("state"))?,
            amount_minor: self.amount_minor,
            shipping: shipping(&self.lines, self.shipping_minor, self.tax_minor),
            lines: self.lines,
            is_final: self.is_final,
            asked: asked(self.sent_at_us, self.tries, self.due_at_us),
            stock: Follow::parse(&self.stock).ok_or(Error::Corrupt("stock"))?,
            stock_progress: progress(self.stock_tries, self.stock_due_at_us),
            failure: self.failure,
            created_at_us: self.created_at_us,
            captured_at_us: self.captured_at_us,
        })
    }
}

impl RefundRow {
    pub(super) fn of(payment: PaymentId, number: usize, refund: &Refund) -> Self {
        Self {
            id: refund.id.uuid().to_string(),
            payment_id: payment.uuid().to_string(),
            number,
            attempt_id: refund.attempt.uuid().to_string(),
            state: refund.state.name().to_owned(),
            amount_minor: refund.amount_minor,
            tax_minor: tax_of(&refund.lines, refund.shipping),
            shipping_minor: refund.shipping.net_minor,
            lines: refund.lines.clone(),
            restock: refund.restock,
            reason: refund.reason.clone(),
            sent_at_us: refund.asked.sent_at_us,
            tries: refund.asked.progress.tries,
            due_at_us: refund.asked.progress.due_at_us,
            stock: refund.stock.name().to_owned(),
            stock_tries: refund.stock_progress.tries,
            stock_due_at_us: refund.stock_progress.due_at_us,
            failure: refund.failure.clone(),
            created_at_us: refund.created_at_us,
            updated_at_us: refund.updated_at_us,
            look_up: refund.check,
            reversed_at_us: refund.reversed_at_us,
        }
    }

    fn read(self) -> Result<Refund, Error> {
        Ok(Refund {
            id: id(&self.id, RefundId::from_uuid)?,
            attempt: id(&self.attempt_id, AttemptId::from_uuid)?,
            state: RefundState::parse(&self.state).ok_or(Error::Corrupt("state"))?,
            amount_minor: self.amount_minor,
            shipping: shipping(&self.lines, self.shipping_minor, self.tax_minor),
            lines: self.lines,
            restock: self.restock,
            reason: self.reason,
            asked: asked(self.sent_at_us, self.tries, self.due_at_us),
            check: self.look_up,
            reversed_at_us: self.reversed_at_us,
            stock: Follow::parse(&self.stock).ok_or(Error::Corrupt("stock"))?,
            stock_progress: progress(self.stock_tries, self.stock_due_at_us),
            failure: self.failure,
            created_at_us: self.created_at_us,
            updated_at_us: self.updated_at_us,
        })
    }
}

/// The part of shipping: its tax is what the lines do not have.
fn shipping(lines: &[Line], shipping_minor: i64, tax_minor: i64) -> Part {
    Part {
        net_minor: shipping_minor,
        tax_minor: tax_minor - tax_of(lines, Part::default()),
    }
}

pub(super) fn asked(sent_at_us: Option<i64>, tries: u32, due_at_us: i64) -> Asked {
    Asked {
        sent_at_us,
        progress: progress(tries, due_at_us),
    }
}

fn progress(tries: u32, due_at_us: i64) -> Progress {
    Progress { tries, due_at_us }
}

pub(super) fn id<T, E>(text: &str, known: impl FnOnce(Uuid) -> Result<T, E>) -> Result<T, Error> {
    let uuid = Uuid::parse_str(text).map_err(|_| Error::Corrupt("id"))?;
    known(uuid).map_err(|_| Error::Corrupt("id"))
}
