//! A broker and relays that are killed, and events that no queue takes at first.

use std::{sync::Arc, time::Duration};

use mesh_events::Event;
use tests::events::{
    KIND, LATE,
    effect::Effect,
    event,
    stage::{Consume, Stage},
};
use tokio::time::Instant;
use xtask::servers::RabbitMq;

use crate::support::{Flow, Marks, WORKER, Watch, asked, audit, drain};

const STEADY: Consume<'_> = Consume {
    name: "steady",
    effect: Effect::Row,
    more: &[],
};

/// A third of them of the kind that no queue is bound to at first.
fn mixed(events: i64) -> impl Iterator<Item = Event> + Send {
    (0..events).map(|number| {
        let kind = if number % 3 == 0 { LATE } else { KIND };
        event(kind, &format!("agg_{number}"), 1, number)
    })
}

/// The broker is started on the test's own thread: it ends with the thread that started it.
#[tokio::test(flavor = "multi_thread")]
async fn events_survive_brokers_and_relays_that_are_killed_and_queues_that_come_late() {
    let events = asked("EVENTS", 5_000);
    let (broker_kills, relay_kills) = (asked("BROKER_KILLS", 2), asked("RELAY_KILLS", 3));
    let late = (events + 2) / 3;
    let mut broker = RabbitMq::start().unwrap();
    let stage = Stage::set(WORKER, Some(broker.address())).await.unwrap();
    let stage = Arc::new(stage);
    stage.bind(STEADY.name, &[KIND]).await.unwrap();
    let started = Instant::now();
    let flow = Flow::start(stage.clone(), mixed(events), Duration::ZERO);
    let consumer = stage.consumer(STEADY).unwrap();
    let mut relay = stage.relay().unwrap();
    let mut broker_marks = Marks::new(broker_kills, events);
    let mut relay_marks = Marks::new(relay_kills, events);
    let (mut bound, mut watch) = (false, Watch::new());
    loop {
        let effects = stage.effects().await.unwrap();
        let pending = stage.pending(KIND).await.unwrap() + stage.pending(LATE).await.unwrap();
        let published = flow.committed() - pending;
        if broker_marks.reached(effects) {
            broker.kill();
            broker.start_again().unwrap();
        }
        if relay_marks.reached(published) {
            relay.kill();
            relay = stage.relay().unwrap();
        }
        if !bound && effects == events - late {
            assert_eq!(
                stage.pending(LATE).await.unwrap(),
                late,
                "published to nowhere"
            );
            println!("{late} events that no queue takes are still there");
            stage.bind(STEADY.name, &[LATE]).await.unwrap();
            bound = true;
        }
        if pending == 0 && effects >= events && broker_marks.is_over() && relay_marks.is_over() {
            break;
        }
        watch.at(effects + published).await;
    }
    assert_eq!(flow.stop().await, events);
    relay.stop().await;
    drain(&stage, STEADY, consumer).await;
    println!("the broker was killed {broker_kills} times, the relay {relay_kills} times");
    audit(&stage, STEADY.name, events, started).await;
    Arc::into_inner(stage).unwrap().clear().await.unwrap();
}
