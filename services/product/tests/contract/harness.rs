//! What is asked of every store, and short words for what the scenarios say often.

use std::collections::BTreeMap;

use kernel::{Currency, Money, ProductId, ReservationId};
use mesh_store::idempotency::{Key, fingerprint};
use product::{
    error::Error,
    listing::ListQuery,
    product::{Draft, Variant, VariantDraft},
    reservation::{Command, Part, Wish},
    store::{Adjustment, Answer, Origin, Store},
};
use proto::commerce::product::v1 as pb;

/// 2026-01-01T00:00:00Z.
pub(crate) const START_US: i64 = 1_767_225_600_000_000;
pub(crate) const SECOND_US: i64 = 1_000_000;

/// Runs scenarios on a fresh store of the kind that this target is for.
macro_rules! on_every_store {
    ($($scenario:ident)*) => {$(
        mod $scenario {
            #[tokio::test(flavor = "multi_thread")]
            async fn holds() {
                let fresh = $crate::fresh::Fresh::open().await;
                super::$scenario(fresh.store.clone()).await;
                fresh.check().await;
            }
        }
    )*};
}
pub(crate) use on_every_store;

/// SKU, on hand, reserved and held of stock that breaks its invariant, in SQL of its own: `0 <= reserved <= on
/// hand`, and reserved is what held reservations hold.
pub(crate) const WRONG_STOCK: &str = "SELECT s.sku, CAST(s.on_hand AS bigint), CAST(s.reserved AS bigint), \
         CAST(coalesce(h.held, 0) AS bigint) FROM stock s LEFT JOIN ( \
         SELECT l.sku, sum(l.quantity - l.committed_quantity) AS held \
         FROM reservation_line l JOIN reservation r ON r.id = l.reservation_id \
         WHERE r.state = 'HELD' GROUP BY l.sku) h ON h.sku = s.sku \
     WHERE s.reserved <> coalesce(h.held, 0) OR s.reserved < 0 OR s.reserved > s.on_hand";

/// How many products were told of as new.
pub(crate) const CREATED: &str =
    "SELECT count(*) FROM mesh_outbox WHERE kind = 'product.ProductCreated.v1'";

pub(crate) fn usd(amount_minor: i64) -> Money {
    Money::new(Currency::parse("USD").unwrap(), amount_minor).unwrap()
}

pub(crate) fn krw(amount_minor: i64) -> Money {
    Money::new(Currency::parse("KRW").unwrap(), amount_minor).unwrap()
}

/// A call without a key.
pub(crate) fn at(now_us: i64) -> Origin {
    Origin {
        key: None,
        now_us,
        traceparent: String::new(),
    }
}

/// A call with a key, of a request that is told apart by `request`.
pub(crate) fn keyed(request_id: &str, request: &str, now_us: i64) -> Origin {
    let key = Key {
        principal: "tester".into(),
        method: "/commerce.product.v1.ProductService/Test".into(),
        request_id: request_id.into(),
        fingerprint: fingerprint(request.as_bytes()),
    };
    Origin {
        key: Some(key),
        now_us,
        traceparent: String::new(),
    }
}

pub(crate) fn variant(sku: &str, quantity: i32) -> VariantDraft {
    VariantDraft {
        variant: Variant {
            sku: sku.into(),
            options: Vec::new(),
            prices: vec![usd(199)],
            barcode: String::new(),
            weight_grams: 0,
            columns: BTreeMap::new(),
        },
        initial_quantity: Some(quantity),
    }
}

pub(crate) fn draft(title: &str, variants: Vec<VariantDraft>) -> Draft {
    Draft {
        title: title.into(),
        description_html: String::new(),
        vendor: "Vendor".into(),
        category: "Category".into(),
        tags: Vec::new(),
        status: None,
        handle: String::new(),
        variants,
    }
}

pub(crate) async fn create(store: &dyn Store, draft: &Draft, now_us: i64) -> pb::Product {
    store.create(&at(now_us), draft).await.unwrap().resource
}

/// A product with one variant of that SKU and so many units.
pub(crate) async fn stocked(store: &dyn Store, sku: &str, quantity: i32) -> pb::Product {
    create(store, &draft(sku, vec![variant(sku, quantity)]), START_US).await
}

pub(crate) fn parts(parts: &[(&str, i32)]) -> Vec<Part> {
    parts
        .iter()
        .map(|(sku, quantity)| Part {
            sku: (*sku).into(),
            quantity: *quantity,
        })
        .collect()
}

pub(crate) fn wish(units: &[(&str, i32)], expires_at_us: i64) -> Wish {
    Wish {
        reference: "pay_test".into(),
        parts: parts(units),
        currency: Currency::parse("USD").unwrap(),
        expires_at_us,
    }
}

pub(crate) async fn reserve(
    store: &dyn Store,
    units: &[(&str, i32)],
    ttl_s: i64,
    now_us: i64,
) -> Result<ReservationId, Error> {
    let wish = wish(units, now_us + ttl_s * SECOND_US);
    let reserved = store.reserve(&at(now_us), &wish).await?;
    Ok(ReservationId::parse(&reserved.resource.id).unwrap())
}

pub(crate) async fn command(
    store: &dyn Store,
    id: ReservationId,
    command: Command,
    now_us: i64,
) -> Result<Answer<pb::Reservation>, Error> {
    store.command(&at(now_us), id, &command).await
}

pub(crate) fn commit(units: &[(&str, i32)], release_rest: bool) -> Command {
    Command::Commit {
        parts: parts(units),
        release_rest,
    }
}

pub(crate) fn restock(units: &[(&str, i32)]) -> Command {
    Command::Restock {
        parts: parts(units),
    }
}

pub(crate) async fn adjust(
    store: &dyn Store,
    sku: &str,
    delta: i32,
    now_us: i64,
) -> Result<pb::Stock, Error> {
    let adjustment = Adjustment {
        sku: sku.into(),
        delta,
        reason: "counted".into(),
    };
    Ok(store.adjust(&at(now_us), &adjustment).await?.resource)
}

/// On hand, reserved, available.
pub(crate) async fn units(store: &dyn Store, sku: &str, now_us: i64) -> (i32, i32, i32) {
    let stock = store.stock(sku, now_us).await.unwrap();
    (stock.on_hand, stock.held(), stock.available())
}

pub(crate) fn id(product: &pb::Product) -> ProductId {
    ProductId::parse(&product.id).unwrap()
}

/// The titles that a list shows, page by page.
pub(crate) async fn titles(
    store: &dyn Store,
    filter: &str,
    order_by: &str,
    page_size: i32,
) -> Vec<String> {
    let mut titles = Vec::new();
    let mut token = String::new();
    loop {
        let query = ListQuery::parse(page_size, &token, filter, order_by, false).unwrap();
        let page = store.list(&query, START_US).await.unwrap();
        assert!(page.views.len() <= usize::try_from(page_size).unwrap());
        titles.extend(page.views.into_iter().map(|view| view.product.title));
        if page.next_page_token.is_empty() {
            return titles;
        }
        token = page.next_page_token;
    }
}
