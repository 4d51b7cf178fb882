//! Rows to products and back, without a store.

use std::collections::HashMap;

use kernel::{Currency, ProductId};
use proptest::prelude::*;

use super::{
    Known,
    export::Exporter,
    import::{Grouper, Layout, Merged, Refusal},
    parser::{Limits, Parser, Record},
};
use crate::product::Product;

fn records(file: &str) -> Vec<Record> {
    let mut parser = Parser::new(Limits {
        field_bytes_max: 10_000,
        fields_max: 100,
    });
    let mut records = Vec::new();
    parser.push(file.as_bytes(), &mut records).unwrap();
    parser.finish(&mut records).unwrap();
    records
}

/// A product with its units by SKU.
type Stocked = (Product, HashMap<String, i32>);

/// The products of a file, as an empty shop takes them.
fn products(file: &str) -> (Layout, Vec<Stocked>, Vec<Refusal>) {
    let mut records = records(file).into_iter();
    let layout = Layout::parse(&records.next().unwrap()).unwrap();
    let mut grouper = Grouper::new(layout.clone(), Currency::parse("USD").unwrap());
    let mut refused = Vec::new();
    let mut groups: Vec<_> = records
        .filter_map(|record| grouper.push(record, &mut refused))
        .collect();
    groups.extend(grouper.finish());
    let mut products = Vec::new();
    for group in groups {
        let id = || ProductId::generate(0);
        match group.merge(None, |_| None, id, 0, &mut refused) {
            Merged::Created(product, quantities) => products.push((product, quantities)),
            Merged::Refused => {}
            other => panic!("{other:?}"),
        }
    }
    (layout, products, refused)
}

fn export(columns: &[String], products: &[Stocked]) -> String {
    let exporter = Exporter::new(columns, Currency::parse("USD").unwrap());
    let mut file = Vec::new();
    exporter.header(&mut file);
    for (product, on_hand) in products {
        exporter.product(&mut file, product, on_hand);
    }
    String::from_utf8(file).unwrap()
}

#[test]
fn every_known_column_is_read_by_its_name() {
    for (name, column) in Known::ALL {
        assert_eq!(Known::parse(name), Some(column));
        assert_eq!(column.name(), name);
    }
    assert_eq!(Known::parse("handle"), None);
}

#[test]
fn the_header_keeps_its_order_and_gains_what_is_missing() {
    let seen = ["Image Src", "Variant Price", "Handle"].map(str::to_owned);
    let file = export(&seen, &[]);
    assert!(
        file.starts_with("Image Src,Variant Price,Handle,Title,Body (HTML),"),
        "{file}"
    );
    assert_eq!(file.matches("Handle").count(), 1);
    assert!(file.ends_with(",Status\r\n"));
}

#[test]
fn rows_without_a_variant_stay_where_they_were() {
    let file = "Handle,Title,Variant SKU,Variant Price,Image Src\n\
                a,A,A-1,1,1.jpg\na,,,,2.jpg\na,,A-2,2,3.jpg\na,,,,4.jpg\n";
    let (layout, products, refused) = products(file);
    assert_eq!(refused, []);
    let exported = export(layout.names(), &products);
    let images: Vec<&str> = exported
        .lines()
        .skip(1)
        .map(|line| line.split(',').nth(4).unwrap())
        .collect();
    assert_eq!(images, ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]);
    let titles: Vec<&str> = exported
        .lines()
        .skip(1)
        .map(|line| line.split(',').nth(1).unwrap())
        .collect();
    assert_eq!(titles, ["A", "", "", ""]);
}

#[test]
fn option_names_are_inherited_past_rows_without_a_variant() {
    let file = "Handle,Title,Option1 Name,Option1 Value,Variant SKU,Variant Price,Image Src\n\
                a,A,,,,,1.jpg\na,,Size,S,A-1,1,\na,,,M,A-2,1,\n";
    let (layout, taken, refused) = products(file);
    assert_eq!(refused, []);
    let names: Vec<&str> = taken[0]
        .0
        .variants
        .iter()
        .map(|variant| variant.options[0].name.as_str())
        .collect();
    assert_eq!(names, ["Size", "Size"]);
    let first = export(layout.names(), &taken);
    let (layout, again, refused) = products(&first);
    assert_eq!(refused, []);
    assert_eq!(export(layout.names(), &again), first);
}

proptest! {
    /// Whatever is taken from a file is written the same a second time.
    #[test]
    fn export_import_export_is_stable(
        rows in prop::collection::vec(
            (
                prop::sample::select(vec!["a", "b", "c", "가"]),
                "[A-C가\"\n ]{0,4}",
                prop::sample::select(vec!["", "S", "M"]),
                "[A-E]{0,1}",
                prop::sample::select(vec!["", "0", "1.5", "2.50", "x", "1.999"]),
                "[xy, \"\n]{0,3}",
            ),
            1..14,
        ),
    ) {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let header =
            ["Handle", "Title", "Option1 Value", "Variant SKU", "Variant Price", "Extra", "Option1 Name"];
        writer.write_record(header).unwrap();
        let mut rows = rows;
        rows.sort_by_key(|row| row.0);
        let mut skus = std::collections::HashMap::new();
        for (handle, title, option, sku, price, extra) in rows {
            // A SKU belongs to one product only: what a store would refuse is left out here.
            let sku = if sku.is_empty() || *skus.entry(sku.clone()).or_insert(handle) == handle {
                sku
            } else {
                String::new()
            };
            let fields = [handle, &title, option, &sku, price, &extra, "Size"];
            writer.write_record(fields).unwrap();
        }
        let file = String::from_utf8(writer.into_inner().unwrap()).unwrap();
        let (layout, taken, _) = products(&file);
        let first = export(layout.names(), &taken);
        let (layout, again, refused) = products(&first);
        prop_assert_eq!(refused, vec![]);
        prop_assert_eq!(export(layout.names(), &again), first);
    }
}
