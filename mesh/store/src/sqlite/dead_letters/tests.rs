use std::sync::{
    Mutex,
    atomic::{AtomicU32, Ordering},
};

use mesh_events::{Event, HandlerError};

use super::*;
use crate::{sqlite::inbox, testing::open};

fn letter(consumer: &str, number: i64) -> DeadLetter {
    DeadLetter {
        consumer: consumer.into(),
        event: Event::new("test.Happened.v1", "agg_1", number, number, vec![0, 255])
            .with_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        reason: "unknown product".into(),
        attempts: 3,
        dead_at_us: 7,
    }
}

#[tokio::test]
async fn letters_are_listed_in_pages_and_shown_whole() {
    let (_folder, sqlite) = open().await;
    let letters = SqliteDeadLetters::new(sqlite);
    for number in 0..5 {
        letters.record(letter("one", number)).await.unwrap();
    }
    let first = letters.list(0, 3).await.unwrap();
    let second = letters.list(first[2].id, 3).await.unwrap();
    assert_eq!((first.len(), second.len()), (3, 2));
    assert_eq!(second[1].letter.event.aggregate_version, 4);
    assert_eq!(
        letters.show(first[0].id).await.unwrap().as_ref(),
        Some(&first[0])
    );
    let expected = letter("one", 0);
    let shown = &first[0].letter;
    let event = Event {
        message_id: shown.event.message_id,
        ..expected.event.clone()
    };
    assert_eq!(shown, &DeadLetter { event, ..expected });
    assert_eq!(letters.show(99).await.unwrap(), None);
}

#[tokio::test]
async fn the_same_event_is_one_letter_for_each_consumer_with_the_last_reason() {
    let (_folder, sqlite) = open().await;
    let letters = SqliteDeadLetters::new(sqlite);
    let first = letter("one", 1);
    letters.record(first.clone()).await.unwrap();
    letters
        .record(DeadLetter {
            consumer: "two".into(),
            ..first.clone()
        })
        .await
        .unwrap();
    letters
        .record(DeadLetter {
            reason: "again".into(),
            attempts: 9,
            ..first
        })
        .await
        .unwrap();
    let listed = letters.list(0, 10).await.unwrap();
    let seen: Vec<_> = listed
        .iter()
        .map(|stored| {
            (
                &*stored.letter.consumer,
                &*stored.letter.reason,
                stored.letter.attempts,
            )
        })
        .collect();
    assert_eq!(seen, [("one", "again", 9), ("two", "unknown product", 3)]);
}

/// Counts its effects once for each event, as a service does: inbox and effect in one transaction.
struct Counter {
    sqlite: Sqlite,
    refusals: AtomicU32,
    effects: Mutex<Vec<i64>>,
}

#[async_trait]
impl Handler for Counter {
    async fn handle(&self, event: &Event) -> Result<(), HandlerError> {
        let refused = self
            .refusals
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if refused.is_ok() {
            return Err(HandlerError::Poison("still unknown".into()));
        }
        let mut write = self.sqlite.begin().await.map_err(HandlerError::transient)?;
        let new = inbox::insert(&mut write, "one", event.message_id, 1)
            .await
            .map_err(HandlerError::transient)?;
        write.commit().await.map_err(HandlerError::transient)?;
        if new {
            self.effects.lock().unwrap().push(event.aggregate_version);
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_replayed_letter_has_its_effect_once_and_stays_until_then() {
    let (_folder, sqlite) = open().await;
    let letters = SqliteDeadLetters::new(sqlite.clone());
    let counter = Counter {
        sqlite,
        refusals: AtomicU32::new(1),
        effects: Mutex::default(),
    };
    let dead = letter("one", 42);
    letters.record(dead.clone()).await.unwrap();
    let id = letters.list(0, 1).await.unwrap()[0].id;

    let error = letters.replay(id, &counter).await.unwrap_err();
    assert!(matches!(error, ReplayError::Handler { .. }), "{error:?}");
    assert!(letters.show(id).await.unwrap().is_some());

    letters.replay(id, &counter).await.unwrap();
    assert_eq!(*counter.effects.lock().unwrap(), [42]);
    let error = letters.replay(id, &counter).await.unwrap_err();
    assert!(matches!(error, ReplayError::NotFound { .. }), "{error:?}");

    // Applied, but the process died before the letter was removed: the inbox knows.
    letters.record(dead).await.unwrap();
    let id = letters.list(0, 1).await.unwrap()[0].id;
    letters.replay(id, &counter).await.unwrap();
    assert_eq!(*counter.effects.lock().unwrap(), [42]);
}

#[tokio::test]
async fn a_dropped_letter_is_gone() {
    let (_folder, sqlite) = open().await;
    let letters = SqliteDeadLetters::new(sqlite);
    letters.record(letter("one", 1)).await.unwrap();
    let id = letters.list(0, 1).await.unwrap()[0].id;
    assert!(letters.drop(id).await.unwrap());
    assert!(!letters.drop(id).await.unwrap());
    assert!(letters.list(0, 1).await.unwrap().is_empty());
}
