//! The products and orders that scenarios are made of: a USD shop, Visa tokens, nothing unusual unless a
//! scenario says so.

use serde_json::{Value, json};

use crate::rest::Rest;

/// Puts a product with one variant on sale and answers it.
pub async fn put_on_sale(rest: &Rest, sku: &str, price_minor: i64, quantity: i64) -> Value {
    let product = json!({
        "title": format!("Thing {sku}"),
        "category": "Things",
        "variants": [{
            "sku": sku,
            "prices": [{"currencyCode": "USD", "amountMinor": price_minor.to_string()}],
            "initialQuantity": quantity,
        }],
    });
    rest.post("/v1/products", &product).await.ok()
}

/// An order of some items that is to be paid at once.
pub fn order(order_ref: &str, items: &[(&str, i64)]) -> Value {
    json!({
        "orderRef": order_ref,
        "customerRef": "CUST-1",
        "currencyCode": "USD",
        "items": lines(items),
        "paymentMethod": "pm_card_visa",
        "confirm": true,
    })
}

/// The same, authorised at once and captured by command.
pub fn manual_order(order_ref: &str, items: &[(&str, i64)]) -> Value {
    with(order(order_ref, items), "captureMethod", "MANUAL")
}

/// SKUs and quantities as the contract writes them.
pub fn lines(items: &[(&str, i64)]) -> Value {
    items
        .iter()
        .map(|(sku, quantity)| json!({"sku": sku, "quantity": quantity}))
        .collect()
}

/// The request with one field replaced.
pub fn with(mut request: Value, field: &str, value: impl Into<Value>) -> Value {
    request[field] = value.into();
    request
}

/// The stock of a variant: on hand, reserved, available.
pub async fn stock(rest: &Rest, sku: &str) -> (i64, i64, i64) {
    let stock = rest.get(&format!("/v1/stock/{sku}")).await.ok();
    let count = |field: &str| stock[field].as_i64().expect("a stock has three counts");
    (count("onHand"), count("reserved"), count("available"))
}
