//! Money: the ledger, the payments and the provider's journal tell the same story.

use sqlx::{ConnectOptions, sqlite::SqliteConnectOptions};

use super::{Stores, Violations};

/// Each transaction's postings cancel out in each currency, and there are at least two of them.
pub async fn postings_sum_to_zero(stores: &mut Stores) -> sqlx::Result<Violations> {
    stores
        .texts(
            "SELECT transaction_id || ' sums to ' || sum(amount_minor) || ' ' || currency
             FROM ledger_postings GROUP BY transaction_id, currency HAVING sum(amount_minor) <> 0
             UNION ALL
             SELECT t.id || ' has ' || count(p.line) || ' postings'
             FROM ledger_transactions t LEFT JOIN ledger_postings p ON p.transaction_id = t.id
             GROUP BY t.id HAVING count(p.line) < 2
             UNION ALL
             SELECT 'postings of ' || transaction_id || ', which does not exist' FROM ledger_postings
             WHERE transaction_id NOT IN (SELECT id FROM ledger_transactions)",
        )
        .await
}

/// The balance of each account is the sum of its postings.
pub async fn balances_equal_their_postings(stores: &mut Stores) -> sqlx::Result<Violations> {
    stores
        .texts(
            "SELECT account || ' ' || currency || ' is ' || sum(balance) || ', its postings are ' || sum(posted)
             FROM (SELECT account, currency, balance_minor AS balance, 0 AS posted FROM ledger_balances
                   UNION ALL
                   SELECT account, currency, 0, amount_minor FROM ledger_postings)
             GROUP BY account, currency HAVING sum(balance) <> sum(posted)",
        )
        .await
}

/// The database itself refuses to change or remove what was posted: tried on a copy.
pub async fn postings_are_immutable(stores: &mut Stores) -> sqlx::Result<Violations> {
    if let Some(passed) = stores.changes_postings().await? {
        let violation = |attempt| format!("the database lets pass: {attempt}");
        return Ok(passed.into_iter().map(violation).collect());
    }
    let copy = tempfile::NamedTempFile::new_in(stores.folder()).map_err(sqlx::Error::Io)?;
    stores.copy_payments_to(copy.path()).await?;
    let mut connection = SqliteConnectOptions::new()
        .filename(copy.path())
        .foreign_keys(false)
        .connect()
        .await?;
    let mut violations = Vec::new();
    for attempt in [
        "UPDATE ledger_postings SET amount_minor = amount_minor + 1",
        "UPDATE ledger_transactions SET recorded_at_us = 0",
        "DELETE FROM ledger_postings",
        "DELETE FROM ledger_transactions",
    ] {
        let changed = sqlx::query(attempt).execute(&mut connection).await;
        if changed.is_ok_and(|changed| changed.rows_affected() > 0) {
            violations.push(format!("the database lets pass: {attempt}"));
        }
    }
    Ok(violations)
}

/// Nothing is captured beyond what was authorised nor refunded beyond what was captured: in the payments,
/// in their items, and in the provider's journal.
pub async fn captured_and_refunded_stay_within_bounds(
    stores: &mut Stores,
) -> sqlx::Result<Violations> {
    let mut violations = stores.texts(PAYMENT_BOUNDS).await?;
    violations.extend(stores.texts(ITEM_BOUNDS).await?);
    violations.extend(stores.texts(PROVIDER_BOUNDS).await?);
    Ok(violations)
}

const PAYMENT_BOUNDS: &str = "
    WITH taken AS (SELECT payment_id, sum(iif(state = 'succeeded', amount_minor, 0)) AS done,
                          sum(amount_minor) AS counted
                   FROM captures WHERE state <> 'failed' GROUP BY payment_id),
         given AS (SELECT payment_id, sum(amount_minor) AS counted
                   FROM refunds WHERE state IN ('pending', 'succeeded') GROUP BY payment_id)
    SELECT p.id || ': amount ' || amount_minor || ', captured ' || captured_minor || ' by the payment and '
           || ifnull(taken.done, 0) || ' by its captures, refunded ' || refunded_minor
           || ' by the payment and ' || ifnull(given.counted, 0) || ' by its refunds'
    FROM payments p LEFT JOIN taken ON taken.payment_id = p.id LEFT JOIN given ON given.payment_id = p.id
    WHERE captured_minor <> ifnull(taken.done, 0) OR refunded_minor <> ifnull(given.counted, 0)
       OR ifnull(taken.counted, 0) > amount_minor OR refunded_minor > captured_minor
       OR amount_minor <> (SELECT sum(value ->> 'quantity' * (value ->> 'unit_price_minor')) FROM json_each(p.items))
           - (SELECT ifnull(sum(value ->> 'came_to_minor'), 0) FROM json_each(p.charges, '$.discounts'))
           + ifnull(p.charges ->> '$.shipping.amount_minor', 0)
           + (SELECT ifnull(sum(value ->> 'came_to_minor'), 0) FROM json_each(p.charges, '$.taxes'))";

const ITEM_BOUNDS: &str = "
    WITH bought AS (SELECT p.id AS payment_id, i.value ->> 'sku' AS sku, i.value ->> 'quantity' AS quantity
                    FROM payments p, json_each(p.items) i),
         taken AS (SELECT c.payment_id, l.value ->> 'sku' AS sku, sum(l.value ->> 'quantity') AS quantity,
                          sum(l.value ->> 'amount_minor') AS amount
                   FROM captures c, json_each(c.lines) l WHERE c.state = 'succeeded' GROUP BY 1, 2),
         given AS (SELECT r.payment_id, l.value ->> 'sku' AS sku, sum(l.value ->> 'quantity') AS quantity,
                          sum(l.value ->> 'amount_minor') AS amount
                   FROM refunds r, json_each(r.lines) l WHERE r.state IN ('pending', 'succeeded')
                   GROUP BY 1, 2)
    SELECT b.payment_id || ' ' || b.sku || ': bought ' || b.quantity || ', captured '
           || ifnull(taken.quantity, 0) || ', refunded ' || ifnull(given.quantity, 0)
    FROM bought b LEFT JOIN taken USING (payment_id, sku) LEFT JOIN given USING (payment_id, sku)
    WHERE ifnull(taken.quantity, 0) > b.quantity OR ifnull(given.quantity, 0) > ifnull(taken.quantity, 0)
       OR ifnull(given.amount, 0) > ifnull(taken.amount, 0)
    UNION ALL
    SELECT payment_id || ' captured ' || sku || ', which was not bought' FROM taken
    WHERE (payment_id, sku) NOT IN (SELECT payment_id, sku FROM bought)
    UNION ALL
    SELECT payment_id || ' refunded ' || sku || ', which was not captured' FROM given
    WHERE (payment_id, sku) NOT IN (SELECT payment_id, sku FROM taken)";

const PROVIDER_BOUNDS: &str = "
    WITH charge AS (
        SELECT charge_reference,
               max(iif(operation = 'authorize' AND outcome IN ('authorized', 'captured'), amount_minor, 0)) AS authorized,
               sum(iif(outcome = 'captured', amount_minor, 0)) AS captured,
               sum(CASE outcome WHEN 'refunded' THEN amount_minor WHEN 'refund_failed' THEN -amount_minor
                   ELSE 0 END) AS refunded
        FROM provider.journal GROUP BY charge_reference)
    SELECT 'provider ' || charge_reference || ': authorised ' || authorized || ', captured ' || captured
           || ', refunded ' || refunded
    FROM charge WHERE captured > authorized OR refunded > captured";

/// Each capture and each refund that succeeded has exactly one entry of its amount, and no other has one. A refund that
/// failed after that keeps its entry and has one more that undoes it.
pub async fn every_capture_and_refund_is_booked_once(
    stores: &mut Stores,
) -> sqlx::Result<Violations> {
    stores
        .texts(
            "WITH source AS (SELECT id, 'capture' AS kind, payment_id, amount_minor FROM captures WHERE state = 'succeeded'
                             UNION ALL
                             SELECT id, 'refund', payment_id, amount_minor FROM refunds
                             WHERE state = 'succeeded' OR reversed_at_us IS NOT NULL
                             UNION ALL
                             SELECT id, 'refund_reversal', payment_id, amount_minor FROM refunds
                             WHERE reversed_at_us IS NOT NULL),
                  entry AS (SELECT t.source_id, t.kind, t.payment_id, count(DISTINCT t.id) AS entries,
                                   sum(max(p.amount_minor, 0)) AS amount_minor
                            FROM ledger_transactions t LEFT JOIN ledger_postings p ON p.transaction_id = t.id
                            WHERE t.kind IN ('capture', 'refund', 'refund_reversal')
                            GROUP BY t.source_id, t.kind, t.payment_id)
             SELECT source.kind || ' ' || source.id || ' of ' || source.amount_minor || ': '
                    || ifnull(entries, 0) || ' entries over ' || ifnull(entry.amount_minor, 0)
             FROM source LEFT JOIN entry ON entry.source_id = source.id AND entry.kind = source.kind
                                        AND entry.payment_id = source.payment_id
             WHERE ifnull(entries, 0) <> 1 OR entry.amount_minor <> source.amount_minor
             UNION ALL
             SELECT 'an entry for ' || kind || ' ' || source_id || ', which did not succeed' FROM entry
             WHERE (source_id, kind) NOT IN (SELECT id, kind FROM source)",
        )
        .await
}

/// Of the charges of an order, at most one keeps money or the right to take it. By the provider's journal;
/// payment's own rows only say whose order it is.
pub async fn one_charge_an_order(stores: &mut Stores) -> sqlx::Result<Violations> {
    stores
        .texts_now(
            "WITH charge AS (
                 SELECT charge_reference, max(order_ref) AS order_ref,
                        sum(CASE outcome WHEN 'captured' THEN amount_minor WHEN 'refunded' THEN -amount_minor
                            WHEN 'refund_failed' THEN amount_minor ELSE 0 END) AS kept,
                        max(outcome IN ('voided', 'declined', 'captured')) AS decided,
                        max(ifnull(expires_at_us, 0)) AS expires_at_us,
                        max(outcome IN ('authorized', 'pending', 'action_required')) AS open
                 FROM provider.journal GROUP BY charge_reference)
             SELECT 'order ' || charge.order_ref || ' of ' || ifnull(p.principal, 'nobody') || ' has '
                    || count(*) || ' charges: ' || group_concat(charge_reference)
             FROM charge LEFT JOIN attempts a ON a.id = charge_reference LEFT JOIN payments p ON p.id = a.payment_id
             WHERE kept > 0 OR (open AND NOT decided AND (charge.expires_at_us = 0 OR charge.expires_at_us > ?))
             GROUP BY p.principal, charge.order_ref HAVING count(*) > 1",
        )
        .await
}

/// What a payment says was taken and given back is what the provider did for its attempts; an attempt that
/// was given up leaves nothing with the provider.
pub async fn provider_and_payments_agree(stores: &mut Stores) -> sqlx::Result<Violations> {
    stores
        .texts(
            "WITH charge AS (
                 SELECT a.payment_id, sum(CASE j.outcome WHEN 'captured' THEN j.amount_minor
                                          WHEN 'refunded' THEN -j.amount_minor
                                          WHEN 'refund_failed' THEN j.amount_minor ELSE 0 END) AS kept
                 FROM provider.journal j JOIN attempts a ON a.id = j.charge_reference GROUP BY a.payment_id),
                  given AS (SELECT payment_id, sum(amount_minor) AS back FROM refunds
                            WHERE state = 'succeeded' GROUP BY payment_id)
             SELECT p.id || ' keeps ' || (captured_minor - ifnull(back, 0)) || ', the provider took '
                    || ifnull(kept, 0)
             FROM payments p LEFT JOIN charge ON charge.payment_id = p.id LEFT JOIN given ON given.payment_id = p.id
             WHERE captured_minor - ifnull(back, 0) <> ifnull(kept, 0)
             UNION ALL
             SELECT 'the provider knows ' || charge_reference || ', which no payment knows'
             FROM provider.journal WHERE charge_reference NOT IN (SELECT id FROM attempts)",
        )
        .await
}

/// Each dispute that has taken money has one entry of its amount, and one more once the money is back; no other has any.
/// What is won is back, what is an inquiry or came to nothing never moved money.
pub async fn every_dispute_is_booked_as_it_stands(stores: &mut Stores) -> sqlx::Result<Violations> {
    stores
        .texts(
            "WITH source AS (SELECT id, 'dispute' AS kind, payment_id, currency, amount_minor FROM disputes
                             WHERE withdrawn_at_us IS NOT NULL
                             UNION ALL
                             SELECT id, 'dispute_reversal', payment_id, currency, amount_minor FROM disputes
                             WHERE reinstated_at_us IS NOT NULL),
                  entry AS (SELECT t.source_id, t.kind, t.payment_id, p.currency, count(DISTINCT t.id) AS entries,
                                   sum(max(p.amount_minor, 0)) AS amount_minor
                            FROM ledger_transactions t LEFT JOIN ledger_postings p ON p.transaction_id = t.id
                            WHERE t.kind IN ('dispute', 'dispute_reversal') GROUP BY 1, 2, 3, 4)
             SELECT source.kind || ' ' || source.id || ' of ' || source.amount_minor || ': '
                    || ifnull(entries, 0) || ' entries over ' || ifnull(entry.amount_minor, 0)
             FROM source LEFT JOIN entry ON entry.source_id = source.id AND entry.kind = source.kind
                                        AND entry.payment_id = source.payment_id AND entry.currency = source.currency
             WHERE ifnull(entries, 0) <> 1 OR entry.amount_minor <> source.amount_minor
             UNION ALL
             SELECT 'an entry for ' || kind || ' ' || source_id || ', which moved no money' FROM entry
             WHERE (source_id, kind) NOT IN (SELECT id, kind FROM source)
             UNION ALL
             SELECT id || ' is ' || state || iif(withdrawn_at_us IS NULL, ', nothing was taken',
                    iif(reinstated_at_us IS NULL, ', its money was taken', ', its money is back')) FROM disputes
             WHERE (state = 'WON') <> (reinstated_at_us IS NOT NULL)
                OR (state IN ('INQUIRY', 'CLOSED')) <> (withdrawn_at_us IS NULL)",
        )
        .await
}

/// What the ledger says that the provider owes us for a payment is what its journal has for the payment's attempts: what
/// was captured, less refunds that arrived, less disputes that were not won. Fees and payouts are no part of it.
pub async fn provider_account_equals_its_journal(stores: &mut Stores) -> sqlx::Result<Violations> {
    stores
        .texts(
            "WITH moved AS (
                 SELECT t.payment_id, p.currency, p.amount_minor AS booked, 0 AS listed
                 FROM ledger_transactions t JOIN ledger_postings p ON p.transaction_id = t.id
                 WHERE p.account LIKE 'assets:provider:%' AND t.kind NOT IN ('fee', 'payout')
                 UNION ALL
                 SELECT a.payment_id, j.currency_code, 0,
                        CASE j.outcome WHEN 'captured' THEN j.amount_minor WHEN 'refund_failed' THEN j.amount_minor
                            WHEN 'won' THEN j.amount_minor WHEN 'refunded' THEN -j.amount_minor
                            WHEN 'needs_response' THEN -j.amount_minor ELSE 0 END
                 FROM provider.journal j JOIN attempts a ON a.id = j.charge_reference)
             SELECT payment_id || ': the ledger has ' || sum(booked) || ' with the provider, its journal ' || sum(listed)
             FROM moved GROUP BY payment_id, currency HAVING sum(booked) <> sum(listed)",
        )
        .await
}

/// Nobody who does not know the provider's secret was believed.
pub async fn forged_webhooks_are_refused(stores: &mut Stores) -> sqlx::Result<Violations> {
    stores
        .texts(
            "SELECT 'the forged webhook ' || event_id || ' was accepted' FROM provider.webhooks
             WHERE fault = 'forged' AND outcome = 'accepted'",
        )
        .await
}
