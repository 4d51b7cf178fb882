//! `meshctl events` as people use it, on a real broker.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    process::Command,
};

use mesh_events::{Bus as _, DeadLetter, DeadLetters as _, Event, Subscription};
use mesh_rabbitmq::{Metrics, RabbitMqBus, RabbitMqConfig};

/// Runs `meshctl events` with these words; what it printed, or what it complained about.
fn meshctl(config: &RabbitMqConfig, words: &[&str]) -> Result<String, String> {
    let mut meshctl = Command::new(env!("CARGO_BIN_EXE_meshctl"));
    meshctl.arg("events").args(words);
    meshctl.args(["--url", &config.url, "--exchange", &config.exchange]);
    if !words.contains(&"--consumer") {
        meshctl.args(["--consumer", "product"]);
    }
    let output = meshctl.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() {
        Ok(text(output.stdout))
    } else {
        Err(text(output.stderr))
    }
}

fn config() -> RabbitMqConfig {
    let url = std::env::var_os("SHOP_RABBITMQ")
        .expect("SHOP_RABBITMQ is not set: run `cargo xtask test`, or `cargo xtask servers`");
    RabbitMqConfig {
        url: url.to_string_lossy().replace("guest:guest@", ""), // The default credentials.
        exchange: format!("test-{:016x}", rand::random::<u64>()),
        ..RabbitMqConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_shown_replayed_and_dropped() {
    let config = config();
    assert_eq!(
        meshctl(
            &config,
            &["declare", "--kind", "payment.PaymentCaptured.v1"]
        )
        .unwrap(),
        ""
    );
    let letters = RabbitMqBus::start(config.clone(), "test", Metrics::unregistered().unwrap())
        .unwrap()
        .dead_letters();
    let mut ids = Vec::new();
    for number in 0..3 {
        let event = Event::new(
            "payment.PaymentCaptured.v1",
            "pay_1",
            number,
            1_700_000_000_000_000,
            "ab",
        );
        ids.push(event.message_id.to_string());
        let letter = DeadLetter {
            consumer: "product".into(),
            event,
            reason: "no such product".into(),
            attempts: 12,
            dead_at_us: 1_700_000_001_000_000,
        };
        letters.record(letter).await.unwrap();
    }

    let listed = meshctl(&config, &["list"]).unwrap();
    let first = format!(
        "{}\tpayment.PaymentCaptured.v1\t12\t2023-11-14T22:13:21Z\tno such product",
        ids[0]
    );
    assert_eq!(
        (listed.lines().count(), listed.lines().next()),
        (3, Some(first.as_str()))
    );
    let shown = meshctl(&config, &["show", "--id", &ids[1]]).unwrap();
    assert!(
        shown.contains("version: 1\n") && shown.ends_with("body: 6162\n"),
        "{shown}"
    );
    let missing = meshctl(&config, &["show", "--id", "nobody"]).unwrap_err();
    assert!(
        missing.contains("dead letter \"nobody\" not found"),
        "{missing}"
    );

    let dry = meshctl(&config, &["replay", "--dry-run", "--id", &ids[0]]).unwrap();
    assert_eq!(dry.trim_end(), first);
    let replayed = meshctl(&config, &["replay", "--id", &ids[0]]).unwrap();
    assert_eq!(replayed, "1 replayed, 0 are no events and stay\n");
    let unsaid = meshctl(&config, &["drop"]).unwrap_err();
    assert!(unsaid.contains("--all"), "{unsaid}");
    assert_eq!(
        meshctl(&config, &["drop", "--all", "--dry-run"])
            .unwrap()
            .lines()
            .count(),
        2
    );
    assert_eq!(meshctl(&config, &["drop", "--all"]).unwrap(), "2 dropped\n");
    assert_eq!(meshctl(&config, &["list"]).unwrap(), "");
}

#[test]
fn a_queue_of_another_kind_is_named_with_its_argument() {
    let config = config();
    let kind = ["declare", "--kind", "payment.PaymentCaptured.v1"];
    meshctl(&config, &kind).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rabbitmq.toml");
    fs::write(&file, "delivery_limit = 7\n").unwrap();
    let words = [&kind[..], &["--config", file.to_str().unwrap()]].concat();
    let error = meshctl(&config, &words).unwrap_err();
    assert!(
        error.contains(".product\" exists with another x-delivery-limit"),
        "{error}"
    );
    fs::write(&file, "delivery_limits = 7\n").unwrap();
    let error = meshctl(&config, &words).unwrap_err();
    assert!(error.contains("no RabbitMQ configuration"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_tells_of_queues_and_of_outboxes() {
    let config = config();
    let declared = ["declare", "--kind", "payment.PaymentCaptured.v1"];
    meshctl(&config, &declared).unwrap();
    meshctl(&config, &[&declared[..], &["--consumer", "idle"]].concat()).unwrap();
    let metrics = Metrics::unregistered().unwrap();
    let bus = RabbitMqBus::start(config.clone(), "test", metrics).unwrap();
    let queues = bus.subscribe(Subscription {
        consumer: "product".into(),
        kinds: vec!["test.Other.v1".into()],
        prefetch: 1,
    });
    let held = queues.await.unwrap();
    let event = || Event::new("test.Other.v1", "agg_1", 1, 1, "");
    let letter = DeadLetter {
        consumer: "product".into(),
        event: event(),
        reason: "odd".into(),
        attempts: 1,
        dead_at_us: 1,
    };
    bus.dead_letters().record(letter).await.unwrap();
    for published in bus.publish(&[event(), event(), event()]).await {
        published.unwrap();
    }

    // One of three is with the consumer, who does not settle it.
    let both = ["lag", "--consumer", "product", "--consumer", "idle"];
    let product = "queue\tproduct\t2 ready\t0 waiting for a retry\t1 dead\t1 replicas\n";
    let idle = "queue\tidle\t0 ready\t0 waiting for a retry\t0 dead\t0 replicas\n";
    let shown = meshctl(&config, &both).unwrap();
    assert_eq!(shown, format!("{product}{idle}"));
    let behind = meshctl(&config, &[&both[..], &["--behind"]].concat()).unwrap();
    assert_eq!(behind, product);

    let admin = metrics_of("mesh_outbox_pending{outbox=\"payment\"} 7\n");
    let shown = meshctl(&config, &["lag", "--admin", &admin, "--behind"]).unwrap();
    let outbox = "outbox\tpayment\t7 pending\tthe oldest for 0.0 s\n";
    assert_eq!(shown, format!("{outbox}{product}"));
    drop(held);
}

#[test]
fn lag_names_what_it_can_not_tell() {
    let config = config();
    let missing = meshctl(&config, &["lag", "--consumer", "nobody"]).unwrap_err();
    let queue = format!("looking for queue \"{}.nobody\" failed", config.exchange);
    assert!(missing.contains(&queue), "{missing}");
    let closed = [
        "lag",
        "--consumer",
        "nobody",
        "--admin",
        "http://127.0.0.1:1",
    ];
    meshctl(
        &config,
        &["declare", "--kind", "a.B.v1", "--consumer", "nobody"],
    )
    .unwrap();
    let closed = meshctl(&config, &closed).unwrap_err();
    assert!(
        closed.contains("http://127.0.0.1:1/metrics: no answer"),
        "{closed}"
    );
    let wrong = meshctl(&config, &["lag", "--admin", "127.0.0.1:9090"]).unwrap_err();
    assert!(wrong.contains("http://HOST:PORT is wanted"), "{wrong}");
    let nothing = Command::new(env!("CARGO_BIN_EXE_meshctl"))
        .args(["events", "lag"])
        .output()
        .unwrap();
    let said = String::from_utf8(nothing.stderr).unwrap();
    assert!(
        !nothing.status.success() && said.contains("--consumer"),
        "{said}"
    );
}

/// Answers one question with this text, as an admin endpoint does. Where it is.
fn metrics_of(text: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let asked = stream.read(&mut [0; 4_096]).unwrap();
        assert_ne!(asked, 0);
        let length = text.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{text}"
        )
        .unwrap();
    });
    address
}
