//! The checker itself: each invariant sees the bugs that are planted for it in a copied shop.

use std::path::Path;

use serde_json::json;
use tests::eventually;
use tests::invariants::{NAMES, Stores, acknowledged_is_there, check, check_all, queues_are_empty};
use tests::orders::{lines, manual_order, order, put_on_sale, with};
use tests::rest::Rest;
use tests::shop::Shop;

/// Invariant and bug. Every invariant has at least one.
const BUGS: &[(&str, &str)] = &[
    (
        "postings_sum_to_zero",
        "DROP TRIGGER ledger_postings_are_not_updated; UPDATE ledger_postings SET amount_minor = amount_minor + 1 \
         WHERE (transaction_id, line) = (SELECT transaction_id, line FROM ledger_postings LIMIT 1)",
    ),
    (
        "postings_sum_to_zero",
        "DROP TRIGGER ledger_postings_are_not_deleted; DELETE FROM ledger_postings \
         WHERE transaction_id = (SELECT id FROM ledger_transactions LIMIT 1)",
    ),
    (
        "balances_equal_their_postings",
        "UPDATE ledger_balances SET balance_minor = balance_minor + 1 \
         WHERE account = (SELECT account FROM ledger_balances LIMIT 1)",
    ),
    (
        "postings_are_immutable",
        "DROP TRIGGER ledger_postings_are_not_updated",
    ),
    (
        "postings_are_immutable",
        "DROP TRIGGER ledger_transactions_are_not_deleted",
    ),
    (
        "captured_and_refunded_stay_within_bounds",
        "UPDATE payments SET captured_minor = captured_minor - 1 WHERE state = 'SUCCEEDED'",
    ),
    (
        "captured_and_refunded_stay_within_bounds",
        "UPDATE refunds SET lines = replace(lines, '\"quantity\":1', '\"quantity\":100')",
    ),
    (
        "captured_and_refunded_stay_within_bounds",
        "DROP TRIGGER provider.journal_rows_stay_as_they_are; \
         UPDATE provider.journal SET amount_minor = amount_minor + 1 WHERE outcome = 'captured'",
    ),
    (
        "every_capture_and_refund_is_booked_once",
        "INSERT INTO ledger_transactions SELECT 'txn_planted', kind, payment_id, 'cap_planted', recorded_at_us \
         FROM ledger_transactions LIMIT 1",
    ),
    (
        "every_capture_and_refund_is_booked_once",
        "DROP TRIGGER ledger_transactions_are_not_deleted; DELETE FROM ledger_transactions WHERE kind = 'refund'",
    ),
    (
        "every_capture_and_refund_is_booked_once",
        "DROP TRIGGER ledger_transactions_are_not_deleted; \
         DELETE FROM ledger_transactions WHERE kind = 'refund_reversal'",
    ),
    (
        "every_dispute_is_booked_as_it_stands",
        "DROP TRIGGER ledger_transactions_are_not_deleted; \
         DELETE FROM ledger_transactions WHERE kind = 'dispute_reversal'",
    ),
    (
        "every_dispute_is_booked_as_it_stands",
        "UPDATE disputes SET amount_minor = amount_minor + 1 WHERE state = 'NEEDS_RESPONSE'",
    ),
    (
        "every_dispute_is_booked_as_it_stands",
        "UPDATE disputes SET state = 'WON' WHERE state = 'NEEDS_RESPONSE'",
    ),
    (
        "provider_account_equals_its_journal",
        "CREATE TEMP TABLE j AS SELECT * FROM provider.journal WHERE outcome = 'needs_response' LIMIT 1; \
         UPDATE j SET sequence = 1000, reference = 'dp_planted'; \
         INSERT INTO provider.journal SELECT * FROM j",
    ),
    (
        "provider_account_equals_its_journal",
        "DROP TRIGGER provider.journal_rows_stay; DELETE FROM provider.journal WHERE outcome = 'refund_failed'",
    ),
    (
        "one_charge_an_order",
        "CREATE TEMP TABLE a AS SELECT * FROM attempts WHERE payment_id = \
             (SELECT id FROM payments WHERE order_ref = 'PAID') LIMIT 1; \
         CREATE TEMP TABLE j AS SELECT * FROM provider.journal WHERE charge_reference = (SELECT id FROM a); \
         UPDATE a SET id = 'att_planted', number = 99; INSERT INTO attempts SELECT * FROM a; \
         UPDATE j SET sequence = sequence + 1000, charge_reference = 'att_planted', \
             reference = 'planted-' || reference; \
         INSERT INTO provider.journal SELECT * FROM j",
    ),
    (
        "provider_and_payments_agree",
        "CREATE TEMP TABLE j AS SELECT * FROM provider.journal WHERE outcome = 'captured' LIMIT 1; \
         UPDATE j SET sequence = 1000, operation = 'refund', outcome = 'refunded', reference = 'planted'; \
         INSERT INTO provider.journal SELECT * FROM j",
    ),
    (
        "provider_and_payments_agree",
        "CREATE TEMP TABLE j AS SELECT * FROM provider.journal WHERE outcome = 'captured' LIMIT 1; \
         UPDATE j SET sequence = 1000, charge_reference = 'att_planted', reference = 'planted'; \
         INSERT INTO provider.journal SELECT * FROM j",
    ),
    (
        "forged_webhooks_are_refused",
        "INSERT INTO provider.webhooks (event_id, body, due_at_us, fault, outcome) \
         VALUES ('evt_planted', x'7b7d', 0, 'forged', 'accepted')",
    ),
    (
        "stock_covers_its_holds",
        "UPDATE product.stock SET reserved = reserved + 1 WHERE reserved < on_hand",
    ),
    (
        "committed_equals_captured",
        "UPDATE product.reservation_line SET committed_quantity = committed_quantity - 1 \
         WHERE committed_quantity > restocked_quantity",
    ),
    (
        "every_hold_has_a_payment_that_waits",
        "UPDATE payments SET state = 'CANCELED' WHERE state = 'REQUIRES_CAPTURE'",
    ),
    (
        "only_legal_moves",
        "UPDATE payment_history SET to_state = 'CANCELED' WHERE to_state = 'REQUIRES_CAPTURE'",
    ),
    (
        "only_legal_moves",
        "UPDATE payment_history SET from_state = 'SUCCEEDED' WHERE to_state = 'CANCELED'",
    ),
    (
        "only_legal_moves",
        "UPDATE product.reservation SET state = 'HELD' WHERE state = 'RELEASED'",
    ),
    (
        "every_event_has_one_effect",
        "DELETE FROM product.mesh_inbox WHERE message_id = (SELECT message_id FROM product.mesh_inbox LIMIT 1)",
    ),
    (
        "every_event_has_one_effect",
        "INSERT INTO product.mesh_dead_letters SELECT 1, consumer, message_id, 'planted', '', 1, 1, NULL, 1, x'', \
         'planted', 1, 1 FROM product.mesh_inbox LIMIT 1",
    ),
    (
        "product_figures_equal_recomputation",
        "UPDATE product.product_sales SET quantity = quantity + 1",
    ),
    (
        "product_figures_equal_recomputation",
        "UPDATE product.product_sales SET amount_minor = amount_minor - 1",
    ),
    (
        "sales_equal_recomputation",
        "UPDATE sales_lines SET day = '1999-12-31'",
    ),
    (
        "sales_equal_recomputation",
        "DELETE FROM sales_lines WHERE kind = 'refund'",
    ),
    (
        "nothing_is_left_undone",
        "UPDATE mesh_idempotency SET answer = NULL, completed_at_us = NULL",
    ),
    (
        "nothing_is_left_undone",
        "UPDATE product.reservation SET expires_at_us = 1 WHERE state = 'HELD'",
    ),
    (
        "nothing_is_left_undone",
        "UPDATE disputes SET response = 'submitting'",
    ),
    (
        "nothing_is_left_undone",
        "UPDATE captures SET stock = 'pending'",
    ),
    (
        "no_card_number_is_stored",
        "UPDATE refunds SET reason = 'from card 4242 4242 4242 4242'",
    ),
    (
        "no_card_number_is_stored",
        "UPDATE product.product SET description_html = '<p>5555555555554444</p>'",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_invariant_sees_the_bugs_planted_for_it() {
    let shop = Shop::start().await;
    live(&shop).await;
    let now_us = shop.now_us();
    let folder = shop.close_and_keep().await;
    for name in NAMES {
        assert!(
            BUGS.iter().any(|(invariant, _)| *invariant == name),
            "{name} has no bug"
        );
    }
    for (invariant, bug) in BUGS {
        let copy = copy_of(folder.path());
        let mut stores = Stores::open_writable(copy.path(), now_us).await.unwrap();
        let before = check_all(&mut stores).await.unwrap();
        assert!(before.is_empty(), "{before:#?}");
        stores
            .plant(bug)
            .await
            .unwrap_or_else(|error| panic!("{bug}: {error}"));
        let violations = check(invariant, &mut stores).await.unwrap();
        assert!(!violations.is_empty(), "{invariant} does not see: {bug}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_and_is_gone_is_seen() {
    let shop = Shop::start().await;
    let journal = live(&shop).await;
    let now_us = shop.now_us();
    let folder = shop.close_and_keep().await;
    for (bug, seen) in [
        ("UPDATE payments SET state = state", false),
        ("DELETE FROM payments WHERE order_ref = 'PAID'", true),
        (
            "UPDATE payments SET state = 'CANCELED' WHERE order_ref = 'PAID'",
            true,
        ),
        ("DELETE FROM refunds", true),
    ] {
        let copy = copy_of(folder.path());
        let mut stores = Stores::open_writable(copy.path(), now_us).await.unwrap();
        stores.plant(bug).await.unwrap();
        let violations = acknowledged_is_there(&mut stores, &journal).await.unwrap();
        assert_eq!(!violations.is_empty(), seen, "{bug}: {violations:?}");
    }
}

#[test]
fn what_waits_at_the_broker_is_seen() {
    let queues = |dead| [("product".to_owned(), 0), ("product.dead".to_owned(), dead)];
    assert_eq!(queues_are_empty(&queues(0)), Vec::<String>::new());
    assert_eq!(
        queues_are_empty(&queues(2)),
        ["2 messages wait in product.dead"]
    );
}

/// Some of everything that a shop goes through; answers the journal of a customer.
async fn live(shop: &Shop) -> String {
    let rest = shop.rest();
    put_on_sale(rest, "MUG-1", 1250, 20).await;
    let paid = rest
        .post("/v1/payments", &order("PAID", &[("MUG-1", 3)]))
        .await
        .ok();
    let refund = json!({"lines": lines(&[("MUG-1", 1)]), "restock": true, "reason": "chipped"});
    let refunds = format!("/v1/payments/{}/refunds", paid["id"].as_str().unwrap());
    let refunded = rest.post(&refunds, &refund).await.ok();
    let held = rest
        .post("/v1/payments", &manual_order("HELD", &[("MUG-1", 2)]))
        .await
        .ok();
    assert_eq!(held["state"], "REQUIRES_CAPTURE");
    let declined = with(
        order("DECLINED", &[("MUG-1", 1)]),
        "paymentMethod",
        "pm_card_declined",
    );
    let declined = rest.post("/v1/payments", &declined).await.ok();
    let cancel = format!("/v1/payments/{}:cancel", declined["id"].as_str().unwrap());
    assert_eq!(
        rest.post(&cancel, &json!({})).await.ok()["state"],
        "CANCELED"
    );
    dispute_and_return(rest).await;
    shop.drain_events().await;
    let entry = |answer| json!({"path": "", "key": "", "answer": answer}).to_string();
    [paid, refunded, held].map(entry).join("\n")
}

/// A dispute that is won, one that is open, and a refund that comes back.
async fn dispute_and_return(rest: &Rest) {
    for (order_ref, token) in [
        ("WON", "pm_card_dispute_won"),
        ("OPEN", "pm_card_dispute_lost"),
        ("RETURNED", "pm_card_refund_fails_later"),
    ] {
        let bought = with(order(order_ref, &[("MUG-1", 1)]), "paymentMethod", token);
        let bought = rest.post("/v1/payments", &bought).await.ok();
        let path = format!("/v1/payments/{}", bought["id"].as_str().unwrap());
        if order_ref == "RETURNED" {
            let refund = rest.post(&format!("{path}/refunds"), &json!({})).await.ok();
            let refund = format!("/v1/refunds/{}", refund["id"].as_str().unwrap());
            eventually("the refund comes back", || async {
                rest.get(&refund).await.ok()["state"] == "FAILED"
            })
            .await;
            continue;
        }
        let dispute = || async { rest.get(&path).await.ok()["disputes"][0].clone() };
        eventually("the dispute is known", || async {
            dispute().await["state"] == "NEEDS_RESPONSE"
        })
        .await;
        if order_ref == "WON" {
            let id = dispute().await["id"].as_str().unwrap().to_owned();
            let evidence = json!({"explanation": "it was sent"});
            let hand_in = format!("/v1/disputes/{id}:submitEvidence");
            rest.post(&hand_in, &evidence).await.ok();
            eventually("the dispute is won", || async {
                dispute().await["state"] == "WON"
            })
            .await;
        }
    }
}

fn copy_of(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    copy
}
