//! A broker that dies, is blocked, or lets in only whom it knows: each test has one of its own.
//!
//! The broker is started and asked on the test's own thread, which blocks; the bus runs on the others.
//! A broker ends with the thread that started it, and those of a runtime come and go.

use std::{sync::Arc, time::Duration};

use mesh_events::{Bus as _, Metrics as EventMetrics, PublishError};
use mesh_rabbitmq::{Metrics, RabbitMqBus, RabbitMqConfig, declare};
use prometheus::Registry;
use tokio::time::{Instant, sleep};
use xtask::servers::RabbitMq;

use crate::support::{
    Ledger, MemoryOutbox, bus, config_at, consumer, event, events, eventually, next, publish,
    relay, subscribe, subscription,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_loses_no_event() {
    let mut broker = RabbitMq::start().unwrap();
    let config = config_at(&broker.url());
    declare(&config, &[subscription("steady", 1)])
        .await
        .unwrap();
    let bus = bus(&config);
    let (outbox, ledger) = (Arc::new(MemoryOutbox::default()), Ledger::new(|_| false));
    let metrics = EventMetrics::unregistered().unwrap();
    let relaying = relay(&bus, &outbox, &metrics);
    let consuming = consumer(&bus, "steady", &ledger);
    let rounds = 3;
    for round in 0..rounds {
        let feeding = mesh::spawn({
            let outbox = outbox.clone();
            async move {
                for batch in events(0..3_000).chunks(50) {
                    outbox.append(batch.iter().cloned());
                    sleep(Duration::from_millis(20)).await;
                }
            }
        });
        // In the middle of both publishing and consuming.
        let some = 3_000 * round + 500;
        eventually("some effects", async || ledger.applied() > some).await;
        broker.kill();
        broker.start_again().unwrap();
        feeding.await.unwrap();
        eventually("nothing pending", async || outbox.pending() == 0).await;
        let all = 3_000 * (round + 1);
        eventually("every effect", async || ledger.applied() == all).await;
    }
    assert_eq!(ledger.doubled(), 0);
    println!(
        "{} deliveries of {} events",
        ledger.deliveries(),
        ledger.applied()
    );
    relaying.stop().await;
    consuming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_broker_pauses_publishing_and_stops_no_acknowledgement() {
    let broker = RabbitMq::start().unwrap();
    let config = config_at(&broker.url());
    let registry = Registry::new();
    let metrics = Metrics::register(&registry).unwrap();
    let bus = RabbitMqBus::start(config, "test", metrics).unwrap();
    let blocked = || {
        let families = registry.gather();
        let family = families
            .iter()
            .find(|f| f.name() == "mesh_rabbitmq_blocked")
            .unwrap();
        family
            .get_metric()
            .iter()
            .map(|m| m.get_gauge().get_value())
            .sum::<f64>()
            > 0.0
    };
    let mut deliveries = subscribe(&bus, "a").await;
    publish(&bus, &events(0..2)).await;
    let (acked, retried) = (next(&mut deliveries).await, next(&mut deliveries).await);

    broker
        .ctl(&["set_vm_memory_high_watermark", "0.0000001"])
        .unwrap();
    // The broker says so when somebody publishes.
    eventually("blocked", async || {
        bus.publish(&[event(2)]).await;
        blocked()
    })
    .await;
    let started = Instant::now();
    let refused = bus.publish(&[event(3)]).await;
    assert!(
        matches!(&refused[0], Err(PublishError::Unavailable(why)) if why.contains("blocked")),
        "{refused:?}"
    );
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    acked.ack().await.unwrap();
    // A retry is a publish: it waits, and is neither lost nor given up.
    let retry = mesh::spawn(retried.retry(Duration::ZERO));
    let (outbox, ledger) = (Arc::new(MemoryOutbox::default()), Ledger::new(|_| false));
    let event_metrics = EventMetrics::unregistered().unwrap();
    let relaying = relay(&bus, &outbox, &event_metrics);
    outbox.append(events(10..510));
    sleep(Duration::from_secs(1)).await; // Long enough for a relay that does not pause to publish.
    assert_eq!((outbox.pending(), retry.is_finished()), (500, false));

    broker
        .ctl(&["set_vm_memory_high_watermark", "absolute", "1GB"])
        .unwrap();
    eventually("unblocked", async || !blocked()).await;
    retry.await.unwrap().unwrap();
    eventually("nothing pending", async || outbox.pending() == 0).await;
    drop(deliveries);
    let consuming = consumer(&bus, "a", &ledger);
    // Those of the relay, the one retried, and the ones that were on their way when it was blocked.
    eventually("every effect", async || ledger.applied() >= 501).await;
    relaying.stop().await;
    consuming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_come_from_files_and_tls_trusts_the_given_authority() {
    let broker = RabbitMq::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("password");
    std::fs::write(&password_file, "s3cret\n").unwrap();
    broker.ctl(&["add_user", "shop", "s3cret"]).unwrap();
    broker
        .ctl(&["set_permissions", "shop", ".*", ".*", ".*"])
        .unwrap();
    let config = RabbitMqConfig {
        user: "shop".into(),
        password_file: Some(password_file),
        ..config_at(&broker.url())
    };
    declare(&config, &[]).await.unwrap();
    let guest = RabbitMqConfig {
        user: "guest".into(),
        ..config.clone()
    };
    declare(&guest, &[]).await.unwrap_err();
}
