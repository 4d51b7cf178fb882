use std::collections::HashSet;

use mesh_events::{Event, Outbox as _};
use mesh_store::{
    Postgres,
    postgres::outbox::{PostgresOutbox, append},
};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::database::Database;

/// Longer than any test takes: leases run by the clock of the database.
const LEASE_US: i64 = 600_000_000;

fn event(number: i64) -> Event {
    let body = vec![0, 1, 255];
    Event::new("test.Happened.v1", format!("agg_{number}"), number, 7, body)
        .with_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .optional()
}

async fn append_now(postgres: &Postgres, events: &[Event], now_us: i64) {
    let mut write = postgres.begin().await.unwrap();
    append(&mut write, events, now_us).await.unwrap();
    write.commit().await.unwrap();
}

async fn lease(outbox: &PostgresOutbox, limit: usize, lease_us: i64, now_us: i64) -> Vec<Uuid> {
    let events = outbox.lease(limit, lease_us, now_us).await.unwrap();
    events.into_iter().map(|event| event.message_id).collect()
}

fn ids(events: &[Event]) -> Vec<Uuid> {
    events.iter().map(|event| event.message_id).collect()
}

#[tokio::test]
async fn an_event_comes_back_as_it_was_appended_and_only_if_that_was_committed() {
    let (database, postgres) = Database::open().await;
    let outbox = PostgresOutbox::new(postgres.clone());
    let mut write = postgres.begin().await.unwrap();
    append(&mut write, &[event(1)], 1).await.unwrap();
    write.rollback().await.unwrap();
    append_now(&postgres, &[], 1).await;
    let plain = Event::new("test.Happened.v1", "agg", 2, 3, vec![]);
    let events = [event(1), plain];
    append_now(&postgres, &events[..1], 1).await;
    append_now(&postgres, &events[1..], 2).await;
    assert_eq!(outbox.lease(9, LEASE_US, 2).await.unwrap(), events);
    let lag = outbox.lag(10).await.unwrap();
    assert_eq!((lag.pending, lag.oldest_age_us), (2, 9));
    outbox.published(&ids(&events)).await.unwrap();
    assert_eq!(outbox.lag(10).await.unwrap().pending, 0);
    database.drop().await;
}

/// Each event goes to one relay, and no relay waits for another.
#[tokio::test(flavor = "multi_thread")]
async fn two_relays_share_what_is_due() {
    let (database, postgres) = Database::open().await;
    let events: Vec<Event> = (0..500).map(event).collect();
    append_now(&postgres, &events, 1).await;
    let other = database.connect().await;
    let mut relays = JoinSet::new();
    for postgres in [postgres, other] {
        relays.spawn(async move {
            let outbox = PostgresOutbox::new(postgres);
            let mut leased = Vec::new();
            loop {
                let ids = lease(&outbox, 7, LEASE_US, 1).await;
                if ids.is_empty() {
                    return leased;
                }
                leased.extend(ids);
            }
        });
    }
    let leased: Vec<Uuid> = relays.join_all().await.concat();
    assert_eq!(leased.len(), 500, "none twice");
    let expected: HashSet<Uuid> = ids(&events).into_iter().collect();
    assert_eq!(leased.into_iter().collect::<HashSet<_>>(), expected);
    database.drop().await;
}

/// Rows that another relay is just taking are stepped over.
#[tokio::test]
async fn a_locked_event_is_stepped_over() {
    let (database, postgres) = Database::open().await;
    let events = [event(1), event(2)];
    append_now(&postgres, &events[..1], 1).await;
    append_now(&postgres, &events[1..], 2).await;
    let mut taking = postgres.begin().await.unwrap();
    sqlx::query("SELECT FROM mesh_outbox WHERE message_id = $1 FOR UPDATE")
        .bind(events[0].message_id)
        .execute(&mut *taking)
        .await
        .unwrap();
    let outbox = PostgresOutbox::new(postgres);
    assert_eq!(lease(&outbox, 9, LEASE_US, 2).await, ids(&events[1..]));
    taking.rollback().await.unwrap();
    assert_eq!(lease(&outbox, 9, LEASE_US, 2).await, ids(&events[..1]));
    database.drop().await;
}

/// Of what lies behind the last look, a little is looked at each time, more every second, all every ten.
#[tokio::test]
async fn what_is_committed_late_is_found_the_sooner_the_less_late_it_is() {
    let (database, postgres) = Database::open().await;
    let outbox = PostgresOutbox::new(postgres.clone());
    let now_us = 100_000_000;
    assert!(lease(&outbox, 7, LEASE_US, now_us).await.is_empty());
    let late: Vec<Event> = (0..3).map(event).collect();
    for (event, late_us) in late.iter().zip([200_000, 4_000_000, 20_000_000]) {
        append_now(&postgres, std::slice::from_ref(event), now_us - late_us).await;
    }
    for (event, after_us) in late.iter().zip([0, 1_000_000, 10_000_000]) {
        if after_us > 0 {
            let before = lease(&outbox, 7, LEASE_US, now_us + after_us - 1).await;
            assert!(before.is_empty(), "before {after_us} us");
        }
        let found = lease(&outbox, 7, LEASE_US, now_us + after_us).await;
        assert_eq!(found, [event.message_id], "after {after_us} us");
    }
    database.drop().await;
}

#[tokio::test]
async fn a_clock_that_is_put_back_hides_nothing() {
    let (database, postgres) = Database::open().await;
    let outbox = PostgresOutbox::new(postgres.clone());
    assert!(lease(&outbox, 7, LEASE_US, 100_000_000).await.is_empty());
    let events = [event(0)];
    append_now(&postgres, &events, 40_000_000).await;
    assert_eq!(lease(&outbox, 7, LEASE_US, 40_000_001).await, ids(&events));
    database.drop().await;
}

#[tokio::test]
async fn what_is_old_is_found_by_the_looks_at_all() {
    let (database, postgres) = Database::open().await;
    let outbox = PostgresOutbox::new(postgres.clone());
    let (long_ago_us, now_us) = (10_000_000, 100_000_000);
    let backlog: Vec<Event> = (0..20).map(event).collect();
    append_now(&postgres, &backlog, long_ago_us).await;
    for expected in [7, 7, 6] {
        let leased = lease(&outbox, 7, LEASE_US, now_us).await;
        assert_eq!(leased.len(), expected, "a backlog is taken without a pause");
    }
    let late = [event(20)];
    append_now(&postgres, &late, long_ago_us).await;
    assert!(lease(&outbox, 7, LEASE_US, now_us + 1).await.is_empty());
    let later_us = now_us + 10_000_001;
    assert_eq!(lease(&outbox, 7, LEASE_US, later_us).await, ids(&late));
    database.drop().await;
}

#[tokio::test]
async fn a_lease_that_ran_out_is_given_again_and_what_is_deferred_waits() {
    let (database, postgres) = Database::open().await;
    let outbox = PostgresOutbox::new(postgres.clone());
    let events = [event(1)];
    append_now(&postgres, &events, 1).await;
    assert_eq!(lease(&outbox, 9, 0, 1).await, ids(&events));
    assert_eq!(lease(&outbox, 9, LEASE_US, 1).await, ids(&events));
    assert!(lease(&outbox, 9, LEASE_US, 1).await.is_empty(), "leased");
    outbox.defer(&ids(&events), 50).await.unwrap();
    assert!(lease(&outbox, 9, LEASE_US, 49).await.is_empty(), "deferred");
    assert_eq!(lease(&outbox, 9, LEASE_US, 50).await, ids(&events));
    database.drop().await;
}

#[tokio::test]
async fn a_commit_wakes_the_relay() {
    let (database, postgres) = Database::open().await;
    let committed = postgres.committed();
    append_now(&postgres, &[event(1)], 1).await;
    committed.notified().await;
    postgres.committing().has_committed(true);
    committed.notified().await;
    database.drop().await;
}

#[tokio::test]
async fn what_is_due_again_does_not_wait_for_what_is_fresh() {
    let (database, postgres) = Database::open().await;
    let outbox = PostgresOutbox::new(postgres.clone());
    let first = [event(0)];
    append_now(&postgres, &first, 1).await;
    assert_eq!(lease(&outbox, 8, LEASE_US, 1).await, ids(&first));
    outbox.defer(&ids(&first), 2).await.unwrap();
    let fresh: Vec<Event> = (1..20).map(event).collect();
    append_now(&postgres, &fresh, 3).await;
    let leased = lease(&outbox, 8, LEASE_US, 4).await;
    assert_eq!(leased.len(), 8);
    assert!(leased.contains(&first[0].message_id), "{leased:?}");
    database.drop().await;
}
