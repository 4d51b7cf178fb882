//! What must hold of every payment once nothing is left to do, from the tables, the catalogue and
//! the provider's own books.

use crate::suite::world::World;
use payment::capture::{CaptureState, Follow};
use payment::payment::Payment;
use payment::provider::Provider as _;
use payment::refund::RefundState;
use payment::store::{PaymentsQuery, Viewer};
use std::collections::BTreeMap;

impl World {
    /// Panics with the first thing that does not hold.
    pub(crate) async fn check(&self) {
        self.counts_nothing(
            "postings that do not sum to zero",
            "SELECT CAST(transaction_id AS TEXT) FROM ledger_postings GROUP BY transaction_id, currency \
             HAVING SUM(amount_minor) <> 0",
        )
        .await;
        self.counts_nothing(
            "balances that are not the sum of their postings",
            "SELECT account FROM (SELECT account, currency, SUM(amount_minor) AS sum \
                 FROM ledger_postings GROUP BY account, currency) AS postings \
             LEFT JOIN (SELECT account, currency, SUM(balance_minor) AS sum \
                 FROM ledger_balances GROUP BY account, currency) AS balances \
             USING (account, currency) WHERE balances.sum IS DISTINCT FROM postings.sum",
        )
        .await;
        self.counts_nothing(
            "captures, refunds and disputes without exactly the entries that they are to have",
            "SELECT CAST(id AS TEXT) || ' ' || kind FROM ( \
                 SELECT id, 'capture' AS kind, state = 'succeeded' AS booked FROM captures \
                 UNION ALL SELECT id, 'refund', state = 'succeeded' OR reversed_at_us IS NOT NULL FROM refunds \
                 UNION ALL SELECT id, 'refund_reversal', reversed_at_us IS NOT NULL FROM refunds \
                 UNION ALL SELECT id, 'dispute', withdrawn_at_us IS NOT NULL FROM disputes \
                 UNION ALL SELECT id, 'dispute_reversal', reinstated_at_us IS NOT NULL FROM disputes) AS parts \
             WHERE CASE WHEN booked THEN 1 ELSE 0 END <> (SELECT COUNT(*) FROM ledger_transactions t \
                 WHERE t.source_id = parts.id AND t.kind = parts.kind)",
        )
        .await;
        self.counts_nothing(
            "entries of what is not there",
            "SELECT CAST(source_id AS TEXT) FROM ledger_transactions \
             WHERE kind IN ('capture', 'refund', 'refund_reversal', 'dispute', 'dispute_reversal') AND source_id NOT IN \
                 (SELECT id FROM captures UNION SELECT id FROM refunds UNION SELECT id FROM disputes)",
        )
        .await;
        self.counts_nothing(
            "evidence that is kept for nothing",
            "SELECT CAST(dispute_id AS TEXT) FROM dispute_evidence WHERE dispute_id NOT IN \
                 (SELECT id FROM disputes WHERE response = 'submitting')",
        )
        .await;
        self.counts_nothing(
            "disputes that stand without their money being where it belongs",
            "SELECT CAST(id AS TEXT) FROM disputes WHERE (state = 'WON') <> (reinstated_at_us IS NOT NULL) \
                 OR (state IN ('NEEDS_RESPONSE', 'UNDER_REVIEW', 'WON', 'LOST')) <> (withdrawn_at_us IS NOT NULL)",
        )
        .await;
        self.counts_nothing(
            "moves that do not follow each other",
            "SELECT CAST(a.payment_id AS TEXT) FROM payment_history a WHERE a.from_state IS DISTINCT FROM \
                 (SELECT b.to_state FROM payment_history b WHERE b.payment_id = a.payment_id \
                  AND b.version < a.version ORDER BY b.version DESC LIMIT 1)",
        )
        .await;
        self.counts_nothing(
            "payments in another state than their last move says",
            "SELECT CAST(id AS TEXT) FROM payments WHERE state IS DISTINCT FROM (SELECT to_state FROM payment_history \
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
            "SELECT CAST(id AS TEXT) FROM (SELECT id, amount_minor - tax_minor - shipping_minor AS minor, state FROM captures \
                 UNION ALL SELECT id, -(amount_minor - tax_minor - shipping_minor), state FROM refunds) AS parts \
             WHERE CASE state WHEN 'succeeded' THEN minor ELSE 0 END <> \
                 (SELECT COALESCE(SUM(amount_minor), 0) FROM sales_lines WHERE source_id = id)",
        )
        .await;
        self.counts_nothing(
            "captures, refunds and disputes without exactly one event",
            "SELECT kind FROM (SELECT \
                 (SELECT COUNT(*) FROM captures WHERE state = 'succeeded') AS captures, \
                 (SELECT COUNT(*) FROM mesh_outbox WHERE kind = 'payment.PaymentCaptured.v1') AS captured, \
                 (SELECT COUNT(*) FROM refunds WHERE state = 'succeeded' OR reversed_at_us IS NOT NULL) AS refunds, \
                 (SELECT COUNT(*) FROM mesh_outbox WHERE kind = 'payment.RefundSucceeded.v1') AS refunded, \
                 (SELECT COUNT(*) FROM refunds WHERE state = 'failed') AS failures, \
                 (SELECT COUNT(*) FROM mesh_outbox WHERE kind = 'payment.RefundFailed.v1') AS failed, \
                 (SELECT COUNT(*) FROM disputes) AS disputes, \
                 (SELECT COUNT(*) FROM mesh_outbox WHERE kind = 'payment.DisputeOpened.v1') AS disputed, \
                 'event' AS kind) AS counts WHERE captures <> captured OR refunds <> refunded OR failures <> failed \
                     OR disputes <> disputed",
        )
        .await;
        let payments = self.payments().await;
        self.check_provider(&payments).await;
        self.check_stock(&payments);
        self.check_audit(&payments).await;
    }

    async fn counts_nothing(&self, what: &str, sql: &'static str) {
        let found = self.storage.texts(sql).await;
        assert!(found.is_empty(), "{what}: {found:?}");
    }

    /// All payments, oldest first.
    pub(crate) async fn payments(&self) -> Vec<Payment> {
        let all = PaymentsQuery {
            viewer: Viewer::Operator,
            filter: None,
            descending: false,
            after: None,
            limit: 100_000,
        };
        self.storage.store().payments(&all).await.unwrap()
    }

    /// What the provider took of each attempt, less what it gave back, is what the payment says.
    async fn check_provider(&self, payments: &[Payment]) {
        let mut net: BTreeMap<String, i64> = BTreeMap::new();
        let mut from = None;
        loop {
            let page = self.simulator.transactions(from.as_deref()).await.unwrap();
            for transaction in page.transactions {
                let amount_minor = transaction.kind.sign() * transaction.amount.amount_minor();
                *net.entry(transaction.charge_reference).or_default() += amount_minor;
            }
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        for payment in payments {
            for attempt in &payment.attempts {
                let captures = payment.captures.iter().filter(|capture| {
                    capture.attempt == attempt.id && capture.state == CaptureState::Succeeded
                });
                let refunds = payment.refunds.iter().filter(|refund| {
                    refund.attempt == attempt.id && refund.state == RefundState::Succeeded
                });
                let disputes = payment
                    .disputes
                    .iter()
                    .filter(|dispute| dispute.attempt == attempt.id && dispute.holds_money());
                let kept = captures.map(|capture| capture.amount_minor).sum::<i64>()
                    - refunds.map(|refund| refund.amount_minor).sum::<i64>()
                    - disputes.map(|of| of.amount.amount_minor()).sum::<i64>();
                let moved = net.remove(&attempt.id.to_string()).unwrap_or(0);
                assert_eq!(moved, kept, "money kept of attempt {}", attempt.id);
            }
        }
        net.retain(|_, amount| *amount != 0);
        assert!(
            net.is_empty(),
            "charges that payment knows nothing of: {net:?}"
        );
    }

    /// What left the stock for each payment is what was captured, and what came back was asked for.
    fn check_stock(&self, payments: &[Payment]) {
        for payment in payments {
            let sold = self.catalogue.sold(&payment.id.to_string());
            for item in &payment.order.items {
                let captures = payment.captures.iter();
                let captured = captures.filter(|capture| capture.stock == Follow::Done);
                let refunds = payment.refunds.iter();
                let restocked = refunds.filter(|refund| refund.stock == Follow::Done);
                let units = |lines: &[payment::capture::Line]| -> i32 {
                    let lines = lines.iter().filter(|line| line.sku == item.sku);
                    lines.map(|line| line.quantity).sum()
                };
                let expected = captured.map(|capture| units(&capture.lines)).sum::<i32>()
                    - restocked.map(|refund| units(&refund.lines)).sum::<i32>();
                let (out, back) = sold.get(&item.sku).copied().unwrap_or_default();
                let (sku, id) = (&item.sku, payment.id);
                assert_eq!(out - back, expected, "units of {sku} that left for {id}");
            }
        }
    }
}
