//! What must hold of every payment once nothing is left to do, from the tables, the catalogue and
//! the provider's own books.

use super::World;
use crate::provider::{Provider as _, TransactionKind};
use sqlx::Row as _;
use std::collections::BTreeMap;

impl World {
    /// Panics with the first thing that does not hold.
    pub(crate) async fn check(&self) {
        self.counts_nothing(
            "postings that do not sum to zero",
            "SELECT transaction_id FROM ledger_postings GROUP BY transaction_id, currency \
             HAVING SUM(amount_minor) <> 0",
        )
        .await;
        self.counts_nothing(
            "balances that are not the sum of their postings",
            "SELECT account FROM (SELECT account, currency, SUM(amount_minor) AS sum \
                 FROM ledger_postings GROUP BY account, currency) AS postings \
             LEFT JOIN (SELECT account, currency, SUM(balance_minor) AS sum \
                 FROM ledger_balances GROUP BY account, currency) AS balances \
             USING (account, currency) WHERE balances.sum IS NOT postings.sum",
        )
        .await;
        self.counts_nothing(
            "captures and refunds without exactly one entry",
            "SELECT id FROM (SELECT id, state FROM captures UNION ALL SELECT id, state FROM refunds) AS parts \
             WHERE (state = 'succeeded') <> \
                 (SELECT COUNT(*) FROM ledger_transactions WHERE source_id = parts.id)",
        )
        .await;
        self.counts_nothing(
            "moves that do not follow each other",
            "SELECT a.payment_id FROM payment_history a WHERE a.from_state IS NOT \
                 (SELECT b.to_state FROM payment_history b WHERE b.payment_id = a.payment_id \
                  AND b.version < a.version ORDER BY b.version DESC LIMIT 1)",
        )
        .await;
        self.counts_nothing(
            "payments in another state than their last move says",
            "SELECT id FROM payments WHERE state IS NOT (SELECT to_state FROM payment_history \
                 WHERE payment_id = id ORDER BY version DESC LIMIT 1)",
        )
        .await;
        self.counts_nothing(
            "keys in flight",
            "SELECT request_id FROM mesh_idempotency WHERE answer IS NULL",
        )
        .await;
        self.counts_nothing(
            "captures and refunds without the sales that they are",
            "SELECT id FROM (SELECT id, amount_minor, state FROM captures \
                 UNION ALL SELECT id, -amount_minor, state FROM refunds) AS parts \
             WHERE CASE state WHEN 'succeeded' THEN amount_minor ELSE 0 END <> \
                 (SELECT IFNULL(SUM(amount_minor), 0) FROM sales_lines WHERE source_id = id)",
        )
        .await;
        self.counts_nothing(
            "captures and refunds without exactly one event",
            "SELECT kind FROM (SELECT \
                 (SELECT COUNT(*) FROM captures WHERE state = 'succeeded') AS captures, \
                 (SELECT COUNT(*) FROM mesh_outbox WHERE kind = 'payment.PaymentCaptured.v1') AS captured, \
                 (SELECT COUNT(*) FROM refunds WHERE state = 'succeeded') AS refunds, \
                 (SELECT COUNT(*) FROM mesh_outbox WHERE kind = 'payment.RefundSucceeded.v1') AS refunded, \
                 'event' AS kind) WHERE captures <> captured OR refunds <> refunded",
        )
        .await;
        self.check_provider().await;
        self.check_stock().await;
    }

    async fn counts_nothing(&self, what: &str, sql: &'static str) {
        let found = sqlx::query(sql)
            .fetch_all(self.sqlite.reader())
            .await
            .unwrap();
        let ids: Vec<String> = found.iter().map(|row| row.get(0)).collect();
        assert!(ids.is_empty(), "{what}: {ids:?}");
    }

    /// What the provider took of each attempt, less what it gave back, is what the payment says.
    async fn check_provider(&self) {
        let mut net: BTreeMap<String, i64> = BTreeMap::new();
        let mut from = None;
        loop {
            let page = self.simulator.transactions(from.as_deref()).await.unwrap();
            for transaction in page.transactions {
                let sign = match transaction.kind {
                    TransactionKind::Capture => 1,
                    TransactionKind::Refund => -1,
                };
                let amount_minor = transaction.amount.amount_minor();
                *net.entry(transaction.charge_reference).or_default() += sign * amount_minor;
            }
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        let attempts = sqlx::query(
            "SELECT a.id, (SELECT IFNULL(SUM(amount_minor), 0) FROM captures \
                 WHERE attempt_id = a.id AND state = 'succeeded') \
             - (SELECT IFNULL(SUM(amount_minor), 0) FROM refunds \
                 WHERE attempt_id = a.id AND state = 'succeeded') AS kept FROM attempts a",
        )
        .fetch_all(self.sqlite.reader())
        .await
        .unwrap();
        for row in attempts {
            let (id, kept): (String, i64) = (row.get("id"), row.get("kept"));
            assert_eq!(
                net.remove(&id).unwrap_or(0),
                kept,
                "money kept of attempt {id}"
            );
        }
        net.retain(|_, amount| *amount != 0);
        assert!(
            net.is_empty(),
            "charges that payment knows nothing of: {net:?}"
        );
    }

    /// What left the stock for each payment is what was captured, and what came back was asked for.
    async fn check_stock(&self) {
        let lines = sqlx::query(
            "SELECT p.id, p.state, i.value ->> 'sku' AS sku, \
                 (SELECT IFNULL(SUM(l.value ->> 'quantity'), 0) FROM captures c, json_each(c.lines) l \
                  WHERE c.payment_id = p.id AND c.stock = 'done' \
                      AND l.value ->> 'sku' = i.value ->> 'sku') AS captured, \
                 (SELECT IFNULL(SUM(l.value ->> 'quantity'), 0) FROM refunds r, json_each(r.lines) l \
                  WHERE r.payment_id = p.id AND r.stock = 'done' \
                      AND l.value ->> 'sku' = i.value ->> 'sku') AS restocked \
             FROM payments p, json_each(p.items) i",
        )
        .fetch_all(self.sqlite.reader())
        .await
        .unwrap();
        for row in lines {
            let (id, sku): (String, String) = (row.get("id"), row.get("sku"));
            let (captured, restocked): (i32, i32) = (row.get("captured"), row.get("restocked"));
            let sold = self.catalogue.sold(&id);
            let (out, back) = sold.get(&sku).copied().unwrap_or_default();
            assert_eq!(
                out - back,
                captured - restocked,
                "units of {sku} that left for {id}"
            );
        }
    }
}
