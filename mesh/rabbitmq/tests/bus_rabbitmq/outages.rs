//! A broker that dies, is blocked, or lets in only whom it knows: each test has one of its own.
//!
//! The broker is started and asked on the test's own thread, which blocks; the bus runs on the others.
//! A broker ends with the thread that started it, and those of a runtime come and go.

use std::{sync::Arc, time::Duration};

use mesh_events::{Bus as _, Metrics as EventMetrics, PublishError};
use mesh_rabbitmq::{Metrics, RabbitMqBus, RabbitMqConfig, declare};
use prometheus::{Registry, proto::MetricFamily};
use tokio::time::{Instant, interval};
use xtask::servers::{RabbitMq, free_port};

use crate::support::{
    Ledger, MemoryOutbox, bus, config_at, consumer, event, events, eventually, next, publish,
    relay, subscribe, subscription,
};

/// The sum of a metric over its labels.
fn sum(registry: &Registry, name: &str) -> f64 {
    let families = registry.gather();
    let found = families.iter().filter(|family| family.name() == name);
    let metrics = found.flat_map(MetricFamily::get_metric);
    metrics
        .map(|metric| metric.get_gauge().get_value() + metric.get_counter().get_value())
        .sum()
}

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
                let mut pace = interval(Duration::from_millis(20));
                for batch in events(0..3_000).chunks(50) {
                    pace.tick().await;
                    outbox.append(batch.iter().cloned());
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
    let blocked = || sum(&registry, "mesh_rabbitmq_blocked") > 0.0;
    let refused = |registry: &Registry| sum(registry, "mesh_outbox_failed_total");
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
    let answer = bus.publish(&[event(3)]).await;
    assert!(
        matches!(&answer[0], Err(PublishError::Unavailable(why)) if why.contains("blocked")),
        "{answer:?}"
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
    let event_registry = Registry::new();
    let event_metrics = EventMetrics::register(&event_registry).unwrap();
    let relaying = relay(&bus, &outbox, &event_metrics);
    outbox.append(events(10..510));
    eventually("a relay that pauses", async || {
        refused(&event_registry) > 0.0
    })
    .await;
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
async fn credentials_come_from_files() {
    let broker = RabbitMq::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("password");
    std::fs::write(&password_file, "s3cret\n").unwrap();
    broker.ctl(&["add_user", "shop", "s3cret"]).unwrap();
    let everything = ["set_permissions", "shop", ".*", ".*", ".*"];
    broker.ctl(&everything).unwrap();
    let shop = RabbitMqConfig {
        user: "shop".into(),
        password_file: Some(password_file),
        ..config_at(&broker.url())
    };
    declare(&shop, &[]).await.unwrap();
    let guest = RabbitMqConfig {
        user: "guest".into(),
        ..shop
    };
    declare(&guest, &[]).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_trusts_the_given_authority_and_no_other() {
    let broker = RabbitMq::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let mut authority = rcgen::CertificateParams::new([]).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let (ours, theirs) = (
        rcgen::KeyPair::generate().unwrap(),
        rcgen::KeyPair::generate().unwrap(),
    );
    let ca_file = file("ca.pem", &authority.self_signed(&ours).unwrap().pem());
    let issuer = rcgen::Issuer::from_params(&authority, &ours);
    let served = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let served = served.signed_by(&theirs, &issuer).unwrap();
    let certificate = file("certificate.pem", &served.pem());
    let key = file("key.pem", &theirs.serialize_pem());
    // The broker may run under another user.
    let reachable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), reachable).unwrap();
    let port = free_port().unwrap();
    let listen = format!(
        "application:ensure_all_started(ssl), rabbit_networking:start_ssl_listener({port}, \
         [{{certfile, {certificate:?}}}, {{keyfile, {key:?}}}], 1)."
    );
    broker.ctl(&["eval", &listen]).unwrap();

    let strange = RabbitMqConfig {
        url: format!("amqps://127.0.0.1:{port}/%2f"),
        ..config_at(&broker.url())
    };
    let error = declare(&strange, &[]).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("certificate"), "{cause}");
    let trusted = RabbitMqConfig {
        ca_file: Some(ca_file),
        ..strange
    };
    declare(&trusted, &[]).await.unwrap();
}
