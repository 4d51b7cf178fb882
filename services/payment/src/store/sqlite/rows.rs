//! A payment as rows: loaded as a whole, saved where it differs from what was loaded.

use super::disputes;
use crate::attempt::{Attempt, AttemptState, Hold};
use crate::capture::{Capture, CaptureState, Follow, Line, tax_of};
use crate::charges::Part;
use crate::error::Error;
use crate::payment::{CancelReason, CaptureMethod, Order, Payment};
use crate::policy::{Asked, Progress};
use crate::refund::{Refund, RefundState};
use crate::state::State;
use kernel::{AttemptId, CaptureId, Currency, PaymentId, RefundId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use std::collections::HashMap;

/// A payment with the lease on it.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    pub(super) payment: Payment,
    pub(super) lease_owner: Option<String>,
    pub(super) lease_until_us: i64,
}

/// Loads a payment with everything that belongs to it.
pub(super) async fn load(
    connection: &mut SqliteConnection,
    id: PaymentId,
) -> Result<Option<Loaded>, Error> {
    let row = sqlx::query("SELECT * FROM payments WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let mut payment = payment(&row)?;
    load_parts(connection, std::slice::from_mut(&mut payment)).await?;
    Ok(Some(Loaded {
        payment,
        lease_owner: row.try_get("lease_owner")?,
        lease_until_us: row.try_get("lease_until_us")?,
    }))
}

/// Adds attempts, captures, refunds and disputes to payments: four queries, however many payments there are.
pub(super) async fn load_parts(
    connection: &mut SqliteConnection,
    payments: &mut [Payment],
) -> Result<(), Error> {
    let ids: Vec<String> = payments
        .iter()
        .map(|payment| payment.id.to_string())
        .collect();
    let ids = json(&ids);
    let mut places: HashMap<PaymentId, &mut Payment> = payments
        .iter_mut()
        .map(|payment| (payment.id, payment))
        .collect();
    let attempts = sqlx::query(
        "SELECT * FROM attempts WHERE payment_id IN (SELECT value FROM json_each(?)) \
         ORDER BY payment_id, number",
    )
    .bind(&ids)
    .fetch_all(&mut *connection)
    .await?;
    for row in &attempts {
        of(&mut places, row)?.attempts.push(attempt(row)?);
    }
    if attempts.is_empty() {
        return Ok(()); // Without an attempt nothing was ever captured.
    }
    let captures = sqlx::query(
        "SELECT * FROM captures WHERE payment_id IN (SELECT value FROM json_each(?)) \
         ORDER BY payment_id, number",
    )
    .bind(&ids)
    .fetch_all(&mut *connection)
    .await?;
    for row in &captures {
        of(&mut places, row)?.captures.push(capture(row)?);
    }
    let refunds = sqlx::query(
        "SELECT * FROM refunds WHERE payment_id IN (SELECT value FROM json_each(?)) \
         ORDER BY payment_id, number",
    )
    .bind(&ids)
    .fetch_all(&mut *connection)
    .await?;
    for row in &refunds {
        of(&mut places, row)?.refunds.push(refund(row)?);
    }
    for (payment, dispute) in disputes::of_payments(connection, &ids).await? {
        let place = places
            .get_mut(&payment)
            .ok_or(Error::Corrupt("payment_id"))?;
        place.disputes.push(dispute);
    }
    Ok(())
}

/// The payment that a row belongs to.
fn of<'a>(
    payments: &'a mut HashMap<PaymentId, &mut Payment>,
    row: &SqliteRow,
) -> Result<&'a mut Payment, Error> {
    let id = id(row, "payment_id", PaymentId::parse)?;
    payments
        .get_mut(&id)
        .map(|payment| &mut **payment)
        .ok_or(Error::Corrupt("payment_id"))
}

/// Inserts a new payment.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    payment: &Payment,
) -> Result<(), Error> {
    let order = &payment.order;
    sqlx::query(
        "INSERT INTO payments (id, principal, order_ref, customer_ref, currency, amount_minor, \
             captured_minor, refunded_minor, items, charges, state, capture_method, payment_method, \
             provider, late_success, ordered_at_us, created_at_us, updated_at_us, version) \
         VALUES (?, ?, ?, ?, ?, ?, 0, 0, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?)",
    )
    .bind(payment.id.to_string())
    .bind(&order.principal)
    .bind(&order.order_ref)
    .bind(&order.customer_ref)
    .bind(order.currency.code())
    .bind(payment.amount_minor)
    .bind(json(&order.items))
    .bind(json(&order.charges))
    .bind(payment.state.name())
    .bind(order.capture_method.name())
    .bind(&order.payment_method)
    .bind(&order.provider)
    .bind(order.ordered_at_us)
    .bind(payment.created_at_us)
    .bind(payment.updated_at_us)
    .bind(payment.version)
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes what differs between `before` and `after`: a compare-and-set on the version. False: the
/// version was not that of `before` any more.
pub(super) async fn save(
    connection: &mut SqliteConnection,
    before: &Payment,
    after: &Payment,
) -> Result<bool, Error> {
    let updated = sqlx::query(
        "UPDATE payments SET amount_minor = ?, captured_minor = ?, refunded_minor = ?, items = ?, charges = ?, \
             state = ?, payment_method = ?, last_error = ?, redirect_url = ?, closing = ?, \
             late_success = ?, expires_at_us = ?, updated_at_us = ?, version = ?, provider = ? \
         WHERE id = ? AND version = ?",
    )
    .bind(after.amount_minor)
    .bind(after.captured_minor())
    .bind(after.refunded_minor())
    .bind(json(&after.order.items))
    .bind(json(&after.order.charges))
    .bind(after.state.name())
    .bind(&after.order.payment_method)
    .bind(after.last_error.as_ref().map(json))
    .bind(&after.redirect_url)
    .bind(after.closing.map(CancelReason::name))
    .bind(after.late_success)
    .bind(after.expires_at_us)
    .bind(after.updated_at_us)
    .bind(after.version)
    .bind(&after.order.provider)
    .bind(after.id.to_string())
    .bind(before.version)
    .execute(&mut *connection)
    .await?;
    if updated.rows_affected() != 1 {
        return Ok(false);
    }
    for (number, attempt) in after.attempts.iter().enumerate() {
        if before.attempts.get(number) != Some(attempt) {
            save_attempt(connection, after.id, number, attempt).await?;
        }
    }
    for (number, capture) in after.captures.iter().enumerate() {
        if before.captures.get(number) != Some(capture) {
            save_capture(connection, after.id, number, capture).await?;
        }
    }
    for (number, refund) in after.refunds.iter().enumerate() {
        if before.refunds.get(number) != Some(refund) {
            save_refund(connection, after.id, number, refund).await?;
        }
    }
    for (number, dispute) in after.disputes.iter().enumerate() {
        if before.disputes.get(number) != Some(dispute) {
            disputes::save(connection, after.id, number, dispute).await?;
        }
    }
    Ok(true)
}

pub(super) async fn save_attempt(
    connection: &mut SqliteConnection,
    payment: PaymentId,
    number: usize,
    attempt: &Attempt,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT OR REPLACE INTO attempts (id, payment_id, number, payment_method, amount_minor, \
             state, sent_at_us, tries, due_at_us, reversal_sent_at_us, reversal_tries, \
             reversal_due_at_us, taken, look_up, authorization_expires_at_us, hold, \
             reservation_id, hold_expires_at_us, stock_tries, stock_due_at_us, failure, \
             created_at_us, disputes_due_at_us, disputes_tries) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(attempt.id.to_string())
    .bind(payment.to_string())
    .bind(number_of(number))
    .bind(&attempt.payment_method)
    .bind(attempt.amount_minor)
    .bind(attempt.state.name())
    .bind(attempt.asked.sent_at_us)
    .bind(attempt.asked.progress.tries)
    .bind(attempt.asked.progress.due_at_us)
    .bind(attempt.reversal.sent_at_us)
    .bind(attempt.reversal.progress.tries)
    .bind(attempt.reversal.progress.due_at_us)
    .bind(attempt.taken)
    .bind(attempt.check)
    .bind(attempt.authorization_expires_at_us)
    .bind(attempt.hold.name())
    .bind(&attempt.reservation)
    .bind(attempt.hold_expires_at_us)
    .bind(attempt.stock.tries)
    .bind(attempt.stock.due_at_us)
    .bind(attempt.failure.as_ref().map(json))
    .bind(attempt.created_at_us)
    .bind(attempt.disputes.map(|progress| progress.due_at_us))
    .bind(attempt.disputes.map_or(0, |progress| progress.tries))
    .execute(connection)
    .await?;
    Ok(())
}

async fn save_capture(
    connection: &mut SqliteConnection,
    payment: PaymentId,
    number: usize,
    capture: &Capture,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT OR REPLACE INTO captures (id, payment_id, number, attempt_id, state, \
             amount_minor, tax_minor, shipping_minor, lines, is_final, sent_at_us, tries, due_at_us, stock, \
             stock_tries, stock_due_at_us, failure, created_at_us, captured_at_us) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(capture.id.to_string())
    .bind(payment.to_string())
    .bind(number_of(number))
    .bind(capture.attempt.to_string())
    .bind(capture.state.name())
    .bind(capture.amount_minor)
    .bind(tax_of(&capture.lines, capture.shipping))
    .bind(capture.shipping.net_minor)
    .bind(json(&capture.lines))
    .bind(capture.is_final)
    .bind(capture.asked.sent_at_us)
    .bind(capture.asked.progress.tries)
    .bind(capture.asked.progress.due_at_us)
    .bind(capture.stock.name())
    .bind(capture.stock_progress.tries)
    .bind(capture.stock_progress.due_at_us)
    .bind(capture.failure.as_ref().map(json))
    .bind(capture.created_at_us)
    .bind(capture.captured_at_us)
    .execute(connection)
    .await?;
    Ok(())
}

async fn save_refund(
    connection: &mut SqliteConnection,
    payment: PaymentId,
    number: usize,
    refund: &Refund,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT OR REPLACE INTO refunds (id, payment_id, number, attempt_id, state, \
             amount_minor, tax_minor, shipping_minor, lines, restock, reason, sent_at_us, tries, due_at_us, \
             stock, stock_tries, stock_due_at_us, failure, created_at_us, updated_at_us, look_up, reversed_at_us) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(refund.id.to_string())
    .bind(payment.to_string())
    .bind(number_of(number))
    .bind(refund.attempt.to_string())
    .bind(refund.state.name())
    .bind(refund.amount_minor)
    .bind(tax_of(&refund.lines, refund.shipping))
    .bind(refund.shipping.net_minor)
    .bind(json(&refund.lines))
    .bind(refund.restock)
    .bind(&refund.reason)
    .bind(refund.asked.sent_at_us)
    .bind(refund.asked.progress.tries)
    .bind(refund.asked.progress.due_at_us)
    .bind(refund.stock.name())
    .bind(refund.stock_progress.tries)
    .bind(refund.stock_progress.due_at_us)
    .bind(refund.failure.as_ref().map(json))
    .bind(refund.created_at_us)
    .bind(refund.updated_at_us)
    .bind(refund.check)
    .bind(refund.reversed_at_us)
    .execute(connection)
    .await?;
    Ok(())
}

/// A payment without its attempts, captures, refunds and disputes.
pub(super) fn payment(row: &SqliteRow) -> Result<Payment, Error> {
    let currency: String = row.try_get("currency")?;
    let capture_method: String = row.try_get("capture_method")?;
    let closing: Option<String> = row.try_get("closing")?;
    Ok(Payment {
        id: id(row, "id", PaymentId::parse)?,
        order: Order {
            principal: row.try_get("principal")?,
            order_ref: row.try_get("order_ref")?,
            customer_ref: row.try_get("customer_ref")?,
            currency: Currency::parse(&currency).map_err(|_| Error::Corrupt("currency"))?,
            items: document(row, "items")?.ok_or(Error::Corrupt("items"))?,
            charges: document(row, "charges")?.ok_or(Error::Corrupt("charges"))?,
            payment_method: row.try_get("payment_method")?,
            capture_method: match capture_method.as_str() {
                "manual" => CaptureMethod::Manual,
                _ => CaptureMethod::Automatic, // The table checks the column.
            },
            provider: row.try_get("provider")?,
            ordered_at_us: row.try_get("ordered_at_us")?,
        },
        amount_minor: row.try_get("amount_minor")?,
        state: name(row, "state", State::parse)?,
        last_error: document(row, "last_error")?,
        redirect_url: row.try_get("redirect_url")?,
        closing: closing
            .map(|text| CancelReason::parse(&text).ok_or(Error::Corrupt("closing")))
            .transpose()?,
        late_success: row.try_get("late_success")?,
        attempts: Vec::new(),
        captures: Vec::new(),
        refunds: Vec::new(),
        disputes: Vec::new(),
        expires_at_us: row.try_get("expires_at_us")?,
        created_at_us: row.try_get("created_at_us")?,
        updated_at_us: row.try_get("updated_at_us")?,
        version: row.try_get("version")?,
    })
}

fn attempt(row: &SqliteRow) -> Result<Attempt, Error> {
    Ok(Attempt {
        id: id(row, "id", AttemptId::parse)?,
        payment_method: row.try_get("payment_method")?,
        amount_minor: row.try_get("amount_minor")?,
        state: name(row, "state", AttemptState::parse)?,
        asked: asked(row)?,
        reversal: Asked {
            sent_at_us: row.try_get("reversal_sent_at_us")?,
            progress: progress(row, "reversal_tries", "reversal_due_at_us")?,
        },
        taken: row.try_get("taken")?,
        check: row.try_get("look_up")?,
        disputes: match row.try_get("disputes_due_at_us")? {
            None => None,
            Some(due_at_us) => Some(Progress {
                tries: row.try_get("disputes_tries")?,
                due_at_us,
            }),
        },
        authorization_expires_at_us: row.try_get("authorization_expires_at_us")?,
        hold: name(row, "hold", Hold::parse)?,
        reservation: row.try_get("reservation_id")?,
        hold_expires_at_us: row.try_get("hold_expires_at_us")?,
        stock: progress(row, "stock_tries", "stock_due_at_us")?,
        failure: document(row, "failure")?,
        created_at_us: row.try_get("created_at_us")?,
    })
}

fn capture(row: &SqliteRow) -> Result<Capture, Error> {
    let (lines, shipping) = lines(row)?;
    Ok(Capture {
        id: id(row, "id", CaptureId::parse)?,
        attempt: id(row, "attempt_id", AttemptId::parse)?,
        state: name(row, "state", CaptureState::parse)?,
        amount_minor: row.try_get("amount_minor")?,
        lines,
        shipping,
        is_final: row.try_get("is_final")?,
        asked: asked(row)?,
        stock: name(row, "stock", Follow::parse)?,
        stock_progress: progress(row, "stock_tries", "stock_due_at_us")?,
        failure: document(row, "failure")?,
        created_at_us: row.try_get("created_at_us")?,
        captured_at_us: row.try_get("captured_at_us")?,
    })
}

fn refund(row: &SqliteRow) -> Result<Refund, Error> {
    let (lines, shipping) = lines(row)?;
    Ok(Refund {
        id: id(row, "id", RefundId::parse)?,
        attempt: id(row, "attempt_id", AttemptId::parse)?,
        state: name(row, "state", RefundState::parse)?,
        amount_minor: row.try_get("amount_minor")?,
        lines,
        shipping,
        restock: row.try_get("restock")?,
        reason: row.try_get("reason")?,
        asked: asked(row)?,
        check: row.try_get("look_up")?,
        reversed_at_us: row.try_get("reversed_at_us")?,
        stock: name(row, "stock", Follow::parse)?,
        stock_progress: progress(row, "stock_tries", "stock_due_at_us")?,
        failure: document(row, "failure")?,
        created_at_us: row.try_get("created_at_us")?,
        updated_at_us: row.try_get("updated_at_us")?,
    })
}

/// The lines of a capture or refund, and its part of shipping, whose tax is what the lines do not have.
fn lines(row: &SqliteRow) -> Result<(Vec<Line>, Part), Error> {
    let lines: Vec<Line> = document(row, "lines")?.ok_or(Error::Corrupt("lines"))?;
    let tax_minor: i64 = row.try_get("tax_minor")?;
    let shipping = Part {
        net_minor: row.try_get("shipping_minor")?,
        tax_minor: tax_minor - tax_of(&lines, Part::default()),
    };
    Ok((lines, shipping))
}

pub(super) fn asked(row: &SqliteRow) -> Result<Asked, Error> {
    Ok(Asked {
        sent_at_us: row.try_get("sent_at_us")?,
        progress: progress(row, "tries", "due_at_us")?,
    })
}

fn progress(row: &SqliteRow, tries: &str, due_at_us: &str) -> Result<Progress, Error> {
    Ok(Progress {
        tries: row.try_get(tries)?,
        due_at_us: row.try_get(due_at_us)?,
    })
}

pub(super) fn id<T, E>(
    row: &SqliteRow,
    column: &'static str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, Error> {
    let text: String = row.try_get(column)?;
    parse(&text).map_err(|_| Error::Corrupt(column))
}

pub(super) fn name<T>(
    row: &SqliteRow,
    column: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, Error> {
    let text: String = row.try_get(column)?;
    parse(&text).ok_or(Error::Corrupt(column))
}

pub(super) fn document<T: DeserializeOwned>(
    row: &SqliteRow,
    column: &'static str,
) -> Result<Option<T>, Error> {
    let text: Option<String> = row.try_get(column)?;
    text.map(|text| serde_json::from_str(&text).map_err(|_| Error::Corrupt(column)))
        .transpose()
}

/// A value as JSON; a list of ids is bound as one value.
pub(super) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("texts and numbers are JSON")
}

pub(super) fn number_of(index: usize) -> i64 {
    i64::try_from(index).expect("a payment has a handful of parts")
}
