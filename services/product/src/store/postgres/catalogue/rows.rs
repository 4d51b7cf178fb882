//! Reading products whole, however many, in one statement: what it sees is of one moment.

use std::collections::{BTreeMap, HashMap};

use kernel::{Currency, Money, ProductId};
use sqlx::{FromRow as _, PgConnection, Row as _, postgres::PgRow, types::Json};

use crate::{
    error::Error,
    listing::{Sales, View},
    product::{ExtraRow, Product, Status, Variant, VariantOption},
    store::corrupt,
};

/// Units of `s.sku` that overdue holds still count as reserved; `$1` is now. One range of one index,
/// and nearly always empty: the sweeper comes by.
macro_rules! overdue {
    () => {
        "coalesce((SELECT sum(l.quantity - l.committed_quantity) FROM reservation_line l \
             WHERE l.sku = s.sku AND l.held_until_us <= $1), 0)::integer"
    };
}
pub(in crate::store::postgres) use overdue;

/// What [`stored`] reads of a product `p`; `$1` is now.
macro_rules! whole {
    () => {
        concat!(
            "p.seq, p.id, p.handle, p.title, p.description_html, p.vendor, p.category, p.tags, \
             p.status, p.extra_rows, p.version, p.created_at_us, p.updated_at_us, p.deleted_at_us, ",
            "coalesce((SELECT json_agg(json_build_array(currency_code, quantity, amount_minor)) \
                 FROM product_sales WHERE product_id = p.id), '[]') AS sales, ",
            "coalesce((SELECT json_agg(json_build_object( \
                 'sku', v.sku, 'options', v.options, 'barcode', v.barcode, \
                 'weight_grams', v.weight_grams, 'columns', v.columns, \
                 'on_hand', s.on_hand, 'available', s.on_hand - s.reserved + ",
            $crate::store::postgres::catalogue::overdue!(),
            ", 'prices', coalesce((SELECT json_agg(json_build_array(currency_code, amount_minor) \
                     ORDER BY currency_code) FROM price WHERE price.sku = v.sku), '[]')) \
                 ORDER BY v.position) \
             FROM variant v JOIN stock s ON s.sku = v.sku WHERE v.product_id = p.id), '[]') \
             AS variants"
        )
    };
}
pub(in crate::store::postgres) use whole;

/// A product as it is stored, with what belongs to it.
#[derive(Debug, Clone)]
pub(in crate::store::postgres) struct Stored {
    /// Its place in the order of creation.
    pub(in crate::store::postgres) seq: i64,
    /// The product as it is shown.
    pub(in crate::store::postgres) view: View,
    /// Units in the house, by SKU.
    pub(in crate::store::postgres) on_hand: HashMap<String, i32>,
}

/// Which products to load.
#[derive(Clone, Copy)]
pub(in crate::store::postgres) enum Wanted<'a> {
    /// By id.
    Ids(&'a [String]),
    /// By id, and by the SKU of one of their variants.
    IdsAndSkus(&'a [String], &'a [String]),
    /// By handle.
    Handles(&'a [String]),
}

/// Loads products in no particular order; those that are not there are left out.
pub(in crate::store::postgres) async fn load(
    connection: &mut PgConnection,
    wanted: Wanted<'_>,
    now_us: i64,
) -> Result<Vec<Stored>, Error> {
    let select = match wanted {
        Wanted::Ids(ids) => sqlx::query(SELECT_BY_ID).bind(now_us).bind(ids),
        Wanted::IdsAndSkus(ids, skus) => {
            let select = sqlx::query(SELECT_BY_ID_OR_SKU).bind(now_us);
            select.bind(ids).bind(skus)
        }
        Wanted::Handles(handles) => sqlx::query(SELECT_BY_HANDLE).bind(now_us).bind(handles),
    };
    let rows = select.fetch_all(connection).await?;
    rows.iter().map(stored).collect()
}

const SELECT_BY_ID: &str = concat!("SELECT ", whole!(), " FROM product p WHERE p.id = ANY($2)");
/// The ids are known before the products are looked for: an OR of both would read all of them.
const SELECT_BY_ID_OR_SKU: &str = concat!(
    "SELECT ",
    whole!(),
    " FROM product p WHERE p.id = ANY(ARRAY( \
         SELECT unnest($2) UNION SELECT product_id FROM variant WHERE sku = ANY($3)))"
);
const SELECT_BY_HANDLE: &str = concat!(
    "SELECT ",
    whole!(),
    " FROM product p WHERE p.handle = ANY($2)"
);

/// Reads a row of [`whole`].
pub(in crate::store::postgres) fn stored(row: &PgRow) -> Result<Stored, Error> {
    ProductRow::from_row(row)?.stored()
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
    tags: Vec<String>,
    status: String,
    extra_rows: Json<Vec<(usize, BTreeMap<String, String>)>>,
    version: i64,
    created_at_us: i64,
    updated_at_us: i64,
    deleted_at_us: Option<i64>,
    sales: Json<Vec<(String, i64, i64)>>,
    variants: Json<Vec<VariantRow>>,
}

impl ProductRow {
    fn stored(self) -> Result<Stored, Error> {
        let sales = self.sales.0;
        let mut revenue: Vec<(String, i64)> = sales
            .iter()
            .map(|(code, _, amount_minor)| (code.clone(), *amount_minor))
            .collect();
        revenue.sort();
        let variants = self.variants.0;
        let extra_rows = self.extra_rows.0.into_iter();
        Ok(Stored {
            seq: self.seq,
            on_hand: variants
                .iter()
                .map(|row| (row.sku.clone(), row.on_hand))
                .collect(),
            view: View {
                available: variants.iter().map(|row| row.available).collect(),
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
                    tags: self.tags,
                    status: Status::parse(&self.status).ok_or_else(|| corrupt("status"))?,
                    handle: self.handle,
                    variants: variants
                        .into_iter()
                        .map(VariantRow::variant)
                        .collect::<Result<_, _>>()?,
                    extra_rows: extra_rows
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

#[derive(serde::Deserialize)]
struct VariantRow {
    sku: String,
    options: Vec<(String, String)>,
    barcode: String,
    weight_grams: i32,
    columns: BTreeMap<String, String>,
    on_hand: i32,
    available: i32,
    prices: Vec<(String, i64)>,
}

impl VariantRow {
    fn variant(self) -> Result<Variant, Error> {
        let option = |(name, value)| VariantOption { name, value };
        Ok(Variant {
            sku: self.sku,
            options: self.options.into_iter().map(option).collect(),
            prices: self
                .prices
                .iter()
                .map(|(code, amount_minor)| money(code, *amount_minor))
                .collect::<Result<_, _>>()?,
            barcode: self.barcode,
            weight_grams: self.weight_grams,
            columns: self.columns,
        })
    }
}

/// An amount as it is stored.
pub(in crate::store::postgres) fn money(code: &str, amount_minor: i64) -> Result<Money, Error> {
    let currency = Currency::parse(code).map_err(|_| corrupt("currency"))?;
    Money::new(currency, amount_minor).map_err(|_| corrupt("amount"))
}

/// A column of a row that is there by the query.
pub(in crate::store::postgres) fn column<'r, T>(row: &'r PgRow, name: &str) -> Result<T, Error>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    Ok(row.try_get(name)?)
}
