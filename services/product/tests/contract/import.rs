//! Files in and out.

use std::{path::PathBuf, sync::Arc, time::Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use kernel::Currency;
use product::{
    config::TransferConfig,
    error::Error,
    store::Store,
    transfer::{self, Report},
};

use crate::fresh::Fresh;
use crate::harness::{
    START_US, adjust, at, create, draft, id, krw, on_every_store, titles, units, usd, variant,
};

on_every_store! {
    rows_become_products
    a_bad_row_does_not_stop_the_rest
    an_import_adds_and_changes_but_never_resets_stock
    files_that_cannot_be_read_are_refused
    prices_are_never_dropped_silently
    prices_follow_the_exponent_of_the_currency
    export_leaves_deleted_products_out
}

const HEADER: &str = "Handle,Title,Body (HTML),Vendor,Type,Tags,Published,Option1 Name,Option1 Value,\
    Variant SKU,Variant Grams,Variant Inventory Qty,Variant Price,Image Src,Status\r\n";

fn currency(code: &str) -> Currency {
    Currency::parse(code).unwrap()
}

async fn import_with(
    store: &dyn Store,
    config: &TransferConfig,
    code: &str,
    file: &[u8],
) -> Result<Report, Error> {
    let pieces: Vec<Result<Bytes, Error>> = file
        .chunks(1000)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    transfer::import(
        store,
        config,
        &at(START_US),
        currency(code),
        stream::iter(pieces),
    )
    .await
}

async fn import(store: &dyn Store, file: &str) -> Report {
    import_with(store, &TransferConfig::default(), "USD", file.as_bytes())
        .await
        .unwrap()
}

async fn export(store: &Arc<dyn Store>, code: &str) -> Vec<u8> {
    let config = TransferConfig {
        page_products: 7,
        piece_bytes_max: 100,
        ..Default::default()
    };
    let pieces = transfer::export(store.clone(), &config, currency(code), false)
        .await
        .unwrap();
    let pieces: Vec<Bytes> = pieces.try_collect().await.unwrap();
    assert!(
        pieces
            .iter()
            .all(|piece| !piece.is_empty() && piece.len() <= 100)
    );
    pieces.concat()
}

/// (created, updated, unchanged, refused)
fn counts(report: &Report) -> (u32, u32, u32, u32) {
    (
        report.created,
        report.updated,
        report.unchanged,
        report.refused_count,
    )
}

/// Export, import into an empty shop, export: the same bytes, and importing them again changes nothing.
async fn check_round_trip(store: &Arc<dyn Store>, code: &str) {
    let file = export(store, code).await;
    let other = Fresh::open().await;
    let config = TransferConfig {
        batch_rows: 3,
        ..TransferConfig::default()
    };
    let report = import_with(&*other.store, &config, code, &file)
        .await
        .unwrap();
    assert_eq!(report.refused, []);
    assert_eq!(
        String::from_utf8(export(&other.store, code).await).unwrap(),
        String::from_utf8(file.clone()).unwrap()
    );
    let again = import_with(&*store.clone(), &config, code, &file)
        .await
        .unwrap();
    assert_eq!(
        (again.created, again.updated, again.refused_count),
        (0, 0, 0)
    );
    other.check().await;
}

async fn rows_become_products(store: Arc<dyn Store>) {
    let file = format!(
        "\u{feff}{HEADER}\
         shirt,Shirt,\"<p>Two\r\nlines, \"\"quoted\"\"</p>\",Maker,Clothes,\"a, b,\",TRUE,Size,S,SHIRT-S,100,5,19.9,http://x/1.jpg,active\r\n\
         shirt,,,,,,,,M,SHIRT-M,110,6,20,,\r\n\
         shirt,,,,,,,,,,,,,http://x/2.jpg,\r\n\
         shirt,,,,,,,Größe,L,SHIRT-L,120,7,21.00,,\r\n\
         모자,모자,,,,,FALSE,Title,Default Title,HAT,0,1,5,,draft\r\n"
    );
    let report = import(&*store, &file).await;
    assert_eq!(
        (counts(&report), report.refused.as_slice()),
        ((2, 0, 0, 0), [].as_slice())
    );
    assert_eq!(counts(&import(&*store, &file).await), (0, 0, 2, 0));
    assert_eq!(
        titles(&*store, "", "create_time", 10).await,
        ["Shirt", "모자"]
    );
    let shirt = store
        .batch_get(&[], &["SHIRT-L".into()], START_US)
        .await
        .unwrap()
        .remove(0);
    assert_eq!(shirt.available, [5, 6, 7]);
    assert_eq!(
        shirt.product.description_html,
        "<p>Two\r\nlines, \"quoted\"</p>"
    );
    assert_eq!(shirt.product.tags, ["a", "b"]);
    let options: Vec<(&str, &str)> = shirt
        .product
        .variants
        .iter()
        .map(|v| (v.options[0].name.as_str(), v.options[0].value.as_str()))
        .collect();
    assert_eq!(options, [("Size", "S"), ("Size", "M"), ("Größe", "L")]);
    assert_eq!(shirt.product.variants[0].prices, [usd(1990)]);
    let hat = store
        .batch_get(&[], &["HAT".into()], START_US)
        .await
        .unwrap()
        .remove(0);
    assert!(hat.product.variants[0].options.is_empty());
    let exported = String::from_utf8(export(&store, "USD").await).unwrap();
    for kept in [
        "http://x/1.jpg",
        "shirt,,,,,,,,,,,,,http://x/2.jpg,",
        "FALSE",
        "\"a, b\",TRUE",
    ] {
        assert!(exported.contains(kept), "{kept} in {exported}");
    }
    check_round_trip(&store, "USD").await;
}

async fn a_bad_row_does_not_stop_the_rest(store: Arc<dyn Store>) {
    let long = "x".repeat(256);
    let file = format!(
        "{HEADER}\
         good,Good,\"several\nlines\",,,,,,,GOOD,,1,1.00,,\n\
         Bad Handle,Bad,,,,,,,,BAD-1,,1,1.00,,\n\
         price,Price,,,,,,,,BAD-2,,1,1.999,,\n\
         quantity,Quantity,,,,,,,,BAD-3,,-1,1.00,,\n\
         short,Short\n\
         title,{long},,,,,,,,BAD-4,,1,1.00,,\n\
         title,,,,,,,,,BAD-5,,1,1.00,,\n\
         two,Two,,,,,,,,GOOD,,1,1.00,,\n\
         two,,,,,,,,,TWO-B,,1,1.00,,\n\
         no-title,,,,,,,,,BAD-6,,1,1.00,,\n\
         no-price,No price,,,,,,,,BAD-7,,1,,,\n\
         no-variant,No variant,,,,,,,,,,,,x,\n\
         status,Status,,,,,,,,BAD-8,,1,1,,sold\n\
         good,Again,,,,,,,,GOOD-2,,1,1.00,,\n\
         last,Last,,,,,,,,LAST,,1,1.00,,\n\
         last,,,,,,,,,LAST,,1,1.00,,\n\
         last,,,,,,,,,,,,,,\n"
    );
    let report = import(&*store, &file).await;
    let refused: Vec<(u32, &str)> = report
        .refused
        .iter()
        .map(|refusal| (refusal.line, refusal.column.as_str()))
        .collect();
    assert_eq!(
        refused,
        [
            (4, "Handle"),
            (5, "Variant Price"),
            (6, "Variant Inventory Qty"),
            (7, ""),
            (8, "Title"),
            (9, ""),
            (10, "Variant SKU"),
            (12, "Title"),
            (13, "Variant Price"),
            (14, "Variant SKU"),
            (15, "Status"),
            (16, "Handle"),
            (18, "Variant SKU"),
            (19, ""),
        ],
        "{:#?}",
        report.refused
    );
    assert_eq!(report.refused[1].reason, "has 3 decimals, but USD has 2");
    assert_eq!(
        titles(&*store, "", "title", 10).await,
        ["Good", "Last", "Two"]
    );
    assert_eq!((report.created, report.refused_count), (3, 14));
    assert_eq!(import(&*store, &file).await.unchanged, 3);
    check_round_trip(&store, "USD").await;
}

async fn an_import_adds_and_changes_but_never_resets_stock(store: Arc<dyn Store>) {
    let row = |rest: &str| format!("{HEADER}tea,{rest}");
    import(&*store, &row("Tea,,,,,TRUE,,,TEA,,10,1.00,a.jpg,\n")).await;
    adjust(&*store, "TEA", -4, START_US).await.unwrap();
    let report = import(&*store, &row("Tea,,,,,TRUE,,,TEA,,10,2.00,a.jpg,\n")).await;
    assert_eq!(counts(&report), (0, 1, 0, 0));
    assert_eq!(units(&*store, "TEA", START_US).await.0, 6);
    // A file with fewer columns leaves the others as they are; variants are added, never removed.
    let fewer = "Handle,Title,Variant SKU,Variant Price\ntea,Green tea,TEA-2,3\n";
    assert_eq!(counts(&import(&*store, fewer).await), (0, 1, 0, 0));
    let tea = store
        .batch_get(&[], &["TEA".into()], START_US)
        .await
        .unwrap()
        .remove(0);
    assert_eq!(
        (tea.product.title.as_str(), tea.product.variants.len()),
        ("Green tea", 2)
    );
    assert_eq!(tea.product.variants[0].columns["Image Src"], "a.jpg");
    assert_eq!(tea.product.variants[0].prices, [usd(200)]);
    // Another currency is added beside the first.
    let won = b"Handle,Title,Variant SKU,Variant Price\ntea,,TEA,1300\n";
    let won = import_with(&*store, &TransferConfig::default(), "KRW", won)
        .await
        .unwrap();
    assert_eq!(won.updated, 1);
    let tea = store
        .batch_get(&[], &["TEA".into()], START_US)
        .await
        .unwrap()
        .remove(0);
    assert_eq!(tea.product.variants[0].prices, [krw(1300), usd(200)]);
    // A deleted product is not brought back by a file.
    store
        .delete(&at(START_US), tea.product.id, "")
        .await
        .unwrap();
    let report = import(&*store, &row("Tea,,,,,TRUE,,,TEA,,10,2.00,a.jpg,\n")).await;
    assert_eq!(counts(&report), (0, 0, 0, 1));
    assert!(report.refused[0].reason.contains("deleted"));
}

async fn files_that_cannot_be_read_are_refused(store: Arc<dyn Store>) {
    let small = TransferConfig {
        file_bytes_max: 100,
        rows_max: 2,
        ..TransferConfig::default()
    };
    let required = "Handle,Title,Variant SKU,Variant Price\n";
    for (file, config, reason) in [
        (String::new(), TransferConfig::default(), "is empty"),
        (
            "Handle,Title\n".into(),
            TransferConfig::default(),
            "\"Variant SKU\" is missing",
        ),
        (
            format!("Title,{required}"),
            TransferConfig::default(),
            "\"Title\" is there twice",
        ),
        (
            format!(",{required}"),
            TransferConfig::default(),
            "column 1 has no name",
        ),
        (
            format!("{required}{}", "a".repeat(100)),
            small.clone(),
            "larger than 100 bytes",
        ),
        (
            format!("{required}a,A,A,1\nb,B,B,1\nc,C,C,1\n"),
            small,
            "more than 2 rows",
        ),
    ] {
        let refused = import_with(&*store, &config, "USD", file.as_bytes()).await;
        let Err(Error::Invalid(invalid)) = refused else {
            panic!("{file}: {refused:?}")
        };
        assert_eq!(invalid[0].field, "file");
        assert!(invalid[0].reason.contains(reason), "{:?}", invalid[0]);
    }
    let latin = import_with(&*store, &TransferConfig::default(), "USD", b"Handle,\xff\n").await;
    let Err(Error::Invalid(invalid)) = latin else {
        panic!("{latin:?}")
    };
    assert_eq!(invalid[0].reason, "line 1 is not valid UTF-8");
}

async fn prices_are_never_dropped_silently(store: Arc<dyn Store>) {
    let mut both = draft("Both", vec![variant("BOTH", 1)]);
    both.variants[0].variant.prices = vec![usd(100), krw(1000)];
    create(&*store, &both, START_US).await;
    let config = TransferConfig::default();
    let refused = transfer::export(store.clone(), &config, currency("USD"), false).await;
    assert!(matches!(refused.err(), Some(Error::OtherPrices { sku, .. }) if sku == "BOTH"));
    let pieces = transfer::export(store.clone(), &config, currency("KRW"), true)
        .await
        .unwrap();
    let file: Vec<Bytes> = pieces.try_collect().await.unwrap();
    assert!(String::from_utf8(file.concat()).unwrap().contains(",1000,"));
}

async fn prices_follow_the_exponent_of_the_currency(store: Arc<dyn Store>) {
    let file = "Handle,Title,Variant SKU,Variant Price\na,A,A,1.5\nb,B,B,1500\n";
    let config = TransferConfig::default();
    let report = import_with(&*store, &config, "KRW", file.as_bytes())
        .await
        .unwrap();
    assert_eq!(counts(&report), (1, 0, 0, 1));
    assert_eq!(report.refused[0].reason, "has 1 decimals, but KRW has 0");
    check_round_trip(&store, "KRW").await;
}

async fn export_leaves_deleted_products_out(store: Arc<dyn Store>) {
    let mut ids = Vec::new();
    for index in 0..20 {
        let mut draft = draft(
            &format!("P{index}"),
            vec![variant(&format!("S{index}"), index)],
        );
        draft.description_html = "\"quoted\", and\nmore".into();
        ids.push(id(&create(&*store, &draft, START_US).await));
    }
    for gone in [0, 7, 8, 19] {
        store.delete(&at(START_US), ids[gone], "").await.unwrap();
    }
    let file = String::from_utf8(export(&store, "USD").await).unwrap();
    assert!(!file.contains("p7,") && file.contains("p6,") && file.contains("p18,"));
    check_round_trip(&store, "USD").await;
}

/// The real catalogue: 3,503 products.
#[tokio::test(flavor = "multi_thread")]
async fn chinook_goes_in_and_out_unchanged() {
    let folder = std::env::var_os("SHOP_DATA").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        PathBuf::from,
    );
    let path = folder.join("chinook-products.csv");
    let Ok(file) = std::fs::read(&path) else {
        println!(
            "SKIPPED chinook_goes_in_and_out_unchanged: no {}",
            path.display()
        );
        return;
    };
    let fresh = Fresh::open().await;
    let config = TransferConfig::default();
    let started = Instant::now();
    let report = import_with(&*fresh.store, &config, "USD", &file)
        .await
        .unwrap();
    println!("imported in {:?}", started.elapsed());
    assert_eq!(
        (counts(&report), report.refused),
        ((3_503, 0, 0, 0), vec![])
    );
    let again = import_with(&*fresh.store, &config, "USD", &file)
        .await
        .unwrap();
    assert_eq!(counts(&again), (0, 0, 3_503, 0));
    let first = export(&fresh.store, "USD").await;
    let other = Fresh::open().await;
    let report = import_with(&*other.store, &config, "USD", &first)
        .await
        .unwrap();
    assert_eq!(counts(&report), (3_503, 0, 0, 0));
    assert!(
        export(&other.store, "USD").await == first,
        "export, import, export: other bytes"
    );
    check_columns(&file, &first);
    assert_eq!(other.created().await, 3_503);
    let changes = stream::iter(0..4).then(|page| {
        let store = other.store.clone();
        async move { store.changes(page * 1000, 1000).await.unwrap().len() }
    });
    assert_eq!(changes.collect::<Vec<_>>().await, [1000, 1000, 1000, 503]);
}

/// Every cell of the file is in the export, in a column of the same name.
fn check_columns(file: &[u8], exported: &[u8]) {
    let read = |bytes: &[u8]| {
        let mut reader = csv::Reader::from_reader(bytes);
        let rows: Vec<std::collections::BTreeMap<String, String>> =
            reader.deserialize().collect::<Result<_, _>>().unwrap();
        rows
    };
    let (before, after) = (read(file), read(exported));
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        for (column, cell) in before {
            assert_eq!(&after[column], cell, "{column}");
        }
    }
}
