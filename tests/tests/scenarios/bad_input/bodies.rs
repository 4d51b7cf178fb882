//! Bodies that are not what they should be.

use serde_json::{Value, json};
use tests::orders::order;

use super::{Case, PAYMENTS, changed, post, raw};

/// No JSON, or too much of it.
pub(super) fn that_are_not_json() -> Vec<Case> {
    let payments = PAYMENTS;
    let deep = "[".repeat(20_000);
    let deep_value = format!(r#"{{"orderRef": {deep}"#);
    let large = format!(r#"{{"orderRef": "{}"}}"#, "x".repeat(24 << 20));
    vec![
        raw(payments, br#"{"orderRef": "#, 400, "json|body|eof|end"),
        raw(payments, b"{} {}", 400, "json|body|trailing"),
        raw(
            payments,
            b"{'orderRef': 'A'}",
            400,
            "json|body|quote|string|key",
        ),
        raw(
            payments,
            br#"{"orderRef": "A",}"#,
            400,
            "json|body|comma|key",
        ),
        raw(payments, b"[]", 400, "object|body"),
        raw(payments, b"null", 400, "object|body|order_ref|orderRef"),
        raw(payments, b"\"payment\"", 400, "object|body"),
        raw(
            payments,
            b"{\"orderRef\": \"\xff\xfe\"}",
            400,
            "utf-8|unicode",
        ),
        raw(
            payments,
            br#"{"orderRef": "\ud800"}"#,
            400,
            "orderRef|order_ref|surrogate|unicode|json",
        ),
        raw(
            payments,
            deep.as_bytes(),
            400,
            "deep|nest|depth|recursion|object",
        ),
        raw(
            payments,
            deep_value.as_bytes(),
            400,
            "deep|nest|depth|recursion|orderRef",
        ),
        raw(payments, large.as_bytes(), 413, "large|bytes|size"),
        post(
            payments,
            &order("A", &[("MUG-1", 1)]),
            415,
            "content-type|media type",
        )
        .header("content-type", "text/plain"),
    ]
}

/// Fields that are unknown or of the wrong type.
pub(super) fn with_wrong_fields() -> Vec<Case> {
    let payments = PAYMENTS;
    let item = |item: Value| changed("items", json!([item]));
    vec![
        post(payments, &changed("colour", json!("red")), 400, "colour"),
        post(
            payments,
            &item(json!({"sku": "MUG-1", "quantity": 1, "colour": "red"})),
            400,
            "colour",
        ),
        post(
            payments,
            &changed("orderRef", json!(5)),
            400,
            "orderRef|order_ref",
        ),
        post(payments, &changed("items", json!("MUG-1")), 400, "items"),
        post(payments, &changed("items", json!([5])), 400, "items"),
        post(
            payments,
            &item(json!({"sku": "MUG-1", "quantity": "two"})),
            400,
            "quantity",
        ),
        post(
            payments,
            &item(json!({"sku": "MUG-1", "quantity": 1.5})),
            400,
            "quantity",
        ),
        post(
            payments,
            &item(json!({"sku": "MUG-1", "quantity": 99_999_999_999_i64})),
            400,
            "quantity",
        ),
        post(
            payments,
            &item(json!({"sku": ["MUG-1"], "quantity": 1})),
            400,
            "sku",
        ),
    ]
}

/// Values that the type of the field does not have.
pub(super) fn with_wrong_values() -> Vec<Case> {
    let payments = PAYMENTS;
    vec![
        post(payments, &changed("confirm", json!("yes")), 400, "confirm"),
        post(
            payments,
            &changed("captureMethod", json!("SOMETIMES")),
            400,
            "captureMethod|capture_method",
        ),
        post(
            payments,
            &changed("captureMethod", json!(99)),
            400,
            "captureMethod|capture_method",
        ),
        post(
            payments,
            &changed("order_ref", json!("B")),
            400,
            "orderRef|order_ref",
        ),
        raw(
            payments,
            br#"{"orderRef": "A", "orderRef": "B"}"#,
            400,
            "orderRef|order_ref|duplicate",
        ),
        raw(
            payments,
            br#"{"items": [{"sku": "MUG-1", "quantity": 1e999}]}"#,
            400,
            "quantity|number",
        ),
        post(
            payments,
            &changed("orderedAt", json!("yesterday")),
            400,
            "orderedAt|ordered_at",
        ),
        post(
            payments,
            &changed("orderedAt", json!(1_600_000_000)),
            400,
            "orderedAt|ordered_at",
        ),
        post(
            payments,
            &changed(
                "expectedAmount",
                json!({"currencyCode": "USD", "amountMinor": "12.50"}),
            ),
            400,
            "amountMinor|amount_minor",
        ),
        post(
            payments,
            &changed(
                "expectedAmount",
                json!({"currencyCode": "USD", "amountMinor": "9223372036854775808"}),
            ),
            400,
            "amountMinor|amount_minor",
        ),
    ]
}
