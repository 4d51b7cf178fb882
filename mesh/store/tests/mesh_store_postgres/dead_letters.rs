use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use mesh_events::{DeadLetter, DeadLetters as _, Event, Handler, HandlerError};
use mesh_store::{
    dead_letters::ReplayError,
    postgres::{dead_letters::PostgresDeadLetters, inbox},
};

use crate::database::Database;

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
    let (database, postgres) = Database::open().await;
    let letters = PostgresDeadLetters::new(postgres);
    let given: Vec<DeadLetter> = (0..5).map(|number| letter("one", number)).collect();
    for letter in &given {
        letters.record(letter.clone()).await.unwrap();
    }
    let first = letters.list(0, 3).await.unwrap();
    let second = letters.list(first[2].id, 3).await.unwrap();
    let listed: Vec<DeadLetter> = first
        .iter()
        .chain(&second)
        .map(|stored| stored.letter.clone())
        .collect();
    assert_eq!(listed, given);
    let shown = letters.show(first[0].id).await.unwrap();
    assert_eq!(shown.as_ref(), Some(&first[0]));
    assert_eq!(letters.show(99).await.unwrap(), None);
    database.drop().await;
}

#[tokio::test]
async fn the_same_event_is_one_letter_for_each_consumer_with_the_last_reason() {
    let (database, postgres) = Database::open().await;
    let letters = PostgresDeadLetters::new(postgres);
    let first = letter("one", 1);
    let second = DeadLetter {
        consumer: "two".into(),
        ..first.clone()
    };
    let again = DeadLetter {
        reason: "again".into(),
        attempts: u32::MAX,
        ..first.clone()
    };
    for letter in [first, second.clone(), again.clone()] {
        letters.record(letter).await.unwrap();
    }
    let listed = letters.list(0, 10).await.unwrap();
    let listed: Vec<_> = listed.into_iter().map(|stored| stored.letter).collect();
    assert_eq!(listed, [again, second]);
    database.drop().await;
}

/// Fails the first time.
struct Second(AtomicU32);

#[async_trait]
impl Handler for Second {
    async fn handle(&self, _: &Event) -> Result<(), HandlerError> {
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0 => Err(HandlerError::transient("not yet")),
            _ => Ok(()),
        }
    }
}

#[tokio::test]
async fn a_letter_is_gone_once_it_was_replayed_or_dropped() {
    let (database, postgres) = Database::open().await;
    let letters = PostgresDeadLetters::new(postgres.clone());
    for number in 0..2 {
        letters.record(letter("one", number)).await.unwrap();
    }
    let listed = letters.list(0, 10).await.unwrap();
    let (first, second) = (listed[0].id, listed[1].id);
    let handler = Second(AtomicU32::new(0));
    let failed = letters.replay(first, &handler).await;
    assert!(matches!(failed, Err(ReplayError::Handler { .. })));
    letters.replay(first, &handler).await.unwrap();
    let gone = letters.replay(first, &handler).await;
    assert!(matches!(gone, Err(ReplayError::NotFound { .. })));
    assert!(letters.drop(second).await.unwrap());
    assert!(!letters.drop(second).await.unwrap());
    let mut write = postgres.begin().await.unwrap();
    let id = listed[0].letter.event.message_id;
    assert!(inbox::insert(&mut write, "one", id, 1).await.unwrap());
    database.drop().await;
}
