//! Several replicas, and several at once, on one database.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use kernel::ReservationId;
use mesh_events::FaultPoints;
use mesh_store::{Durability, PostgresConfig};
use product::{
    config::{SharedConfig, SweepConfig, WatchConfig},
    error::Error,
    store::{
        Store,
        postgres::{PostgresStore, migrate},
    },
    sweeper,
    watch::Watchers,
};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    fresh::Fresh,
    harness::{
        SECOND_US, START_US, command, commit, create, draft, keyed, reserve, stocked, units,
        variant, wish,
    },
};

/// Longer than anything here takes, so that a test that hangs says where.
const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_sell_what_is_there_and_no_more() {
    let fresh = Fresh::open().await;
    let other = fresh.replica().await;
    stocked(&*fresh.store, "HOT", 50).await;
    let mut buyers = JoinSet::new();
    for buyer in 0..200 {
        let store = if buyer % 2 == 0 {
            &fresh.postgres
        } else {
            &other
        }
        .clone();
        buyers.spawn(async move {
            let origin = keyed(&format!("buyer-{buyer}"), "hot", START_US);
            let wish = wish(&[("HOT", 1)], START_US + 60 * SECOND_US);
            store.reserve(&origin, &wish).await
        });
    }
    let mut ids = HashSet::new();
    while let Some(outcome) = buyers.join_next().await {
        match outcome.unwrap() {
            Ok(answer) => assert!(ids.insert(answer.resource.id)),
            Err(Error::OutOfStock(_)) => {}
            Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
        }
    }
    assert_eq!(ids.len(), 50);
    assert_eq!(units(&*fresh.store, "HOT", START_US).await, (50, 50, 0));
    other.close().await;
    fresh.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_in_opposite_order_do_not_block_each_other() {
    let fresh = Fresh::open().await;
    let other = fresh.replica().await;
    let store = &*fresh.store;
    for sku in ["A", "B", "C"] {
        stocked(store, sku, 1_000).await;
    }
    let mut buyers = JoinSet::new();
    for buyer in 0..60 {
        let store = if buyer % 2 == 0 {
            &fresh.postgres
        } else {
            &other
        }
        .clone();
        buyers.spawn(async move {
            let lines = [("A", 1), ("B", 1), ("C", 1)];
            let mut turned = lines;
            turned.rotate_left(buyer % 3);
            turned.reverse();
            let units = if buyer % 2 == 0 { &turned } else { &lines };
            let id = reserve(&store, units, 60, START_US).await.unwrap();
            command(&store, id, commit(&[("C", 1), ("A", 1)], true), START_US)
                .await
                .unwrap();
        });
    }
    while let Some(outcome) = buyers.join_next().await {
        outcome.unwrap();
    }
    assert_eq!(units(store, "A", START_US).await, (940, 0, 940));
    assert_eq!(units(store, "B", START_US).await, (1_000, 0, 1_000));
    other.close().await;
    fresh.check().await;
}

/// What queues together is committed together, and each is still on its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_keeps_its_reservations_apart() {
    let one_lane = SharedConfig {
        lanes: 1,
        ..SharedConfig::default()
    };
    let fresh = Fresh::with(Durability::Full, &one_lane).await;
    stocked(&*fresh.store, "A", 30).await;
    stocked(&*fresh.store, "B", 5).await;
    let mut buyers = JoinSet::new();
    for buyer in 0..60 {
        let store = fresh.store.clone();
        buyers.spawn(async move {
            let (key, units): (String, &[(&str, i32)]) = match buyer % 4 {
                0 => (format!("k{buyer}"), &[("A", 1)]),
                1 => (format!("k{buyer}"), &[("A", 1), ("B", 1)]),
                2 => (format!("k{buyer}"), &[("A", 1), ("missing", 1)]),
                _ => ("the same for all".into(), &[("A", 2)]),
            };
            let wish = wish(units, START_US + 60 * SECOND_US);
            let outcome = store.reserve(&keyed(&key, "r", START_US), &wish).await;
            (buyer % 4, outcome)
        });
    }
    let mut held = [0; 4];
    let mut same = HashSet::new();
    while let Some(outcome) = buyers.join_next().await {
        match outcome.unwrap() {
            (3, Ok(answer)) => {
                held[3] += usize::from(!answer.replayed);
                same.insert(answer.resource.id);
            }
            (kind, Ok(answer)) => {
                assert!(!answer.replayed);
                held[kind] += 1;
            }
            (1, Err(Error::OutOfStock(short))) => assert_eq!(short[0].sku, "B"),
            (2, Err(Error::SkusNotFound(missing))) => assert_eq!(missing, ["missing"]),
            (kind, Err(error)) => panic!("{kind}: {error}"),
        }
    }
    assert_eq!(held, [15, 5, 0, 1]);
    assert_eq!(same.len(), 1);
    assert_eq!(units(&*fresh.store, "A", START_US).await, (30, 22, 8));
    fresh.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_on_two_replicas_has_one_effect() {
    let fresh = Fresh::open().await;
    let other = fresh.replica().await;
    stocked(&*fresh.store, "A", 100).await;
    let id = reserve(&*fresh.store, &[("A", 50)], 60, START_US)
        .await
        .unwrap();
    let mut calls = JoinSet::new();
    for call in 0..20 {
        let store = if call % 2 == 0 {
            &fresh.postgres
        } else {
            &other
        }
        .clone();
        calls.spawn(async move {
            let origin = keyed("k", "c", START_US);
            let committed = store
                .command(&origin, id, &commit(&[("A", 2)], false))
                .await;
            let origin = keyed("create", "c", START_US);
            let created = store
                .create(&origin, &draft("P", vec![variant("P", 1)]))
                .await;
            (committed.unwrap().replayed, created.unwrap().replayed)
        });
    }
    let (mut committed, mut created) = (0, 0);
    while let Some(outcome) = calls.join_next().await {
        let (replayed, recreated) = outcome.unwrap();
        committed += i32::from(!replayed);
        created += i32::from(!recreated);
    }
    assert_eq!((committed, created), (1, 1));
    assert_eq!(units(&*fresh.store, "A", START_US).await, (98, 48, 50));
    other.close().await;
    fresh.check().await;
}

/// Revisions are given in the order of commits: who follows them misses nothing, whoever writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_on_one_replica_sees_what_another_writes() {
    let fresh = Fresh::open().await;
    let other = Arc::new(fresh.replica().await);
    let config = WatchConfig {
        poll_ms: 3_600_000, // It is woken, though another replica writes.
        ..WatchConfig::default()
    };
    let watchers = Watchers::new(other.clone(), config, CancellationToken::new());
    let mut watching = watchers.watch(None).await.unwrap();
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let store = fresh.store.clone();
        writers.spawn(async move {
            for index in 0..5 {
                let sku = format!("W{writer}-{index}");
                create(&*store, &draft(&sku, vec![variant(&sku, 1)]), START_US).await;
            }
        });
    }
    for expected in 1..=40 {
        let change = timeout(PATIENCE, watching.next())
            .await
            .expect("it is woken");
        assert_eq!(change.unwrap().unwrap().revision, expected);
    }
    while let Some(outcome) = writers.join_next().await {
        outcome.unwrap();
    }
    drop(watching);
    other.close().await;
    fresh.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_sweep_side_by_side() {
    let fresh = Fresh::open().await;
    let other = fresh.replica().await;
    stocked(&*fresh.store, "A", 300).await;
    for _ in 0..100 {
        reserve(&*fresh.store, &[("A", 1)], 60, START_US)
            .await
            .unwrap();
    }
    let late = START_US + 500 * 86_400 * SECOND_US;
    let config = SweepConfig {
        batch_max: 7,
        ..SweepConfig::default()
    };
    let (one, two) = tokio::join!(
        sweeper::sweep(&fresh.postgres, &config, late),
        sweeper::sweep(&other, &config, late),
    );
    assert_eq!(one.unwrap().expired + two.unwrap().expired, 100);
    assert_eq!(units(&*fresh.store, "A", late).await, (300, 0, 300));
    other.close().await;
    fresh.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_a_closed_store_too() {
    let shared = SharedConfig {
        lanes: 1,
        queue_max: 1,
        batch_max: 1,
        ..SharedConfig::default()
    };
    let fresh = Fresh::with(Durability::Full, &shared).await;
    stocked(&*fresh.store, "A", 100).await;
    let mut buyers = JoinSet::new();
    for _ in 0..50 {
        let store = fresh.store.clone();
        buyers.spawn(async move { reserve(&*store, &[("A", 1)], 60, START_US).await });
    }
    let (mut held, mut refused) = (0, 0);
    while let Some(outcome) = buyers.join_next().await {
        match outcome.unwrap() {
            Ok(ReservationId { .. }) => held += 1,
            Err(Error::StorageBusy(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(held + refused, 50);
    assert!(held > 0 && refused > 0, "{held} {refused}");
    assert_eq!(units(&*fresh.store, "A", START_US).await.1, held);
    let replica = fresh.replica().await;
    replica.close().await;
    let closed = reserve(&replica, &[("A", 1)], 60, START_US).await;
    assert!(matches!(closed, Err(Error::StorageBusy(_))), "{closed:?}");
    fresh.check().await;
}

#[tokio::test]
async fn a_schema_that_is_not_there_is_refused() {
    let fresh = Fresh::open().await;
    migrate(&fresh.config, "").await.unwrap(); // Twice is once.
    sqlx::query("DELETE FROM _sqlx_migrations")
        .execute(fresh.postgres.postgres().pool())
        .await
        .unwrap();
    let refused = PostgresStore::connect(
        &fresh.config,
        &SharedConfig::default(),
        FaultPoints::default(),
    )
    .await;
    let message = refused.unwrap_err().to_string();
    assert!(
        message.contains("run the subcommand `migrate` first"),
        "{message}"
    );
    let nowhere = PostgresConfig::default();
    assert!(migrate(&nowhere, "").await.is_err());
    fresh.check().await;
}
