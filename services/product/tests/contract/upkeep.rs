//! What happens without being asked for: sales that arrive as events, expiry, retention, watching.

use std::sync::Arc;

use futures_util::StreamExt as _;
use kernel::ProductId;
use product::{
    config::{SweepConfig, WatchConfig},
    error::Error,
    store::{SalesEntry, SalesEvent, Store},
    sweeper,
    watch::Watchers,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    fresh::Fresh,
    harness::{
        SECOND_US, START_US, at, create, draft, id, keyed, on_every_store, reserve, stocked, units,
        variant,
    },
};

on_every_store! {
    each_event_is_added_once_in_any_order
    the_sweeper_notes_expiry_and_forgets
    a_watcher_sees_every_change_once
    watchers_are_limited_and_let_go
}

const HOUR_US: i64 = 3_600 * SECOND_US;

fn sale(product_id: &str, currency_code: &str, quantity: i64, amount_minor: i64) -> SalesEvent {
    SalesEvent {
        consumer: "product".into(),
        message_id: Uuid::now_v7(),
        entries: vec![SalesEntry {
            product_id: product_id.into(),
            currency_code: currency_code.into(),
            quantity,
            amount_minor,
        }],
    }
}

async fn each_event_is_added_once_in_any_order(store: Arc<dyn Store>) {
    let late = ProductId::generate(START_US);
    let product = stocked(&*store, "A", 1).await;
    let captured = sale(&product.id, "USD", 3, 597);
    let refunded = sale(&product.id, "USD", -1, -199);
    let won = sale(&product.id, "KRW", 2, 2600);
    for event in [&refunded, &captured, &won] {
        assert!(store.add_sales(event, START_US).await.unwrap());
        assert!(
            !store.add_sales(event, START_US).await.unwrap(),
            "a second delivery"
        );
    }
    assert!(
        store
            .add_sales(&sale(&late.to_string(), "USD", 1, 1), START_US)
            .await
            .unwrap()
    );
    let view = store.get(id(&product), START_US).await.unwrap();
    assert_eq!(view.sales.quantity, 4);
    assert_eq!(
        view.sales.revenue,
        [("KRW".to_owned(), 2600), ("USD".to_owned(), 398)]
    );
    assert_eq!(
        view.product.etag(),
        product.etag,
        "sales are not part of the product"
    );
    // Another consumer's inbox is another one.
    let other = SalesEvent {
        consumer: "other".into(),
        ..captured
    };
    assert!(store.add_sales(&other, START_US).await.unwrap());
}

async fn the_sweeper_notes_expiry_and_forgets(store: Arc<dyn Store>) {
    let product = stocked(&*store, "A", 900).await;
    for _ in 0..450 {
        reserve(&*store, &[("A", 2)], 60, START_US).await.unwrap();
    }
    store
        .delete(&keyed("k", "r", START_US), id(&product), "")
        .await
        .unwrap();
    let config = SweepConfig::default();
    let none = sweeper::sweep(&*store, &config, START_US + 59 * SECOND_US)
        .await
        .unwrap();
    assert_eq!(none, sweeper::Swept::default());
    let late = START_US + 60 * SECOND_US;
    let swept = sweeper::sweep(&*store, &config, late).await.unwrap();
    assert_eq!((swept.expired, swept.trimmed), (450, 0));
    assert_eq!(units(&*store, "A", late).await, (900, 0, 900));

    // Answers go after two days, changes after a week, reservations after 400 days.
    let swept = sweeper::sweep(&*store, &config, START_US + 49 * HOUR_US)
        .await
        .unwrap();
    assert_eq!(swept.trimmed, 1);
    let again = store
        .delete(&keyed("k", "r", START_US), id(&product), "")
        .await;
    assert!(
        matches!(again, Err(Error::InvalidState { .. })),
        "no longer a repetition"
    );
    assert_eq!(store.changes(0, 9).await.unwrap().len(), 2);
    let swept = sweeper::sweep(&*store, &config, START_US + 8 * 24 * HOUR_US)
        .await
        .unwrap();
    assert_eq!(swept.trimmed, 2);
    let gone = store.changes(1, 9).await;
    assert!(matches!(
        gone,
        Err(Error::RevisionOutOfRange {
            kept_from: 2,
            last: 2,
            ..
        })
    ));
    assert_eq!(store.changes(2, 9).await.unwrap(), []);
    let swept = sweeper::sweep(&*store, &config, START_US + 401 * 24 * HOUR_US)
        .await
        .unwrap();
    assert_eq!(swept.trimmed, 450);
    store.undelete(&at(START_US), id(&product)).await.unwrap();
    assert_eq!(
        store.changes(2, 9).await.unwrap()[0].revision,
        3,
        "revisions are never given twice"
    );
}

async fn a_watcher_sees_every_change_once(store: Arc<dyn Store>) {
    let shutdown = CancellationToken::new();
    // It never polls within the test: it is woken.
    let config = WatchConfig {
        batch_max: 3,
        poll_ms: 3_600_000,
        ..WatchConfig::default()
    };
    let watchers = Watchers::new(store.clone(), config, shutdown.clone());
    let mut watching = watchers.watch(None).await.unwrap();
    let writing = mesh::spawn({
        let store = store.clone();
        async move {
            for index in 0..20 {
                let draft = draft("P", vec![variant(&format!("S{index}"), 1)]);
                create(&*store, &draft, START_US).await;
            }
        }
    });
    for expected in 1..=20 {
        assert_eq!(watching.next().await.unwrap().unwrap().revision, expected);
    }
    writing.await.unwrap();
    let mut resumed = watchers.watch(Some(18)).await.unwrap();
    assert_eq!(resumed.next().await.unwrap().unwrap().revision, 19);
    let outside = watchers.watch(Some(21)).await;
    assert!(matches!(
        outside.err(),
        Some(Error::RevisionOutOfRange { .. })
    ));
    shutdown.cancel();
    assert!(matches!(
        watching.next().await,
        Some(Err(Error::ShuttingDown))
    ));
    assert!(watching.next().await.is_none());
}

async fn watchers_are_limited_and_let_go(store: Arc<dyn Store>) {
    let config = WatchConfig {
        watchers_max: 2,
        ..WatchConfig::default()
    };
    let watchers = Watchers::new(store, config, CancellationToken::new());
    let first = watchers.watch(None).await.unwrap();
    let _second = watchers.watch(None).await.unwrap();
    let full = watchers.watch(None).await;
    assert!(matches!(
        full.err(),
        Some(Error::TooManyWatchers { watchers_max: 2 })
    ));
    drop(first);
    assert!(watchers.watch(None).await.is_ok());
}

/// A trimmed log does not wait for a slow watcher: it is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_falls_behind_is_told() {
    let fresh = Fresh::open().await;
    let store = fresh.store.clone();
    let config = WatchConfig {
        batch_max: 1,
        ..WatchConfig::default()
    };
    let watchers = Watchers::new(store.clone(), config, CancellationToken::new());
    for index in 0..5 {
        create(
            &*store,
            &draft("P", vec![variant(&format!("S{index}"), 1)]),
            START_US,
        )
        .await;
    }
    let mut watching = watchers.watch(Some(0)).await.unwrap();
    assert_eq!(watching.next().await.unwrap().unwrap().revision, 1);
    let later = START_US + 30 * 24 * HOUR_US;
    sweeper::sweep(&*store, &SweepConfig::default(), later)
        .await
        .unwrap();
    assert!(matches!(
        watching.next().await,
        Some(Err(Error::RevisionOutOfRange { .. }))
    ));
    fresh.check().await;
}
