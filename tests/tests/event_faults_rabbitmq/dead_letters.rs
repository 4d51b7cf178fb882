//! What can not be applied, and what people do about it.

use std::process::{Child, Command, Stdio};

use mesh_rabbitmq::LetterFilter;
use tests::{
    events::{
        KIND,
        effect::Effect,
        event,
        stage::{Consume, Rows, Stage},
    },
    eventually,
};
use tokio::time::Instant;

use crate::support::{WORKER, Watch, all_applied};

async fn append(stage: &Stage, numbers: std::ops::Range<i64>) {
    let events: Vec<_> = numbers
        .map(|number| event(KIND, &format!("agg_{number}"), 1, number))
        .collect();
    stage.append(&events).await.unwrap();
}

async fn dead(stage: &Stage, consumer: &str) -> u32 {
    stage.lag(consumer).await.unwrap().dead
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_dead_within_its_attempts_and_the_others_flow_on() {
    let stage = Stage::set(WORKER, None).await.unwrap();
    stage.bind("fussy", &[KIND]).await.unwrap();
    let fussy = Consume {
        name: "fussy",
        effect: Effect::Row,
        more: &[
            "--poison-every",
            "7",
            "--stubborn-every",
            "10",
            "--attempts-max",
            "4",
        ],
    };
    // What is both is poison.
    let (poison, stubborn) = (1_000 / 7, 1_000 / 10 - 1_000 / 70);
    let healthy = i64::from(1_000 - poison - stubborn);
    let relay = stage.relay().unwrap();
    let worker = stage.consumer(fussy).unwrap();
    eventually("a consumer", async || {
        stage.lag("fussy").await.unwrap().replicas == 1
    })
    .await;
    let started = Instant::now();
    append(&stage, 1..1_001).await;
    all_applied(&stage, healthy).await;
    let flowed = started.elapsed();
    let letters = stage.dead_letters().unwrap();
    eventually("every letter", async || {
        dead(&stage, "fussy").await == poison + stubborn
    })
    .await;
    let buried = started.elapsed();
    println!(
        "{healthy} healthy events after {flowed:.1?}, the last dead letter after {buried:.1?}"
    );
    relay.stop().await;
    worker.stop().await;

    let (mut at_once, mut in_the_end) = (0, 0);
    for letter in letters
        .list("fussy", &LetterFilter::default(), 1_000)
        .await
        .unwrap()
    {
        let (_, attempts) = letter.event.unwrap();
        match (letter.reason.as_str(), attempts) {
            ("odd", 1) => at_once += 1,
            ("not today", 4) => in_the_end += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((at_once, in_the_end), (poison, stubborn));
    let rows = stage.rows().await.unwrap();
    assert_eq!((rows.applied, rows.doubled), (healthy, 0));
    stage.clear().await.unwrap();
}

/// `meshctl events replay` for the letters of a stage.
fn replay(stage: &Stage, meshctl: &std::path::Path) -> Child {
    let mut replay = Command::new(meshctl);
    replay.args([
        "events",
        "replay",
        "--consumer",
        "back",
        "--per-second",
        "500",
    ]);
    replay.args([
        "--url",
        &stage.config.url,
        "--exchange",
        &stage.config.exchange,
    ]);
    replay.stdout(Stdio::null()).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_killed_on_the_way_doubles_no_effect() {
    let meshctl = xtask::checkout::build("meshctl").unwrap();
    let stage = Stage::set(WORKER, None).await.unwrap();
    stage.bind("back", &[KIND]).await.unwrap();
    let healthy = Consume {
        name: "back",
        effect: Effect::Row,
        more: &[],
    };
    let broken = Consume {
        more: &["--poison-every", "1"],
        ..healthy
    };
    // A tenth of them has had its effect, and comes again as a dead letter.
    let events: Vec<_> = (0..1_000)
        .map(|n| event(KIND, &format!("agg_{n}"), 1, n))
        .collect();
    let relay = stage.relay().unwrap();
    let worker = stage.consumer(healthy).unwrap();
    stage.append(&events[..100]).await.unwrap();
    all_applied(&stage, 100).await;
    worker.stop().await;
    eventually("an outbox that is empty", async || {
        stage.pending(KIND).await.unwrap() == 0
    })
    .await;
    let worker = stage.consumer(broken).unwrap();
    stage.append(&events).await.unwrap();
    eventually("every letter", async || dead(&stage, "back").await == 1_000).await;
    relay.stop().await;
    worker.stop().await;

    let worker = stage.consumer(healthy).unwrap();
    let kills = 3;
    for kill in 1..=kills {
        let mut replaying = replay(&stage, &meshctl);
        all_applied(&stage, 100 + kill * 200).await;
        replaying.kill().unwrap();
        replaying.wait().unwrap();
    }
    let (mut goes, mut watch) = (0, Watch::new());
    // Letters that a killed one had taken out are back a moment later.
    while dead(&stage, "back").await > 0 || stage.effects().await.unwrap() < 1_000 {
        goes += 1;
        assert!(replay(&stage, &meshctl).wait().unwrap().success());
        watch.at(stage.effects().await.unwrap()).await;
    }
    eventually("an empty queue", async || {
        stage.lag("back").await.unwrap().ready == 0
    })
    .await;
    worker.stop().await;
    assert_eq!(stage.lag("back").await.unwrap().ready, 0);
    let Rows {
        applied,
        doubled,
        repeated,
    } = stage.rows().await.unwrap();
    println!(
        "1000 dead letters, a replay killed {kills} times and {goes} more: {applied} applied, {doubled} doubled, \
         {repeated} delivered again"
    );
    assert_eq!((applied, doubled), (1_000, 0));
    assert!(repeated >= 100, "those that had their effect before");
    stage.clear().await.unwrap();
}
