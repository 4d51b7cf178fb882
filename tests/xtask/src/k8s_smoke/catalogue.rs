//! The sample catalogue of a fresh shop of this machine, put on sale in another shop over REST: the README's tour buys of it.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    process::{command, output},
    shop::Shop,
};

/// More products than the sample has.
const PAGE: &str = "/v1/products?pageSize=1000&orderBy=create_time";
/// What a product is made with, as the contract names it.
const FIELDS: [&str; 5] = ["title", "category", "vendor", "tags", "descriptionHtml"];
const VARIANT_FIELDS: [&str; 4] = ["sku", "options", "prices", "weightGrams"];

/// Copies every product of one shop to the other; how many there were.
pub(super) fn copy(from: &Shop, to: &str) -> Result<usize> {
    let listed: Value = serde_json::from_str(&from.get(PAGE)?)?;
    ensure!(
        listed["nextPageToken"] == "",
        "the sample has several pages"
    );
    let products = listed["products"]
        .as_array()
        .context("a list of products")?;
    for product in products {
        let made = serde_json::to_string(&creation(product))?;
        let mut curl = command("curl");
        curl.args(["--silent", "--show-error", "--json", &made]);
        let answer = output(curl.arg(format!("http://{to}/v1/products")))?;
        if !answer.contains("\"id\":\"prd_") && !answer.contains("\"id\": \"prd_") {
            bail!("product {} was not created: {answer}", product["title"]);
        }
    }
    Ok(products.len())
}

/// What creates this product, without what a service adds.
fn creation(product: &Value) -> Value {
    let take = |from: &Value, fields: &[&str]| {
        let fields = fields.iter().filter(|field| !from[**field].is_null());
        Value::Object(
            fields
                .map(|field| ((*field).to_owned(), from[*field].clone()))
                .collect(),
        )
    };
    let mut made = take(product, &FIELDS);
    let variants = product["variants"].as_array().into_iter().flatten();
    let variants = variants.map(|variant| {
        let mut made = take(variant, &VARIANT_FIELDS);
        made["initialQuantity"] = variant["availableQuantity"].clone();
        made
    });
    made["variants"] = json!(variants.collect::<Vec<_>>());
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_service_adds_is_left_out() {
        let product = json!({
            "id": "prd_1", "title": "Tea", "category": "Tea", "etag": "1", "soldQuantity": "0",
            "variants": [{"sku": "T", "availableQuantity": 7, "prices": [{"currencyCode": "KRW", "amountMinor": "1"}]}],
        });
        let expected = json!({
            "title": "Tea", "category": "Tea",
            "variants": [{"sku": "T", "prices": [{"currencyCode": "KRW", "amountMinor": "1"}], "initialQuantity": 7}],
        });
        assert_eq!(creation(&product), expected);
    }
}
