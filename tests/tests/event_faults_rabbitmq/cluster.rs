//! A cluster whose leader is killed under load.

use std::{sync::Arc, time::Duration};

use tests::events::{
    KIND,
    effect::Effect,
    event,
    stage::{Consume, Stage},
};
use tokio::time::Instant;
use xtask::servers::Cluster;

use crate::support::{Flow, WORKER, all_applied, asked, audit, drain};

const STEADY: Consume<'_> = Consume {
    name: "steady",
    effect: Effect::Row,
    more: &[],
};
/// Events that show that the queue is served.
const SOME: i64 = 300;
/// Between batches: the nodes that are started again need the machine too.
const PAUSE: Duration = Duration::from_millis(500);

/// The nodes are started on the test's own thread: they end with the thread that started them.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_under_load_loses_and_doubles_nothing() {
    let kills = asked("LEADER_KILLS", 1);
    let starting = Instant::now();
    let mut cluster = Cluster::start().unwrap();
    println!(
        "three nodes are one broker after {:.1?}",
        starting.elapsed()
    );
    let stage = Stage::set(WORKER, Some(cluster.addresses())).await.unwrap();
    let stage = Arc::new(stage);
    stage.bind(STEADY.name, &[KIND]).await.unwrap();
    let queue = format!("{}.{}", stage.config.exchange, STEADY.name);
    let started = Instant::now();
    let consumer = stage.consumer(STEADY).unwrap();
    let relay = stage.relay().unwrap();
    let (mut down, mut events) = (None, 0);
    for _ in 0..kills {
        if let Some(node) = down {
            cluster.start_again(node).unwrap();
        }
        let endless = (events..).map(|number| event(KIND, &format!("agg_{number}"), 1, number));
        let flow = Flow::start(stage.clone(), endless, PAUSE);
        all_applied(&stage, events + SOME).await;
        let outage = Instant::now();
        let killed = cluster.kill_leader(&queue).unwrap();
        // Nothing follows: what was on its way when the leader died has to arrive without any help from behind.
        events += flow.stop().await;
        all_applied(&stage, events).await;
        println!(
            "node {killed} led; all {events} events under another leader after {:.1?}",
            outage.elapsed()
        );
        down = Some(killed);
    }
    relay.stop().await;
    drain(&stage, STEADY, consumer).await;
    assert_eq!(stage.pending(KIND).await.unwrap(), 0);
    println!("the leader was killed {kills} times");
    audit(&stage, STEADY.name, events, started).await;
    Arc::into_inner(stage).unwrap().clear().await.unwrap();
}
