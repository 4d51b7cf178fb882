//! The sample catalogue that a new shop starts with, created through the product service's own API.
//!
//! A shop that was there before never gets it, nor does one from which sample products were deleted.
//! Every product is created under a request id of its own, so a load that was broken off is simply
//! repeated.

use crate::data_dir::DataDir;
use anyhow::Context as _;
use kernel::{Currency, Money};
use mesh::{CallContext, Principal};
use proto::commerce::money::v1 as pb_money;
use proto::commerce::product::v1::{self as pb, product_service_client::ProductServiceClient};
use serde::Deserialize;

/// The file in the data directory that says how far the catalogue is.
const STATE_FILE: &str = "sample-catalogue";
const LOADING: &str = "loading";
const LOADED: &str = "loaded";

const CATALOGUE: &str = include_str!("sample/catalogue.toml");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalogue {
    products: Vec<Product>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Product {
    title: String,
    category: String,
    vendor: String,
    tags: Vec<String>,
    description: String,
    variants: Vec<Variant>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Variant {
    sku: String,
    krw: String,
    usd: String,
    stock: i32,
    grams: i32,
    /// Name and value.
    option: Option<(String, String)>,
}

/// Whether the catalogue has to be loaded into this data directory. Decided, and remembered, before
/// anything else is written there.
pub(crate) fn is_wanted(data_dir: &DataDir) -> anyhow::Result<bool> {
    if data_dir.is_fresh() {
        data_dir.remember(STATE_FILE, LOADING)?;
        return Ok(true);
    }
    Ok(data_dir.recall(STATE_FILE)?.as_deref() == Some(LOADING))
}

/// Whether the catalogue was loaded once.
pub(crate) fn is_loaded(data_dir: &DataDir) -> anyhow::Result<bool> {
    Ok(data_dir.recall(STATE_FILE)?.as_deref() == Some(LOADED))
}

/// Creates what is missing of the catalogue; `progress` hears how many products of how many are there.
pub(crate) async fn load(
    client: ProductServiceClient<mesh::Client>,
    data_dir: &DataDir,
    progress: &(dyn Fn(usize, usize) + Send + Sync),
) -> anyhow::Result<()> {
    let requests = requests()?;
    let context = CallContext::root(Principal::new("sample", ["operator"]));
    let count = requests.len();
    context
        .scope(async {
            for (index, request) in requests.into_iter().enumerate() {
                create(client.clone(), request).await?;
                progress(index + 1, count);
            }
            anyhow::Ok(())
        })
        .await?;
    data_dir.remember(STATE_FILE, LOADED)
}

async fn create(
    mut client: ProductServiceClient<mesh::Client>,
    request: pb::CreateProductRequest,
) -> anyhow::Result<()> {
    let request_id = request.request_id.clone();
    match client.create_product(request).await {
        Ok(_) => Ok(()),
        // An earlier load created it so long ago that its request id is forgotten.
        Err(status) if status.code() == tonic::Code::AlreadyExists => Ok(()),
        Err(status) => Err(status).context(format!("sample product \"{request_id}\"")),
    }
}

fn requests() -> anyhow::Result<Vec<pb::CreateProductRequest>> {
    let catalogue: Catalogue = toml::from_str(CATALOGUE).context("the sample catalogue")?;
    catalogue.products.into_iter().map(request).collect()
}

fn request(product: Product) -> anyhow::Result<pb::CreateProductRequest> {
    let first = product
        .variants
        .first()
        .context("a product has a variant")?;
    let request_id = format!("sample-1-{}", first.sku);
    let variants = product
        .variants
        .into_iter()
        .map(variant)
        .collect::<anyhow::Result<Vec<_>>>()?;
    let product = pb::Product {
        title: product.title,
        category: product.category,
        vendor: product.vendor,
        tags: product.tags,
        description_html: format!("<p>{}</p>", product.description),
        variants,
        ..pb::Product::default()
    };
    Ok(pb::CreateProductRequest {
        product: Some(product),
        request_id,
    })
}

fn variant(variant: Variant) -> anyhow::Result<pb::Variant> {
    let options = variant.option.into_iter();
    Ok(pb::Variant {
        prices: vec![price("KRW", &variant.krw)?, price("USD", &variant.usd)?],
        sku: variant.sku,
        options: options
            .map(|(name, value)| pb::variant::Option { name, value })
            .collect(),
        initial_quantity: Some(variant.stock),
        weight_grams: variant.grams,
        ..pb::Variant::default()
    })
}

fn price(currency_code: &str, decimal: &str) -> anyhow::Result<pb_money::Money> {
    let currency = Currency::parse(currency_code)?;
    let amount_minor = Money::parse_decimal(decimal, currency)?.amount_minor();
    Ok(pb_money::Money {
        currency_code: currency_code.to_owned(),
        amount_minor,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_dir::Storage;
    use std::collections::BTreeSet;

    #[test]
    fn the_catalogue_is_whole() {
        let requests = requests().unwrap();
        assert!((55..=70).contains(&requests.len()), "{}", requests.len());
        let products = || {
            requests
                .iter()
                .map(|request| request.product.as_ref().unwrap())
        };
        let categories: BTreeSet<_> = products().map(|product| &product.category).collect();
        assert!(categories.len() >= 8, "{categories:?}");
        let titles: BTreeSet<_> = products().map(|product| &product.title).collect();
        assert_eq!(titles.len(), requests.len());
        let hangul = |title: &&&String| title.chars().any(|c| ('가'..='힣').contains(&c));
        assert!(titles.iter().filter(hangul).count() > 15);
        let variants: Vec<_> = products().flat_map(|product| &product.variants).collect();
        let skus: BTreeSet<_> = variants.iter().map(|variant| &variant.sku).collect();
        assert_eq!(skus.len(), variants.len());
        for variant in variants {
            kernel::text::sku("sku", &variant.sku).unwrap();
            assert!(
                variant.prices.iter().all(|price| price.amount_minor > 0),
                "{}",
                variant.sku
            );
            assert!(variant.initial_quantity > Some(0), "{}", variant.sku);
        }
        assert!(skus.contains(&crate::screen::SAMPLE_SKU.to_owned()));
    }

    #[test]
    fn only_a_new_shop_wants_it_until_it_is_loaded() {
        let parent = tempfile::tempdir().unwrap();
        let storage = Storage::Folder(parent.path().to_owned());
        let open = || DataDir::open(&storage).unwrap();
        assert!(is_wanted(&open()).unwrap());
        assert!(is_wanted(&open()).unwrap(), "broken off, so once more");
        open().remember(STATE_FILE, LOADED).unwrap();
        assert!(!is_wanted(&open()).unwrap());
        assert!(is_loaded(&open()).unwrap());

        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join("product.db"), "").unwrap();
        let storage = Storage::Folder(other.path().to_owned());
        assert!(!is_wanted(&DataDir::open(&storage).unwrap()).unwrap());
    }
}
