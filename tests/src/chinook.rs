//! The real data that the shop is tried on, and sums over it in integers, from the files alone.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

/// The Chinook files in the folder that `SHOP_DATA` names, else in `../shared/data` beside the workspace.
pub struct Chinook {
    /// The product file as it is.
    pub products_csv: Vec<u8>,
    /// The products by SKU.
    pub products: BTreeMap<String, Product>,
    /// The orders in the order of the file.
    pub orders: Vec<Order>,
}

/// What the sums need of a product.
pub struct Product {
    /// The column `Type`.
    pub category: String,
    /// The column `Variant Price` in cents.
    pub price_minor: i64,
    /// The column `Variant Inventory Qty`.
    pub quantity: i64,
}

/// One order with its lines.
pub struct Order {
    /// The column `order_ref`.
    pub order_ref: String,
    /// The column `customer_ref`.
    pub customer_ref: String,
    /// The column `ordered_at`, RFC 3339 in UTC.
    pub ordered_at: String,
    /// SKU, price in cents, quantity.
    pub lines: Vec<(String, i64, i64)>,
}

/// What some lines add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Cents.
    pub amount_minor: i64,
    /// Units.
    pub quantity: i64,
    /// Orders with such a line.
    pub orders: i64,
}

impl Chinook {
    /// Reads the files; `None`, and a line that says SKIPPED, where they are not there.
    pub fn load(test: &str) -> Option<Chinook> {
        let folder = folder();
        if !folder.join("chinook-orders.csv").exists() {
            println!(
                "SKIPPED {test}: no Chinook data in {} (set SHOP_DATA)",
                folder.display()
            );
            return None;
        }
        Some(Chinook::read(&folder).expect("the Chinook files are as their README says"))
    }

    fn read(folder: &std::path::Path) -> anyhow::Result<Chinook> {
        let products_csv = std::fs::read(folder.join("chinook-products.csv"))?;
        let mut products = BTreeMap::new();
        for row in csv::Reader::from_reader(&products_csv[..]).deserialize() {
            let row: BTreeMap<String, String> = row?;
            let product = Product {
                category: row["Type"].clone(),
                price_minor: cents(&row["Variant Price"])?,
                quantity: row["Variant Inventory Qty"].parse()?,
            };
            ensure!(
                products
                    .insert(row["Variant SKU"].clone(), product)
                    .is_none()
            );
        }
        let mut orders: Vec<Order> = Vec::new();
        for row in csv::Reader::from_path(folder.join("chinook-orders.csv"))?.deserialize() {
            let row: BTreeMap<String, String> = row?;
            if orders
                .last()
                .is_none_or(|order| order.order_ref != row["order_ref"])
            {
                orders.push(Order {
                    order_ref: row["order_ref"].clone(),
                    customer_ref: row["customer_ref"].clone(),
                    ordered_at: row["ordered_at"].clone(),
                    lines: Vec::new(),
                });
            }
            let line = (
                row["sku"].clone(),
                cents(&row["unit_price"])?,
                row["quantity"].parse()?,
            );
            orders.last_mut().context("pushed above")?.lines.push(line);
        }
        Ok(Chinook {
            products_csv,
            products,
            orders,
        })
    }

    /// Adds up the lines of all orders under the key that each line has.
    pub fn sums<K: Ord>(&self, key: impl Fn(&Order, &str) -> K) -> BTreeMap<K, Sum> {
        let mut sums: BTreeMap<K, Sum> = BTreeMap::new();
        let mut counted: BTreeMap<K, &str> = BTreeMap::new();
        for order in &self.orders {
            for (sku, price_minor, quantity) in &order.lines {
                let sum = sums.entry(key(order, sku)).or_default();
                sum.amount_minor += price_minor * quantity;
                sum.quantity += quantity;
                let last = counted.insert(key(order, sku), &order.order_ref);
                sum.orders += i64::from(last != Some(&order.order_ref));
            }
        }
        sums
    }
}

impl Order {
    /// The UTC day of the order.
    pub fn day(&self) -> &str {
        &self.ordered_at[..10]
    }

    /// What the customer has to pay, in cents.
    pub fn amount_minor(&self) -> i64 {
        self.lines
            .iter()
            .map(|(_, price_minor, quantity)| price_minor * quantity)
            .sum()
    }

    /// The order as a request to pay for it.
    pub fn request(&self) -> Value {
        let items: Vec<Value> = (self.lines.iter())
            .map(|(sku, _, quantity)| json!({"sku": sku, "quantity": quantity}))
            .collect();
        json!({
            "orderRef": self.order_ref,
            "customerRef": self.customer_ref,
            "currencyCode": "USD",
            "items": items,
            "paymentMethod": "pm_card_visa",
            "confirm": true,
            "expectedAmount": {"currencyCode": "USD", "amountMinor": self.amount_minor().to_string()},
            "orderedAt": self.ordered_at,
        })
    }
}

fn folder() -> PathBuf {
    #[expect(
        clippy::disallowed_methods,
        reason = "where a test's data lies, not configuration"
    )]
    let named = std::env::var("SHOP_DATA");
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data");
    PathBuf::from(named.unwrap_or_else(|_| beside.to_owned()))
}

/// Cents of `12.34`, without floats.
fn cents(price: &str) -> anyhow::Result<i64> {
    let (whole, fraction) = price
        .split_once('.')
        .with_context(|| format!("price {price}"))?;
    ensure!(fraction.len() == 2, "price {price}");
    Ok(whole.parse::<i64>()? * 100 + fraction.parse::<i64>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_become_cents_exactly() {
        assert_eq!(cents("0.99").unwrap(), 99);
        assert_eq!(cents("12.05").unwrap(), 1205);
        assert!(cents("1.9").is_err());
        assert!(cents("1").is_err());
    }

    #[test]
    fn an_order_counts_once_a_key() {
        let line = |sku: &str, quantity| (sku.to_owned(), 99, quantity);
        let order = |order_ref: &str, lines| Order {
            order_ref: order_ref.to_owned(),
            customer_ref: String::new(),
            ordered_at: "2021-01-01T00:00:00Z".to_owned(),
            lines,
        };
        let orders = vec![
            order("A", vec![line("x", 1), line("y", 2)]),
            order("B", vec![line("x", 1)]),
        ];
        let chinook = Chinook {
            products_csv: Vec::new(),
            products: BTreeMap::new(),
            orders,
        };
        let sums = chinook.sums(|order, _| order.day().to_owned());
        assert_eq!(
            sums["2021-01-01"],
            Sum {
                amount_minor: 396,
                quantity: 4,
                orders: 2
            }
        );
    }
}
