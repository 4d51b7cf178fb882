//! Reading products whole, however many: three statements.

use std::collections::{BTreeMap, HashMap};

use kernel::{Currency, Money, ProductId};
use sqlx::{FromRow as _, Row as _, sqlite::SqliteRow};

use crate::{
    error::Error,
    listing::{Sales, View},
    product::{ExtraRow, Product, Status, Variant, VariantOption},
    store::sqlite::{Connection, corrupt, json_texts},
};

/// A product as it is stored, with what belongs to it.
#[derive(Debug, Clone)]
pub(in crate::store::sqlite) struct Stored {
    /// Its place in the order of creation.
    pub(in crate::store::sqlite) seq: i64,
    /// The product as it is shown.
    pub(in crate::store::sqlite) view: View,
    /// Units in the house, by SKU.
    pub(in crate::store::sqlite) on_hand: HashMap<String, i32>,
}

/// Which products to load.
pub(in crate::store::sqlite) enum Wanted {
    /// By id.
    Ids(String),
    /// By handle.
    Handles(String),
    /// By place in the order of creation.
    Seqs(String),
}

/// Loads products in no particular order; those that are not there are left out.
pub(in crate::store::sqlite) async fn load(
    connection: &mut Connection,
    wanted: Wanted,
    now_us: i64,
) -> Result<Vec<Stored>, Error> {
    let (select, list) = match wanted {
        Wanted::Ids(list) => (SELECT_BY_ID, list),
        Wanted::Handles(list) => (SELECT_BY_HANDLE, list),
        Wanted::Seqs(list) => (SELECT_BY_SEQ, list),
    };
    let rows = sqlx::query(select)
        .bind(list)
        .fetch_all(&mut *connection)
        .await?;
    let products: Vec<ProductRow> = rows
        .iter()
        .map(ProductRow::from_row)
        .collect::<Result<_, _>>()?;
    let ids = json_texts(products.iter().map(|row| &row.id));
    let rows = sqlx::query(SELECT_VARIANTS)
        .bind(ids)
        .fetch_all(&mut *connection)
        .await?;
    let mut variants: HashMap<String, Vec<VariantRow>> = HashMap::new();
    let mut skus = Vec::new();
    for row in &rows {
        let row = VariantRow::from_row(row)?;
        skus.push(row.sku.clone());
        variants
            .entry(row.product_id.clone())
            .or_default()
            .push(row);
    }
    let overdue = overdue(connection, &skus, now_us).await?;
    let whole = |row: ProductRow| {
        let variants = variants.remove(&row.id).unwrap_or_default();
        row.with(variants, &overdue)
    };
    products.into_iter().map(whole).collect()
}

const SELECT_BY_ID: &str = concat!(
    "SELECT p.*, (SELECT json_group_array(json_array(currency_code, quantity, amount_minor)) ",
    "FROM product_sales s WHERE s.product_id = p.id) AS sales FROM product p ",
    "WHERE p.id IN (SELECT value FROM json_each(?))"
);
const SELECT_BY_HANDLE: &str = concat!(
    "SELECT p.*, (SELECT json_group_array(json_array(currency_code, quantity, amount_minor)) ",
    "FROM product_sales s WHERE s.product_id = p.id) AS sales FROM product p ",
    "WHERE p.handle IN (SELECT value FROM json_each(?))"
);
const SELECT_BY_SEQ: &str = concat!(
    "SELECT p.*, (SELECT json_group_array(json_array(currency_code, quantity, amount_minor)) ",
    "FROM product_sales s WHERE s.product_id = p.id) AS sales FROM product p ",
    "WHERE p.seq IN (SELECT value FROM json_each(?))"
);
const SELECT_VARIANTS: &str = concat!(
    "SELECT v.*, s.on_hand, s.reserved, ",
    "(SELECT json_group_array(json_array(currency_code, amount_minor)) ",
    "FROM price WHERE price.sku = v.sku) AS prices ",
    "FROM variant v JOIN stock s ON s.sku = v.sku ",
    "WHERE v.product_id IN (SELECT value FROM json_each(?)) ORDER BY v.product_id, v.position"
);

/// Units that overdue holds still count as reserved, by SKU. There are only those that the sweeper
/// has not come to yet.
pub(in crate::store::sqlite) async fn overdue(
    connection: &mut Connection,
    skus: &[String],
    now_us: i64,
) -> Result<HashMap<String, i32>, Error> {
    let rows: Vec<(String, i32)> = sqlx::query_as(
        "SELECT l.sku, sum(l.quantity - l.committed_quantity) \
         FROM reservation r JOIN reservation_line l ON l.reservation_id = r.id \
         WHERE r.state = 'HELD' AND r.expires_at_us <= ? \
             AND l.sku IN (SELECT value FROM json_each(?)) GROUP BY l.sku",
    )
    .bind(now_us)
    .bind(json_texts(skus))
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().collect())
}

#[derive(sqlx::FromRow)]
struct ProductRow {
    seq: i64,
    id: String,
    handle: String,
    title: String,
    description_html: String,
    vendor: String,
    category: String,
    tags: String,
    status: String,
    extra_rows: String,
    version: i64,
    created_at_us: i64,
    updated_at_us: i64,
    deleted_at_us: Option<i64>,
    sales: String,
}

impl ProductRow {
    fn with(
        self,
        variants: Vec<VariantRow>,
        overdue: &HashMap<String, i32>,
    ) -> Result<Stored, Error> {
        let parse = |_| corrupt("product");
        let extra_rows: Vec<(usize, BTreeMap<String, String>)> =
            serde_json::from_str(&self.extra_rows).map_err(parse)?;
        let sales: Vec<(String, i64, i64)> = serde_json::from_str(&self.sales).map_err(parse)?;
        let mut revenue: Vec<(String, i64)> = sales
            .iter()
            .map(|(code, _, amount_minor)| (code.clone(), *amount_minor))
            .collect();
        revenue.sort();
        let available = |row: &VariantRow| {
            row.on_hand - row.reserved + overdue.get(&row.sku).copied().unwrap_or(0)
        };
        Ok(Stored {
            seq: self.seq,
            on_hand: variants
                .iter()
                .map(|row| (row.sku.clone(), row.on_hand))
                .collect(),
            view: View {
                available: variants.iter().map(available).collect(),
                sales: Sales {
                    quantity: sales.iter().map(|(_, units, _)| units).sum(),
                    revenue,
                },
                product: Product {
                    id: ProductId::parse(&self.id).map_err(|_| corrupt("product id"))?,
                    title: self.title,
                    description_html: self.description_html,
                    vendor: self.vendor,
                    category: self.category,
                    tags: serde_json::from_str(&self.tags).map_err(parse)?,
                    status: Status::parse(&self.status).ok_or_else(|| corrupt("status"))?,
                    handle: self.handle,
                    variants: variants
                        .into_iter()
                        .map(VariantRow::variant)
                        .collect::<Result<_, _>>()?,
                    extra_rows: extra_rows
                        .into_iter()
                        .map(|(after, columns)| ExtraRow { after, columns })
                        .collect(),
                    version: self.version,
                    created_at_us: self.created_at_us,
                    updated_at_us: self.updated_at_us,
                    deleted_at_us: self.deleted_at_us,
                },
            },
        })
    }
}

#[derive(sqlx::FromRow)]
struct VariantRow {
    sku: String,
    product_id: String,
    options: String,
    barcode: String,
    weight_grams: i32,
    columns: String,
    on_hand: i32,
    reserved: i32,
    prices: String,
}

impl VariantRow {
    fn variant(self) -> Result<Variant, Error> {
        let parse = |_| corrupt("variant");
        let options: Vec<(String, String)> = serde_json::from_str(&self.options).map_err(parse)?;
        let prices: Vec<(String, i64)> = serde_json::from_str(&self.prices).map_err(parse)?;
        let mut prices: Vec<Money> = prices
            .iter()
            .map(|(code, amount_minor)| money(code, *amount_minor))
            .collect::<Result<_, _>>()?;
        prices.sort_by_key(|price| price.currency().code());
        let option = |(name, value)| VariantOption { name, value };
        Ok(Variant {
            sku: self.sku,
            options: options.into_iter().map(option).collect(),
            prices,
            barcode: self.barcode,
            weight_grams: self.weight_grams,
            columns: serde_json::from_str(&self.columns).map_err(parse)?,
        })
    }
}

/// An amount as it is stored.
pub(in crate::store::sqlite) fn money(code: &str, amount_minor: i64) -> Result<Money, Error> {
    let currency = Currency::parse(code).map_err(|_| corrupt("currency"))?;
    Money::new(currency, amount_minor).map_err(|_| corrupt("amount"))
}

/// A column of a row that is there by the query.
pub(in crate::store::sqlite) fn column<'r, T>(row: &'r SqliteRow, name: &str) -> Result<T, Error>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    Ok(row.try_get(name)?)
}
