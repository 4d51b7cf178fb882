//! What the store has to do, whatever database it is on: each scenario is a function of a fresh store. Here they
//! run on SQLite, in `contract_postgres` on PostgreSQL.

#![expect(
    clippy::unwrap_used,
    reason = "a scenario that cannot go on has failed"
)]

use std::sync::Arc;

use chassis::{Call, Config, Database, Error, Service as _};
use kernel::{ProductId, WidgetId};
use mesh_events::FaultPoints;
use mesh_store::idempotency::{Key, fingerprint};
use uuid::Uuid;
use widget::{
    Service,
    store::{self, Store},
    widget::{Draft, Title},
};

/// 2026-01-01T00:00:00Z.
pub(crate) const NOW_US: i64 = 1_767_225_600_000_000;

fn call(request: &str) -> Call {
    let key = Key {
        principal: "tester".to_owned(),
        method: "/commerce.widget.v1.WidgetService/CreateWidget".to_owned(),
        request_id: "1".to_owned(),
        fingerprint: fingerprint(request.as_bytes()),
    };
    Call {
        key: Some(key),
        now_us: NOW_US,
        traceparent: String::new(),
    }
}

fn draft(product_id: ProductId) -> Draft {
    Draft::parse("First", &product_id.to_string()).unwrap()
}

fn title(product_id: ProductId, title: &str, version: i64) -> Title {
    Title {
        product_id: product_id.to_string(),
        title: title.to_owned(),
        version,
    }
}

/// All scenarios. `database` is fresh.
pub(crate) async fn holds(database: &Database) {
    let store = store::over(database);
    a_widget_is_created_once_and_found(&*store, database).await;
    a_newer_title_replaces_an_older_one_and_no_other(&*store).await;
    what_is_not_there_is_not_found(&*store).await;
}

async fn a_widget_is_created_once_and_found(store: &dyn Store, database: &Database) {
    let draft = draft(ProductId::generate(NOW_US));
    let first = store.create(&call("a"), &draft).await.unwrap();
    let again = store.create(&call("a"), &draft).await.unwrap();
    assert_eq!((first.replayed, again.replayed), (false, true));
    assert_eq!(first.resource, again.resource);
    let other = store.create(&call("b"), &draft).await;
    assert!(matches!(other, Err(Error::KeyReused)));
    let id = WidgetId::parse(&first.resource.id).unwrap();
    assert_eq!(store.get(id).await.unwrap(), first.resource);
    let waiting = database.outbox().lag(NOW_US).await.unwrap();
    assert_eq!(waiting.pending, 1, "one event tells of it");
}

async fn a_newer_title_replaces_an_older_one_and_no_other(store: &dyn Store) {
    let product = ProductId::generate(NOW_US);
    let mut call = call("a");
    call.key = None;
    let created = store.create(&call, &draft(product)).await.unwrap();
    assert_eq!(created.resource.product_title, "");
    let id = WidgetId::parse(&created.resource.id).unwrap();
    let (second, third) = (Uuid::now_v7(), Uuid::now_v7());
    for (message_id, text, version, first) in [
        (third, "Third", 3, true),
        (second, "Second", 2, true),
        (third, "Third", 3, false),
    ] {
        let title = title(product, text, version);
        let kept = store.keep_title(message_id, &title, NOW_US).await.unwrap();
        assert_eq!(kept, first, "{text}");
    }
    assert_eq!(store.get(id).await.unwrap().product_title, "Third");
}

async fn what_is_not_there_is_not_found(store: &dyn Store) {
    let missing = store.get(WidgetId::generate(NOW_US)).await;
    assert!(matches!(missing, Err(Error::NotFound { kind: "widget", .. })));
}

/// A fresh database as a configuration names it.
pub(crate) async fn open(config: &Config) -> Database {
    let points = FaultPoints::default();
    Database::open(config, Service::migrations(), points)
        .await
        .unwrap()
}

#[tokio::test]
async fn the_contract_holds_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.store.path = folder.path().join("widget.db");
    let database = Arc::new(open(&config).await);
    holds(&database).await;
    database.close().await.unwrap();
}
