//! What a change leaves behind, written in its transaction.

use crate::error::Error;
use crate::fact::Effects;
use crate::ledger::Transaction;
use crate::payment::Payment;
use crate::sales::SaleLine;
use crate::store::{Begun, outcome};
use crate::wire;
use kernel::PaymentId;
use mesh_store::sqlite::{idempotency, outbox};
use sqlx::SqliteConnection;

/// How many rows an account's balance in one currency is spread over.
const STRIPES: u128 = 16;

/// Writes history, books, sales, events and, where clients see a difference, the log of changes.
pub(super) async fn write(
    connection: &mut SqliteConnection,
    before: Option<&Payment>,
    after: &Payment,
    effects: &Effects,
    now_us: i64,
) -> Result<(), Error> {
    for moved in &effects.moves {
        sqlx::query(
            "INSERT INTO payment_history (payment_id, version, from_state, to_state, at_us) \
             VALUES (?, ?, ?, ?, ?)",
        )
        .bind(after.id.to_string())
        .bind(moved.version)
        .bind(moved.from.map(crate::state::State::name))
        .bind(moved.to.name())
        .bind(now_us)
        .execute(&mut *connection)
        .await?;
    }
    for entry in &effects.entries {
        write_entry(connection, entry).await?;
    }
    for line in &effects.sales {
        write_sale(connection, after.id, line).await?;
    }
    for event in outcome::events(after, effects, now_us) {
        outbox::append(connection, &event, now_us).await?;
    }
    write_change(connection, before, after, now_us).await
}

pub(super) async fn write_entry(
    connection: &mut SqliteConnection,
    entry: &Transaction,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO ledger_transactions (id, kind, payment_id, source_id, recorded_at_us) \
         VALUES (?, ?, ?, ?, ?)",
    )
    .bind(entry.id().to_string())
    .bind(entry.source().kind())
    .bind(entry.payment().map(|payment| payment.to_string()))
    .bind(entry.source().to_string())
    .bind(entry.recorded_at_us())
    .execute(&mut *connection)
    .await?;
    let stripe = i64::try_from(entry.stripe(STRIPES)).expect("below 16");
    for (line, posting) in (0_i64..).zip(entry.postings()) {
        let (account, code) = (
            posting.account.to_string(),
            posting.amount.currency().code(),
        );
        sqlx::query(
            "INSERT INTO ledger_postings (transaction_id, line, account, currency, amount_minor) \
             VALUES (?, ?, ?, ?, ?)",
        )
        .bind(entry.id().to_string())
        .bind(line)
        .bind(&account)
        .bind(code)
        .bind(posting.amount.amount_minor())
        .execute(&mut *connection)
        .await?;
        sqlx::query(
            "INSERT INTO ledger_balances (account, currency, stripe, balance_minor) \
             VALUES (?, ?, ?, ?) ON CONFLICT (account, currency, stripe) \
             DO UPDATE SET balance_minor = balance_minor + excluded.balance_minor",
        )
        .bind(&account)
        .bind(code)
        .bind(stripe)
        .bind(posting.amount.amount_minor())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

async fn write_sale(
    connection: &mut SqliteConnection,
    payment: PaymentId,
    line: &SaleLine,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO sales_lines (source_id, sku, kind, payment_id, day, category, product_id, \
             currency, quantity, amount_minor) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&line.source)
    .bind(&line.sku)
    .bind(line.kind.name())
    .bind(payment.to_string())
    .bind(&line.day)
    .bind(&line.category)
    .bind(&line.product_id)
    .bind(line.currency.code())
    .bind(line.kind.sign() * i64::from(line.quantity))
    .bind(line.kind.sign() * line.amount_minor)
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_change(
    connection: &mut SqliteConnection,
    before: Option<&Payment>,
    after: &Payment,
    now_us: i64,
) -> Result<(), Error> {
    let Some(body) = outcome::change(before, after) else {
        return Ok(());
    };
    sqlx::query(
        "INSERT INTO payment_changes (payment_id, principal, body, at_us) VALUES (?, ?, ?, ?)",
    )
    .bind(after.id.to_string())
    .bind(&after.order.principal)
    .bind(body)
    .bind(now_us)
    .execute(connection)
    .await?;
    Ok(())
}

/// Answers every command on a payment that is still open, as the payment is now.
pub(super) async fn answer_open(
    connection: &mut SqliteConnection,
    payment: &Payment,
    now_us: i64,
) -> Result<(), Error> {
    for pending in idempotency::in_flight_for(connection, &payment.id.to_string()).await? {
        let answer = wire::answer(&pending.key.method, payment, None);
        idempotency::complete(connection, &pending.key, &answer, now_us).await?;
    }
    let refunds = payment.refunds.iter().map(|of| Begun::Refund(of.id));
    let responses = payment.disputes.iter().map(|of| Begun::Response(of.id));
    for begun in refunds.chain(responses) {
        for pending in idempotency::in_flight_for(connection, &begun.to_string()).await? {
            let answer = wire::answer(&pending.key.method, payment, Some(begun));
            idempotency::complete(connection, &pending.key, &answer, now_us).await?;
        }
    }
    Ok(())
}
