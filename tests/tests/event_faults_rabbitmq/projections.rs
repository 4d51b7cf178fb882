//! Projections from events that are shuffled and tripled, by consumers that are killed.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::join_all;
use mesh_events::{Bus as _, Event};
use mesh_rabbitmq::RabbitMqBus;
use rand::{Rng as _, rngs::StdRng, seq::SliceRandom as _};
use tests::{
    chance,
    events::{
        KIND,
        effect::Effect,
        event, number,
        stage::{Consume, Stage, Worker},
    },
};
use tokio::time::Instant;

use crate::support::{Marks, WORKER, Watch, asked, drain};

/// How often each event is published.
const COPIES: usize = 3;
/// Events published together, and how often at the same time.
const WINDOW: usize = 256;
const WINDOWS: usize = 4;
/// Events that may wait for a consumer before more are published.
const READY_MAX: u32 = 5_000;

const STATE: Consume<'_> = Consume {
    name: "state",
    effect: Effect::State,
    more: &[],
};
const TOTAL: Consume<'_> = Consume {
    name: "total",
    effect: Effect::Total,
    more: &[],
};

/// By aggregate: its version or its count of events, and its number or its sum.
type Projection = BTreeMap<String, (i64, i64)>;

/// Each version of each aggregate, with random numbers.
fn history(aggregates: i64, versions: i64, random: &mut StdRng) -> Vec<Event> {
    let all = (0..aggregates)
        .flat_map(|aggregate| (1..=versions).map(move |version| (aggregate, version)));
    all.map(|(aggregate, version)| {
        let number = random.random_range(-1_000_000..1_000_000);
        event(KIND, &format!("agg_{aggregate}"), version, number)
    })
    .collect()
}

/// What the projections have to be, from the events in their order.
fn recomputed(events: &[Event]) -> (Projection, Projection) {
    let (mut state, mut total) = (Projection::new(), Projection::new());
    for event in events {
        let number = number(event).unwrap();
        state.insert(
            event.aggregate_id.clone(),
            (event.aggregate_version, number),
        );
        let (count, sum) = total.entry(event.aggregate_id.clone()).or_default();
        (*count, *sum) = (*count + 1, *sum + number);
    }
    (state, total)
}

async fn stored(stage: &Stage, table: &'static str) -> Projection {
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(table)
        .fetch_all(stage.postgres.pool())
        .await
        .unwrap();
    rows.into_iter()
        .map(|(id, one, other)| (id, (one, other)))
        .collect()
}

async fn state(stage: &Stage) -> Projection {
    stored(stage, "SELECT aggregate_id, version, value FROM state").await
}

async fn total(stage: &Stage) -> Projection {
    stored(stage, "SELECT aggregate_id, events, value FROM total").await
}

/// Publishes all of them in this order, not much faster than they are consumed, and those again that were not
/// confirmed.
async fn publish(stage: Arc<Stage>, consumers: &[&str], events: Vec<Event>) {
    let bus = stage.bus().unwrap();
    for windows in events.chunks(WINDOW * WINDOWS) {
        let mut watch = Watch::new();
        for consumer in consumers {
            loop {
                let ready = stage.lag(consumer).await.unwrap().ready;
                if ready < READY_MAX {
                    break;
                }
                watch.at(i64::from(ready)).await;
            }
        }
        let publishing = windows
            .chunks(WINDOW)
            .map(|window| publish_window(&bus, window));
        join_all(publishing).await;
    }
}

async fn publish_window(bus: &RabbitMqBus, window: &[Event]) {
    let mut left = window.to_vec();
    while !left.is_empty() {
        let results = bus.publish(&left).await;
        let failed = left.into_iter().zip(results);
        left = failed
            .filter_map(|(event, result)| result.is_err().then_some(event))
            .collect();
    }
}

/// Each event several times, in any order.
fn scrambled(events: &[Event], random: &mut StdRng) -> Vec<Event> {
    let copies = events.iter().cycle().take(events.len() * COPIES);
    let mut copies: Vec<_> = copies.cloned().collect();
    copies.shuffle(random);
    copies
}

async fn counted(stage: &Stage, statement: &'static str) -> i64 {
    let count = sqlx::query_scalar(statement);
    count.fetch_one(stage.postgres.pool()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_projection_equals_its_recomputation() {
    let mut random = chance::random("projections");
    let (aggregates, versions) = (asked("AGGREGATES", 50), asked("VERSIONS", 20));
    let kills = asked("CONSUMER_KILLS", 3);
    let history = history(aggregates, versions, &mut random);
    let stage = Arc::new(Stage::set(WORKER, None).await.unwrap());
    for consume in [STATE, TOTAL] {
        stage.bind(consume.name, &[KIND]).await.unwrap();
    }
    let started = Instant::now();
    let (publisher, scrambled) = (stage.clone(), scrambled(&history, &mut random));
    let publishing = mesh::spawn(async move {
        publish(publisher, &[STATE.name, TOTAL.name], scrambled).await;
    });
    let mut workers = [STATE, TOTAL].map(|consume| stage.consumer(consume).unwrap());
    let events = aggregates * versions;
    let (mut marks, mut watch) = (Marks::new(kills, events), Watch::new());
    while !marks.is_over() {
        let applied = counted(&stage, "SELECT count(*) FROM mesh_inbox").await;
        if marks.reached(applied) {
            workers.into_iter().for_each(Worker::kill);
            workers = [STATE, TOTAL].map(|consume| stage.consumer(consume).unwrap());
        }
        watch.at(applied).await;
    }
    publishing.await.unwrap();
    for (consume, worker) in [STATE, TOTAL].into_iter().zip(workers) {
        drain(&stage, consume, worker).await;
    }
    let repeated = counted(&stage, "SELECT count(*) FROM repeated").await;
    println!(
        "{aggregates} aggregates, {events} events, {COPIES} times each to 2 consumers, in {:.1?}: {repeated} \
         deliveries were repeats to the one that adds, both were killed {kills} times",
        started.elapsed()
    );
    let (expected_state, expected_total) = recomputed(&history);
    assert_eq!(state(&stage).await, expected_state);
    assert_eq!(total(&stage).await, expected_total);
    Arc::into_inner(stage).unwrap().clear().await.unwrap();
}

/// The test above looks: without an inbox the sums are wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_projection_that_adds_without_an_inbox_is_found() {
    let mut random = chance::random("without an inbox");
    let history = history(10, 5, &mut random);
    let stage = Arc::new(Stage::set(WORKER, None).await.unwrap());
    let wrong = Consume {
        effect: Effect::TotalWithoutInbox,
        ..TOTAL
    };
    stage.bind(wrong.name, &[KIND]).await.unwrap();
    let worker = stage.consumer(wrong).unwrap();
    let scrambled = scrambled(&history, &mut random);
    publish(stage.clone(), &[wrong.name], scrambled).await;
    drain(&stage, wrong, worker).await;
    let (_, expected) = recomputed(&history);
    let found = total(&stage).await;
    assert!(found.values().all(|(count, _)| *count == 15), "{found:?}");
    assert_ne!(found, expected);
    Arc::into_inner(stage).unwrap().clear().await.unwrap();
}
