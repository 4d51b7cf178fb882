//! The currency table against the published list.

use kernel::Currency;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// `SHOP_DATA` names the folder of the public reference data; without it a folder beside the
/// workspace is tried.
#[test]
fn table_agrees_with_the_published_list() {
    let folder = std::env::var_os("SHOP_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")),
        PathBuf::from,
    );
    let Ok(list) = std::fs::read_to_string(folder.join("iso4217.csv")) else {
        println!("SKIPPED table_agrees_with_the_published_list: no iso4217.csv in SHOP_DATA");
        return;
    };
    let published: BTreeMap<&str, u32> = list
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut columns = line.split(',');
            let code = columns.next()?;
            Some((code, columns.nth(1)?.parse().ok()?))
        })
        .collect();
    let ours: BTreeMap<&str, u32> = Currency::all()
        .map(|currency| (currency.code(), currency.exponent()))
        .collect();
    assert_eq!(ours, published);
}
