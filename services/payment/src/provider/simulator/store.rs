//! The simulator's journal in SQLite: a file of its own, which shares no transaction with payment's
//! database. All SQL of the simulator is here, in one file, since all of it is about the same few tables.

use super::entry::{Command, Entry, Operation, Outcome};
use super::fault::{Fault, WebhookFault};
use super::settlement::Movement;
use super::webhook::{Delivered, Planned, Queued};
use crate::provider::{Authorize, Capture, Refund, Void};
use futures_util::TryStreamExt as _;
use kernel::day::DAY_US;
use kernel::{Currency, Money};
use mesh_store::{OpenError, Reads, Sqlite, SqliteConfig};
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

static MIGRATIONS: Migrator = sqlx::migrate!("src/provider/simulator/migrations");

/// How much is read at once where the amount of rows is not bounded by a charge.
pub(super) const ROWS_MAX: i64 = 200;

const COLUMNS: &str = "sequence, recorded_at_us, operation, reference, charge_reference, order_ref, \
    payment_method, currency_code, amount_minor, at_once, last, outcome, code, expires_at_us, due_at_us";

pub(super) async fn open(config: &SqliteConfig) -> Result<Sqlite, OpenError> {
    Sqlite::open(config, &MIGRATIONS).await
}

/// The entries of a charge, and those under a reference, oldest first.
pub(super) async fn entries(
    connection: &mut SqliteConnection,
    charge_reference: &str,
    reference: &str,
) -> Result<Vec<Entry>, sqlx::Error> {
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM journal WHERE charge_reference = ? OR reference = ? ORDER BY sequence"
    ));
    let rows = sqlx::query(sql)
        .bind(charge_reference)
        .bind(reference)
        .fetch_all(connection)
        .await?;
    rows.iter().map(entry).collect()
}

/// The newest entry of a capture or refund.
pub(super) async fn newest_settlement(
    reads: Reads<'_, sqlx::Sqlite>,
    reference: &str,
) -> Result<Option<Entry>, sqlx::Error> {
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM journal WHERE reference = ? AND operation IN ('capture', 'refund') \
         ORDER BY sequence DESC LIMIT 1"
    ));
    let row = sqlx::query(sql)
        .bind(reference)
        .fetch_optional(reads)
        .await?;
    row.as_ref().map(entry).transpose()
}

/// Entries that moved money, with their places, after the place given.
pub(super) async fn movements(
    reads: Reads<'_, sqlx::Sqlite>,
    after: i64,
) -> Result<Vec<(i64, Entry)>, sqlx::Error> {
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM journal WHERE sequence > ? AND outcome IN \
             ('captured', 'refunded', 'refund_failed', 'needs_response', 'won') \
         ORDER BY sequence LIMIT ?"
    ));
    let rows = sqlx::query(sql)
        .bind(after)
        .bind(ROWS_MAX)
        .fetch_all(reads)
        .await?;
    rows.iter()
        .map(|row| Ok((row.try_get("sequence")?, entry(row)?)))
        .collect()
}

/// The last place before a time; 0: the journal begins later.
pub(super) async fn before(reads: Reads<'_, sqlx::Sqlite>, at_us: i64) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT COALESCE((SELECT MIN(sequence) - 1 FROM journal WHERE recorded_at_us >= ?), \
             (SELECT MAX(sequence) FROM journal), 0)",
    )
    .bind(at_us)
    .fetch_one(reads)
    .await
}

/// The number of the first day, from one on, on which money moved.
pub(super) async fn first_day(
    reads: Reads<'_, sqlx::Sqlite>,
    day: i64,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT MIN(recorded_at_us) / ?1 FROM journal WHERE recorded_at_us >= ?2 \
         AND outcome IN ('captured', 'refunded', 'refund_failed', 'needs_response', 'won')",
    )
    .bind(DAY_US)
    .bind(day.saturating_mul(DAY_US))
    .fetch_one(reads)
    .await
}

/// Every movement of some days, one after the other: there may be any number.
pub(super) async fn each_movement(
    reads: Reads<'_, sqlx::Sqlite>,
    first: i64,
    end: i64,
    mut each: impl FnMut(Movement) + Send,
) -> Result<(), sqlx::Error> {
    let mut rows = sqlx::query(
        "SELECT recorded_at_us, outcome, currency_code, amount_minor FROM journal \
         WHERE recorded_at_us >= ? AND recorded_at_us < ? \
         AND outcome IN ('captured', 'refunded', 'refund_failed', 'needs_response', 'won')",
    )
    .bind(first.saturating_mul(DAY_US))
    .bind(end.saturating_mul(DAY_US))
    .fetch(reads);
    while let Some(row) = rows.try_next().await? {
        let kind = super::moved(named(&row, "outcome", OUTCOMES, outcome_name)?);
        let amount = amount(&row)?;
        each(Movement {
            kind,
            recorded_at_us: row.try_get("recorded_at_us")?,
            amount: if kind.sign() < 0 {
                amount.negated()
            } else {
                amount
            },
        });
    }
    Ok(())
}

/// The charge that a dispute is about.
pub(super) async fn charge_of_dispute(
    reads: Reads<'_, sqlx::Sqlite>,
    dispute_ref: &str,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT charge_reference FROM journal WHERE operation = 'dispute' AND reference = ? LIMIT 1",
    )
    .bind(dispute_ref)
    .fetch_optional(reads)
    .await
}

/// Charges that are pending although their time has come, and those about which a bank does something by now.
pub(super) async fn due_charges(
    reads: Reads<'_, sqlx::Sqlite>,
    now_us: i64,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT charge_reference FROM journal AS pending \
         WHERE outcome = 'pending' AND due_at_us <= ?1 AND NOT EXISTS ( \
             SELECT 1 FROM journal AS later \
             WHERE later.charge_reference = pending.charge_reference \
                 AND later.sequence > pending.sequence AND later.operation IN ('authorize', 'void')) \
         UNION ALL \
         SELECT charge_reference FROM journal AS waiting \
         WHERE outcome IN ('scheduled', 'inquiry', 'needs_response', 'under_review') AND due_at_us <= ?1 \
             AND NOT EXISTS (SELECT 1 FROM journal AS later \
                 WHERE later.reference = waiting.reference AND later.operation = waiting.operation \
                     AND later.sequence > waiting.sequence) \
         LIMIT ?2",
    )
    .bind(now_us)
    .bind(ROWS_MAX)
    .fetch_all(reads)
    .await
}

pub(super) async fn append(
    connection: &mut SqliteConnection,
    entry: &Entry,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO journal (recorded_at_us, operation, reference, charge_reference, order_ref, \
             payment_method, currency_code, amount_minor, at_once, last, outcome, code, \
             expires_at_us, due_at_us) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(entry.recorded_at_us)
    .bind(operation_name(entry.operation))
    .bind(&entry.reference)
    .bind(&entry.charge_reference)
    .bind(&entry.order_ref)
    .bind(&entry.payment_method)
    .bind(entry.amount.currency().code())
    .bind(entry.amount.amount_minor())
    .bind(entry.at_once)
    .bind(entry.last)
    .bind(outcome_name(entry.outcome))
    .bind(&entry.code)
    .bind(entry.expires_at_us)
    .bind(entry.due_at_us)
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes that a request was lost; false: it was before.
pub(super) async fn interrupt(
    connection: &mut SqliteConnection,
    reference: &str,
) -> Result<bool, sqlx::Error> {
    let noted =
        sqlx::query("INSERT INTO interruptions (reference) VALUES (?) ON CONFLICT DO NOTHING")
            .bind(reference)
            .execute(connection)
            .await?;
    Ok(noted.rows_affected() == 1)
}

/// Notes a fault that was brought about.
pub(super) async fn note_fault(
    connection: &mut SqliteConnection,
    command: &Command,
    fault: Fault,
    now_us: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO faults (recorded_at_us, operation, reference, fault) VALUES (?, ?, ?, ?)",
    )
    .bind(now_us)
    .bind(operation_name(command.operation()))
    .bind(command.reference())
    .bind(fault.name())
    .execute(connection)
    .await?;
    Ok(())
}

/// Keeps a request that is held up until it arrives.
pub(super) async fn hold_up(
    connection: &mut SqliteConnection,
    command: &Command,
    due_at_us: i64,
) -> Result<(), sqlx::Error> {
    let (order_ref, payment_method, amount, at_once, last) = match command {
        Command::Authorize(request) => (
            request.order_ref.as_str(),
            request.payment_method.as_str(),
            Some(request.amount),
            request.capture,
            false,
        ),
        Command::Capture(request) => ("", "", Some(request.amount), false, request.last),
        Command::Void(_) => ("", "", None, false, false),
        Command::Refund(request) => ("", "", Some(request.amount), false, false),
    };
    sqlx::query(
        "INSERT INTO arrivals (due_at_us, operation, reference, charge_reference, order_ref, \
             payment_method, currency_code, amount_minor, at_once, last) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(due_at_us)
    .bind(operation_name(command.operation()))
    .bind(command.reference())
    .bind(command.charge_reference())
    .bind(order_ref)
    .bind(payment_method)
    .bind(amount.map_or("", |amount| amount.currency().code()))
    .bind(amount.map_or(0, Money::amount_minor))
    .bind(at_once)
    .bind(last)
    .execute(connection)
    .await?;
    Ok(())
}

/// Requests that arrive by now, with their places, in the order in which they do.
pub(super) async fn arrivals(
    reads: Reads<'_, sqlx::Sqlite>,
    now_us: i64,
) -> Result<Vec<(i64, Command)>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT sequence, operation, reference, charge_reference, order_ref, payment_method, \
             currency_code, amount_minor, at_once, last \
         FROM arrivals WHERE due_at_us <= ? ORDER BY due_at_us, sequence LIMIT ?",
    )
    .bind(now_us)
    .bind(ROWS_MAX)
    .fetch_all(reads)
    .await?;
    rows.iter()
        .map(|row| Ok((row.try_get("sequence")?, arrival(row)?)))
        .collect()
}

fn arrival(row: &SqliteRow) -> Result<Command, sqlx::Error> {
    let reference = row.try_get("reference")?;
    let charge_reference = row.try_get("charge_reference")?;
    let operation = named(row, "operation", OPERATIONS, operation_name)?;
    if operation == Operation::Void {
        return Ok(Command::Void(Void { charge_reference }));
    }
    let amount = amount(row)?;
    Ok(match operation {
        Operation::Authorize => Command::Authorize(Authorize {
            reference,
            payment_reference: String::new(), // The journal has no customers either.
            amount,
            payment_method: row.try_get("payment_method")?,
            order_ref: row.try_get("order_ref")?,
            capture: row.try_get("at_once")?,
        }),
        Operation::Capture => Command::Capture(Capture {
            reference,
            charge_reference,
            amount,
            last: row.try_get("last")?,
        }),
        Operation::Void | Operation::Refund | Operation::Dispute | Operation::Evidence => {
            Command::Refund(Refund {
                reference,
                charge_reference,
                amount,
            })
        }
    })
}

/// A request has arrived.
pub(super) async fn arrived(
    connection: &mut SqliteConnection,
    sequence: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM arrivals WHERE sequence = ?")
        .bind(sequence)
        .execute(connection)
        .await?;
    Ok(())
}

/// Puts a webhook at the end of the queue, or notes that it is lost.
pub(super) async fn queue_webhook(
    connection: &mut SqliteConnection,
    webhook: &Planned,
) -> Result<(), sqlx::Error> {
    let lost = webhook.fault == Some(WebhookFault::Lost);
    sqlx::query(
        "INSERT INTO webhooks (event_id, body, due_at_us, fault, outcome) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(&webhook.event_id)
    .bind(&webhook.body)
    .bind(webhook.due_at_us)
    .bind(webhook.fault.map_or("none", WebhookFault::name))
    .bind(if lost { "lost" } else { "waiting" })
    .execute(connection)
    .await?;
    Ok(())
}

/// Webhooks whose time has come, in the order in which they are to be sent.
pub(super) async fn due_webhooks(
    reads: Reads<'_, sqlx::Sqlite>,
    now_us: i64,
) -> Result<Vec<Queued>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT sequence, body, failures, fault FROM webhooks \
         WHERE outcome = 'waiting' AND due_at_us <= ? ORDER BY due_at_us, sequence LIMIT ?",
    )
    .bind(now_us)
    .bind(ROWS_MAX)
    .fetch_all(reads)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Queued {
                sequence: row.try_get("sequence")?,
                body: row.try_get("body")?,
                failures: row.try_get("failures")?,
                forged: row.try_get::<&str, _>("fault")? == WebhookFault::Forged.name(),
            })
        })
        .collect()
}

/// Takes a webhook from the queue, with what became of it.
pub(super) async fn end_webhook(
    connection: &mut SqliteConnection,
    sequence: i64,
    delivered: Delivered,
) -> Result<(), sqlx::Error> {
    let outcome = match delivered {
        Delivered::Accepted => "accepted",
        Delivered::Refused => "refused",
    };
    sqlx::query("UPDATE webhooks SET outcome = ? WHERE sequence = ?")
        .bind(outcome)
        .bind(sequence)
        .execute(connection)
        .await?;
    Ok(())
}

/// Puts a webhook off after it could not be delivered.
pub(super) async fn postpone_webhook(
    connection: &mut SqliteConnection,
    sequence: i64,
    due_at_us: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE webhooks SET failures = failures + 1, due_at_us = ? WHERE sequence = ?")
        .bind(due_at_us)
        .bind(sequence)
        .execute(connection)
        .await?;
    Ok(())
}

fn entry(row: &SqliteRow) -> Result<Entry, sqlx::Error> {
    let amount = amount(row)?;
    Ok(Entry {
        recorded_at_us: row.try_get("recorded_at_us")?,
        operation: named(row, "operation", OPERATIONS, operation_name)?,
        reference: row.try_get("reference")?,
        charge_reference: row.try_get("charge_reference")?,
        order_ref: row.try_get("order_ref")?,
        payment_method: row.try_get("payment_method")?,
        amount,
        at_once: row.try_get("at_once")?,
        last: row.try_get("last")?,
        outcome: named(row, "outcome", OUTCOMES, outcome_name)?,
        code: row.try_get("code")?,
        expires_at_us: row.try_get("expires_at_us")?,
        due_at_us: row.try_get("due_at_us")?,
    })
}

fn amount(row: &SqliteRow) -> Result<Money, sqlx::Error> {
    let currency: &str = row.try_get("currency_code")?;
    let currency = Currency::parse(currency).map_err(|error| sqlx::Error::Decode(error.into()))?;
    Money::new(currency, row.try_get("amount_minor")?)
        .map_err(|error| sqlx::Error::Decode(error.into()))
}

fn named<T: Copy>(
    row: &SqliteRow,
    column: &str,
    values: &[T],
    name: fn(T) -> &'static str,
) -> Result<T, sqlx::Error> {
    let text: &str = row.try_get(column)?;
    values
        .iter()
        .copied()
        .find(|value| name(*value) == text)
        .ok_or_else(|| sqlx::Error::Decode(format!("{column} is {text:?}").into()))
}

const OPERATIONS: &[Operation] = &[
    Operation::Authorize,
    Operation::Capture,
    Operation::Void,
    Operation::Refund,
    Operation::Dispute,
    Operation::Evidence,
];

const OUTCOMES: &[Outcome] = &[
    Outcome::Authorized,
    Outcome::Captured,
    Outcome::ActionRequired,
    Outcome::Pending,
    Outcome::Declined,
    Outcome::Voided,
    Outcome::Refunded,
    Outcome::RefundFailed,
    Outcome::Scheduled,
    Outcome::Inquiry,
    Outcome::NeedsResponse,
    Outcome::UnderReview,
    Outcome::Won,
    Outcome::Lost,
    Outcome::Closed,
    Outcome::Submitted,
];

fn operation_name(operation: Operation) -> &'static str {
    match operation {
        Operation::Authorize => "authorize",
        Operation::Capture => "capture",
        Operation::Void => "void",
        Operation::Refund => "refund",
        Operation::Dispute => "dispute",
        Operation::Evidence => "evidence",
    }
}

pub(super) fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Authorized => "authorized",
        Outcome::Captured => "captured",
        Outcome::ActionRequired => "action_required",
        Outcome::Pending => "pending",
        Outcome::Declined => "declined",
        Outcome::Voided => "voided",
        Outcome::Refunded => "refunded",
        Outcome::RefundFailed => "refund_failed",
        Outcome::Scheduled => "scheduled",
        Outcome::Inquiry => "inquiry",
        Outcome::NeedsResponse => "needs_response",
        Outcome::UnderReview => "under_review",
        Outcome::Won => "won",
        Outcome::Lost => "lost",
        Outcome::Closed => "closed",
        Outcome::Submitted => "submitted",
    }
}
