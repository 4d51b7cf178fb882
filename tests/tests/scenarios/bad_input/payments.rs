//! Payments and commands that are well-formed and make no sense.

use serde_json::{Value, json};
use tests::orders::{lines, order, with};

use super::{Case, PAYMENTS, Stage, changed, post, raw};

/// Who orders what, and pays how.
pub(super) fn with_bad_references() -> Vec<Case> {
    let payments = PAYMENTS;
    vec![
        post(payments, &json!({}), 400, "order_ref|orderRef"),
        post(
            payments,
            &changed("orderRef", json!("")),
            400,
            "order_ref|orderRef",
        ),
        post(
            payments,
            &changed("orderRef", json!("A".repeat(101))),
            400,
            "order_ref|orderRef",
        ),
        post(
            payments,
            &changed("orderRef", json!("A\u{0}B")),
            400,
            "order_ref|orderRef",
        ),
        post(
            payments,
            &changed("orderRef", json!("4242 4242 4242 4242")),
            400,
            "order_ref|orderRef",
        ),
        post(
            payments,
            &changed("customerRef", json!("4242424242424242")),
            400,
            "customer_ref|customerRef",
        ),
        post(
            payments,
            &changed("customerRef", json!("C".repeat(101))),
            400,
            "customer_ref|customerRef",
        ),
        post(
            payments,
            &changed("paymentMethod", json!("5555555555554444")),
            400,
            "payment_method|paymentMethod",
        ),
        post(
            payments,
            &changed("paymentMethod", json!("")),
            400,
            "payment_method|paymentMethod",
        ),
    ]
}

/// What is bought, in which currency.
pub(super) fn with_bad_items() -> Vec<Case> {
    let payments = PAYMENTS;
    let items = |items: &[(&str, i64)]| changed("items", lines(items));
    let many: Vec<(String, i64)> = (0..101).map(|n| (format!("SKU-{n}"), 1)).collect();
    let many: Vec<(&str, i64)> = many
        .iter()
        .map(|(sku, quantity)| (sku.as_str(), *quantity))
        .collect();
    vec![
        post(
            payments,
            &changed("currencyCode", json!("")),
            400,
            "currency_code|currencyCode",
        ),
        post(
            payments,
            &changed("currencyCode", json!("usd")),
            400,
            "currency_code|currencyCode",
        ),
        post(
            payments,
            &changed("currencyCode", json!("ZZZ")),
            400,
            "currency_code|currencyCode",
        ),
        post(
            payments,
            &changed("currencyCode", json!("KRW")),
            404,
            "MUG-1",
        ),
        post(payments, &items(&[]), 400, "items"),
        post(payments, &items(&many), 400, "items"),
        post(
            payments,
            &items(&[("MUG-1", 1), ("MUG-1", 1)]),
            400,
            "items[1].sku",
        ),
        post(payments, &items(&[("", 1)]), 400, "items[0].sku"),
        post(
            payments,
            &items(&[("../../payment.db", 1)]),
            400,
            "items[0].sku",
        ),
        post(payments, &items(&[("NOT-THERE", 1)]), 404, "NOT-THERE"),
        post(payments, &items(&[("MUG-1", 0)]), 400, "items[0].quantity"),
        post(payments, &items(&[("MUG-1", -1)]), 400, "items[0].quantity"),
        post(
            payments,
            &items(&[("MUG-1", 2_147_483_647)]),
            400,
            "items[0].quantity",
        ),
    ]
}

/// What is expected, when, and under which key.
pub(super) fn with_bad_terms() -> Vec<Case> {
    let payments = PAYMENTS;
    let good = order("A", &[("MUG-1", 1)]);
    let usd = |amount: &str| json!({"currencyCode": "USD", "amountMinor": amount});
    vec![
        post(
            payments,
            &changed("expectedAmount", usd("-1")),
            400,
            "expected_amount|expectedAmount",
        ),
        post(
            payments,
            &changed(
                "expectedAmount",
                json!({"currencyCode": "EUR", "amountMinor": "1250"}),
            ),
            400,
            "expected_amount|expectedAmount",
        ),
        post(
            payments,
            &changed("orderedAt", json!("2999-01-01T00:00:00Z")),
            400,
            "ordered_at|orderedAt",
        ),
        post(
            payments,
            &changed("requestId", json!("one")),
            400,
            "request_id|requestId|Idempotency-Key",
        )
        .header("idempotency-key", "another"),
        post(payments, &good, 400, "request_id|requestId|Idempotency-Key")
            .header("idempotency-key", &"k".repeat(201)),
        post(payments, &good, 400, "request_id|requestId|Idempotency-Key")
            .header("idempotency-key", "schlüssel"),
        post("/v1/payments?dryRun=true", &good, 400, "dryRun"),
    ]
}

/// Commands to a payment that is paid, and to stock.
pub(super) fn commands(stage: &Stage) -> Vec<Case> {
    let at = |verb: &str| format!("/v1/payments/{}{verb}", stage.paid);
    let refund = |body: Value, names| post(&at("/refunds"), &body, 400, names);
    let money =
        |code: &str, amount: &str| json!({"amount": {"currencyCode": code, "amountMinor": amount}});
    vec![
        post(&at(":confirm"), &json!({}), 400, "INVALID_STATE"),
        post(&at(":capture"), &json!({}), 400, "INVALID_STATE"),
        post(&at(":cancel"), &json!({}), 400, "INVALID_STATE"),
        post(&at(":cancel"), &json!({"why": "x"}), 400, "why"),
        post("/v1/payments/pay_1:cancel", &json!({}), 400, "id"),
        post("/v1/payments/prd_1:capture", &json!({}), 400, "id"),
        refund(
            json!({"lines": lines(&[("MUG-1", 3)])}),
            "QUANTITY_EXCEEDED",
        ),
        refund(
            json!({"lines": lines(&[("MUG-1", 0)])}),
            "lines[0].quantity",
        ),
        refund(json!({"lines": lines(&[("CUP-1", 1)])}), "lines[0].sku"),
        refund(
            json!({"lines": lines(&[("MUG-1", 1), ("MUG-1", 1)])}),
            "lines[1].sku",
        ),
        refund(money("USD", "2501"), "AMOUNT_EXCEEDED"),
        refund(money("USD", "0"), "amount"),
        refund(money("USD", "-5"), "amount"),
        refund(money("EUR", "5"), "amount"),
        refund(money("USD", "1000000000000001"), "amount"),
        refund(
            with(money("USD", "5"), "lines", lines(&[("MUG-1", 1)])),
            "lines|amount",
        ),
        refund(with(money("USD", "5"), "restock", true), "restock"),
        refund(json!({"reason": "r".repeat(501)}), "reason"),
        refund(json!({"reason": "card 4242-4242-4242-4242"}), "reason"),
        post(
            "/v1/stock/MUG-1:adjust",
            &json!({"delta": 0, "reason": "count"}),
            400,
            "delta",
        ),
        post(
            "/v1/stock/MUG-1:adjust",
            &json!({"delta": 1}),
            400,
            "reason",
        ),
        post(
            "/v1/stock/MUG-1:adjust",
            &json!({"delta": 1_000_000_001, "reason": "count"}),
            400,
            "delta",
        ),
        post(
            "/v1/stock/MUG-1:adjust",
            &json!({"delta": -11, "reason": "count"}),
            400,
            "MUG-1|delta|on hand",
        ),
        post(
            "/v1/stock/MUG-1:adjust",
            &json!({"delta": 1, "reason": "4242424242424242"}),
            400,
            "reason",
        ),
        post(
            "/v1/stock/NOT-THERE:adjust",
            &json!({"delta": 1, "reason": "count"}),
            404,
            "NOT-THERE",
        ),
        raw("/v1/webhooks/nobody", b"{}", 404, "nobody|provider"),
        raw("/v1/webhooks/simulator", b"{}", 401, "signature"),
    ]
}
