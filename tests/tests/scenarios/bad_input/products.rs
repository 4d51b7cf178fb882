//! Products and files that make no sense.

use reqwest::Method;
use serde_json::{Value, json};
use tests::orders::with;

use super::{Case, Stage, case, post, raw};

/// Products, prices, changes and files.
pub(super) fn all(stage: &Stage) -> Vec<Case> {
    let good = json!({"title": "Pot", "variants": [
        {"sku": "POT-1", "prices": [{"currencyCode": "USD", "amountMinor": "100"}]}]});
    let create = |field: &str, value: Value, names| {
        post(
            "/v1/products",
            &with(good.clone(), field, value),
            400,
            names,
        )
    };
    let variant = |field: &str, value: Value, names| {
        let mut product = good.clone();
        product["variants"][0][field] = value;
        post("/v1/products", &product, 400, names)
    };
    let price = |code: &str, amount: Value, names| {
        variant(
            "prices",
            json!([{"currencyCode": code, "amountMinor": amount}]),
            names,
        )
    };
    let patch = |path: &str, body: Value, status, names| {
        let path = format!("/v1/products/{}{path}", stage.product);
        case(
            Method::PATCH,
            &path,
            body.to_string().into_bytes(),
            status,
            names,
        )
    };
    let twice = json!([{"currencyCode": "USD", "amountMinor": "1"}, {"currencyCode": "USD", "amountMinor": "2"}]);
    let import = |path: &str, csv: &[u8], names| {
        raw(path, csv, 400, names).header("content-type", "text/csv")
    };
    vec![
        create("title", json!(""), "title"),
        create("handle", json!("Not A Handle"), "handle"),
        create("status", json!("GONE"), "status"),
        create("tags", json!(["a,b"]), "tags"),
        create("tags", json!(["a", "a"]), "tags"),
        create("variants", json!([]), "variants"),
        create("descriptionHtml", json!("d".repeat(65_537)), "description"),
        variant("sku", json!("white space"), "sku"),
        variant("sku", json!("s".repeat(65)), "sku"),
        variant("weightGrams", json!(-1), "weight"),
        variant("initialQuantity", json!(-1), "initial"),
        variant("prices", twice, "prices"),
        price("KRW", json!("100.5"), "amountMinor|amount_minor"),
        price("USD", json!(-1), "prices"),
        price("USD", json!("1000000000000001"), "prices"),
        price("XYZ", json!("1"), "prices"),
        patch(
            "?updateMask=colour",
            json!({"title": "Cup"}),
            400,
            "colour|mask",
        ),
        patch("", json!({"title": "Cup", "etag": "stale"}), 409, "etag"),
        patch("", json!({"id": "prd_1", "title": "Cup"}), 400, "id"),
        patch("", json!({"variants": []}), 400, "variants"),
        import("/v1/products:import", b"Handle\n", "currency"),
        import(
            "/v1/products:import?currencyCode=USD",
            b"",
            "file|header|empty|body",
        ),
        import(
            "/v1/products:import?currencyCode=USD",
            b"Colour\nred\n",
            "Handle|column|header",
        ),
        import(
            "/v1/products:import?currencyCode=USD",
            b"Handle,\xff\xfe\n",
            "utf-8",
        ),
    ]
}
