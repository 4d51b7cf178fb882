//! A broker that dies, is blocked, or lets in only whom it knows: each test has one of its own.

use std::{sync::Arc, time::Duration};

use mesh_events::{Bus as _, Metrics as EventMetrics, PublishError};
use mesh_rabbitmq::{Metrics, RabbitMqBus, RabbitMqConfig, declare};
use prometheus::Registry;
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};
use xtask::servers::RabbitMq;

use crate::support::{
    Ledger, MemoryOutbox, bus, config_at, consumer, event, events, eventually, next, publish,
    relay, subscribe, subscription,
};

async fn broker() -> RabbitMq {
    spawn_blocking(RabbitMq::start).await.unwrap().unwrap()
}

/// `rabbitmqctl`, off the threads that the bus runs on.
async fn ctl(broker: RabbitMq, words: &'static [&'static str]) -> RabbitMq {
    let asked = move || {
        broker.ctl(words).unwrap();
        broker
    };
    spawn_blocking(asked).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_loses_no_event() {
    let mut broker = broker().await;
    let config = config_at(&broker.url());
    declare(&config, &[subscription("steady", 1)])
        .await
        .unwrap();
    let bus = bus(&config);
    let (outbox, ledger) = (Arc::new(MemoryOutbox::default()), Ledger::new(|_| false));
    let metrics = EventMetrics::unregistered().unwrap();
    let relaying = relay(&bus, &outbox, &metrics);
    let consuming = consumer(&bus, "steady", &ledger);
    let mut total = 0;
    for _ in 0..2 {
        let (before, all) = (ledger.applied(), total + 6_000);
        outbox.append(events(total..all));
        total = all;
        // In the middle of both publishing and consuming.
        eventually("some effects", async || ledger.applied() > before + 300).await;
        let killed = move || {
            broker.kill();
            broker.start_again().unwrap();
            broker
        };
        broker = spawn_blocking(killed).await.unwrap();
    }
    eventually("nothing pending", async || outbox.pending() == 0).await;
    let total = usize::try_from(total).unwrap();
    eventually("every effect", async || ledger.applied() == total).await;
    assert_eq!(ledger.doubled(), 0);
    println!("{} deliveries of {total} events", ledger.deliveries());
    relaying.stop().await;
    consuming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_broker_pauses_publishing_and_stops_no_acknowledgement() {
    let broker = broker().await;
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

    let broker = ctl(broker, &["set_vm_memory_high_watermark", "0.0000001"]).await;
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

    let _broker = ctl(broker, &["set_vm_memory_high_watermark", "absolute", "1GB"]).await;
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
    let broker = broker().await;
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("password");
    std::fs::write(&password_file, "s3cret\n").unwrap();
    let broker = ctl(broker, &["add_user", "shop", "s3cret"]).await;
    let broker = ctl(broker, &["set_permissions", "shop", ".*", ".*", ".*"]).await;
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
