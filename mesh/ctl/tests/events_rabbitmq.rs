//! `meshctl events` as people use it, on a real broker.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::{fs, process::Command};

use mesh_events::{DeadLetter, DeadLetters as _, Event};
use mesh_rabbitmq::{Metrics, RabbitMqBus, RabbitMqConfig};

/// Runs `meshctl events` with these words; what it printed, or what it complained about.
fn meshctl(config: &RabbitMqConfig, words: &[&str]) -> Result<String, String> {
    let mut meshctl = Command::new(env!("CARGO_BIN_EXE_meshctl"));
    meshctl.arg("events").args(words);
    meshctl.args(["--url", &config.url, "--exchange", &config.exchange]);
    meshctl.args(["--consumer", "product"]);
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
