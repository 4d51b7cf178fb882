use std::{collections::HashSet, sync::Arc};

use tokio::task::JoinSet;

use super::*;
use crate::testing::{config, migrations, open};

const LEASE_US: i64 = 1_000;

fn event(number: i64) -> Event {
    Event::new(
        "test.Happened.v1",
        format!("agg_{number}"),
        number,
        number * 1_000,
        vec![0, 1, 255],
    )
}

async fn append_now(sqlite: &Sqlite, events: &[Event], now_us: i64) {
    let mut write = sqlite.begin().await.unwrap();
    for event in events {
        append(&mut write, event, now_us).await.unwrap();
    }
    write.commit().await.unwrap();
}

async fn lease(outbox: &SqliteOutbox, limit: usize, now_us: i64) -> Vec<Uuid> {
    let events = outbox.lease(limit, LEASE_US, now_us).await.unwrap();
    events.into_iter().map(|event| event.message_id).collect()
}

fn ids(events: &[Event]) -> Vec<Uuid> {
    events.iter().map(|event| event.message_id).collect()
}

#[tokio::test]
async fn an_event_comes_back_as_it_was_appended_and_only_if_that_was_committed() {
    let (_folder, sqlite) = open().await;
    let outbox = SqliteOutbox::new(sqlite.clone());
    let mut write = sqlite.begin().await.unwrap();
    append(&mut write, &event(1), 10).await.unwrap();
    assert!(
        lease(&outbox, 10, 10).await.is_empty(),
        "seen before the commit"
    );
    write.rollback().await;
    let events = [
        event(2).with_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        event(3).optional(),
    ];
    append_now(&sqlite, &events, 10).await;
    assert_eq!(outbox.lease(10, LEASE_US, 10).await.unwrap(), events);
}

#[tokio::test]
async fn a_leased_event_is_nobody_elses_until_the_lease_runs_out() {
    let (_folder, sqlite) = open().await;
    let (one, two) = (
        SqliteOutbox::new(sqlite.clone()),
        SqliteOutbox::new(sqlite.clone()),
    );
    let events: Vec<_> = (0..5).map(event).collect();
    append_now(&sqlite, &events, 10).await;
    assert_eq!(lease(&one, 3, 100).await, ids(&events[..3]));
    assert_eq!(lease(&two, 3, 100).await, ids(&events[3..]));
    assert!(lease(&two, 3, 100 + LEASE_US - 1).await.is_empty());
    assert_eq!(lease(&two, 3, 100 + LEASE_US).await, ids(&events[..3]));
}

#[tokio::test]
async fn a_restart_ends_every_lease() {
    let (folder, sqlite) = open().await;
    let events = [event(1)];
    append_now(&sqlite, &events, 10).await;
    assert_eq!(
        lease(&SqliteOutbox::new(sqlite.clone()), 3, 100).await,
        ids(&events)
    );
    sqlite.close().await.unwrap();
    let reopened = Sqlite::open(&config(&folder), &migrations(1))
        .await
        .unwrap();
    assert_eq!(
        lease(&SqliteOutbox::new(reopened), 3, 101).await,
        ids(&events)
    );
}

#[tokio::test]
async fn published_events_are_gone_and_the_others_stay() {
    let (_folder, sqlite) = open().await;
    let outbox = SqliteOutbox::new(sqlite.clone());
    let events: Vec<_> = (0..5).map(event).collect();
    append_now(&sqlite, &events, 10).await;
    lease(&outbox, 5, 100).await;
    outbox.published(&ids(&events[1..3])).await.unwrap();
    outbox
        .published(&ids(&events[1..3]))
        .await
        .expect("no error the second time");
    assert_eq!(outbox.lag(100).await.unwrap().pending, 3);
    let left = [&events[0], &events[3], &events[4]].map(|event| event.message_id);
    assert_eq!(lease(&outbox, 5, 100 + LEASE_US).await, left);
}

#[tokio::test]
async fn a_deferred_event_is_due_at_its_time_and_after_those_that_never_failed() {
    let (_folder, sqlite) = open().await;
    let outbox = SqliteOutbox::new(sqlite.clone());
    let events: Vec<_> = (0..3).map(event).collect();
    append_now(&sqlite, &events, 10).await;
    lease(&outbox, 2, 100).await;
    outbox.defer(&ids(&events[..1]), 150).await.unwrap();
    assert_eq!(lease(&outbox, 5, 149).await, ids(&events[2..]));
    append_now(&sqlite, &[event(9)], 149).await;
    let due = outbox.lease(5, LEASE_US, 150).await.unwrap();
    assert_eq!(
        due.iter()
            .map(|event| event.aggregate_version)
            .collect::<Vec<_>>(),
        [9, 0]
    );
}

#[tokio::test]
async fn oldest_first_whatever_the_message_ids() {
    let (_folder, sqlite) = open().await;
    let outbox = SqliteOutbox::new(sqlite.clone());
    let (late, early) = (event(1), event(5_000));
    append_now(&sqlite, std::slice::from_ref(&early), 10).await;
    append_now(&sqlite, std::slice::from_ref(&late), 20).await;
    assert_eq!(
        lease(&outbox, 5, 100).await,
        [early.message_id, late.message_id]
    );
}

#[tokio::test]
async fn the_lag_counts_leased_events_and_the_age_since_appending() {
    let (_folder, sqlite) = open().await;
    let outbox = SqliteOutbox::new(sqlite.clone());
    assert_eq!(outbox.lag(5).await.unwrap(), OutboxLag::default());
    append_now(&sqlite, &[event(1)], 10).await;
    append_now(&sqlite, &[event(2)], 30).await;
    lease(&outbox, 1, 40).await;
    assert_eq!(
        outbox.lag(40).await.unwrap(),
        OutboxLag {
            pending: 2,
            oldest_age_us: 30
        }
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_relays_share_every_event_once() {
    let (_folder, sqlite) = open().await;
    let events: Vec<_> = (0..1_000).map(event).collect();
    append_now(&sqlite, &events, 10).await;
    let mut relays = JoinSet::new();
    for _ in 0..4 {
        let outbox = Arc::new(SqliteOutbox::new(sqlite.clone()));
        relays.spawn(async move {
            let mut published = Vec::new();
            loop {
                // Nothing to lease is not the end: the others may still fail to publish theirs.
                let leased = lease(&outbox, 37, 100).await;
                if leased.is_empty() && outbox.lag(100).await.unwrap().pending == 0 {
                    return published;
                }
                if !leased.is_empty() {
                    outbox.published(&leased).await.unwrap();
                }
                published.extend(leased);
            }
        });
    }
    let published: Vec<_> = relays.join_all().await.concat();
    assert_eq!(published.iter().collect::<HashSet<_>>().len(), 1_000);
    assert_eq!(published.len(), 1_000, "published twice");
}

#[tokio::test]
async fn leasing_reads_the_index_in_order_and_sorts_nothing() {
    let (_folder, sqlite) = open().await;
    let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(
        "EXPLAIN QUERY PLAN SELECT body FROM mesh_outbox \
         WHERE due_at_us <= 1 AND message_id NOT IN (SELECT unhex(value) FROM json_each('[]')) \
         ORDER BY due_at_us, appended_at_us, message_id LIMIT 5",
    )
    .fetch_all(sqlite.reader())
    .await
    .unwrap();
    let steps: Vec<_> = plan.iter().map(|step| step.3.as_str()).collect();
    assert!(
        steps[0].contains("USING INDEX mesh_outbox_due (due_at_us<?)"),
        "{steps:?}"
    );
    assert!(
        !steps.iter().any(|step| step.contains("TEMP B-TREE")),
        "{steps:?}"
    );
}

#[tokio::test]
async fn what_is_due_again_does_not_wait_for_what_is_fresh() {
    let (_folder, sqlite) = open().await;
    let outbox = SqliteOutbox::new(sqlite.clone());
    let first = [event(0)];
    append_now(&sqlite, &first, 1).await;
    assert_eq!(lease(&outbox, 8, 1).await, ids(&first));
    outbox.defer(&ids(&first), 2).await.unwrap();
    let fresh: Vec<Event> = (1..20).map(event).collect();
    append_now(&sqlite, &fresh, 3).await;
    let leased = lease(&outbox, 8, 4).await;
    assert_eq!(leased.len(), 8);
    assert!(leased.contains(&first[0].message_id), "{leased:?}");
}
