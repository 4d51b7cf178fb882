//! A catalogue of thousands of products goes in and comes out again as it was.

use serde_json::{Value, json};
use tests::chinook::Chinook;
use tests::rest::{Rest, whole};
use tests::shop::Shop;

async fn export(rest: &Rest) -> Vec<u8> {
    let answer = rest.get("/v1/products:export?currencyCode=USD").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("text/csv")
    );
    answer.body
}

fn counts(imported: &Value) -> (i64, i64, i64, i64) {
    let count = |field: &str| whole(&imported[field]);
    (
        count("created"),
        count("updated"),
        count("unchanged"),
        count("refusedCount"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn chinook_goes_in_once_and_comes_out_identical() {
    let Some(chinook) = Chinook::load("chinook_goes_in_once_and_comes_out_identical") else {
        return;
    };
    let shop = Shop::start().await;
    let first = shop
        .rest()
        .import("USD", chinook.products_csv.clone())
        .await
        .ok();
    assert_eq!(counts(&first), (3503, 0, 0, 0), "{first}");
    let second = shop.rest().import("USD", chinook.products_csv).await.ok();
    assert_eq!(counts(&second), (0, 0, 3503, 0), "{second}");

    let exported = export(shop.rest()).await;
    let other = Shop::start().await;
    let third = other.rest().import("USD", exported.clone()).await.ok();
    assert_eq!(counts(&third), (3503, 0, 0, 0), "{third}");
    let exported_again = export(other.rest()).await;
    assert!(
        exported == exported_again,
        "the second export differs from the first"
    );

    let products = shop
        .rest()
        .list("/v1/products?pageSize=1000", "products")
        .await;
    assert_eq!(products.len(), 3503);
    let on_sale: i64 = products
        .iter()
        .map(|product| whole(&product["variants"][0]["availableQuantity"]))
        .sum();
    assert_eq!(
        on_sale,
        chinook
            .products
            .values()
            .map(|product| product.quantity)
            .sum::<i64>()
    );
    shop.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_rows_are_refused_by_line_and_column_and_stop_nobody() {
    let shop = Shop::start().await;
    let csv = "Handle,Title,Type,Option1 Name,Option1 Value,Variant SKU,Variant Inventory Qty,Variant Price,Colour of box\n\
        mug,Mug,Kitchen,Title,Default Title,MUG-1,5,12.50,red\n\
        cup,Cup,Kitchen,Title,Default Title,CUP-1,5,free,blue\n\
        pot,Pot,Kitchen,Title,Default Title,POT-1,many,30.00,green\n\
        shirt,Shirt,Clothes,Size,S,SHIRT-S,3,20.00,\n\
        shirt,,,,L,SHIRT-L,4,21.00,\n";
    let imported = shop
        .rest()
        .import("USD", csv.as_bytes().to_vec())
        .await
        .ok();
    assert_eq!(counts(&imported), (2, 0, 0, 2), "{imported}");
    let refused = imported["refused"].as_array().unwrap();
    let places: Vec<_> = (refused.iter())
        .map(|row| {
            (
                row["line"].as_i64().unwrap(),
                row["column"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(places, [(3, "Variant Price"), (4, "Variant Inventory Qty")]);
    assert!(
        refused
            .iter()
            .all(|row| !row["reason"].as_str().unwrap().is_empty())
    );

    let shirt = shop
        .rest()
        .get("/v1/products:batchGet?skus=SHIRT-L")
        .await
        .ok();
    assert_eq!(
        shirt["products"][0]["variants"].as_array().unwrap().len(),
        2
    );
    let exported = String::from_utf8(export(shop.rest()).await).unwrap();
    assert!(
        exported.lines().next().unwrap().contains("Colour of box"),
        "{exported}"
    );
    assert!(
        exported.contains("red"),
        "an unknown column is given back: {exported}"
    );
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_does_not_reset_stock_that_was_sold() {
    let shop = Shop::start().await;
    let rest = shop.rest();
    let csv = "Handle,Title,Option1 Name,Option1 Value,Variant SKU,Variant Inventory Qty,Variant Price\n\
        mug,Mug,Title,Default Title,MUG-1,5,12.50\n";
    rest.import("USD", csv.as_bytes().to_vec()).await.ok();
    let paid = rest
        .post(
            "/v1/payments",
            &tests::orders::order("ORDER-1", &[("MUG-1", 2)]),
        )
        .await
        .ok();
    assert_eq!(paid["state"], "SUCCEEDED");
    let imported = rest.import("USD", csv.as_bytes().to_vec()).await.ok();
    assert_eq!(counts(&imported), (0, 0, 1, 0), "{imported}");
    assert_eq!(tests::orders::stock(rest, "MUG-1").await, (3, 0, 3));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_refuses_to_drop_prices_silently() {
    let shop = Shop::start().await;
    let price = |code: &str, amount: &str| json!({"currencyCode": code, "amountMinor": amount});
    let product = json!({"title": "Mug", "variants": [
        {"sku": "MUG-1", "prices": [price("USD", "1250"), price("KRW", "17000")]}]});
    shop.rest().post("/v1/products", &product).await.ok();
    let refused = shop
        .rest()
        .get("/v1/products:export?currencyCode=USD")
        .await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    let dropped = shop
        .rest()
        .get("/v1/products:export?currencyCode=KRW&dropOtherPrices=true")
        .await;
    assert_eq!(dropped.status, 200);
    assert!(dropped.text().contains("17000"), "{}", dropped.text());
    shop.close().await;
}
