use std::{task::Poll, time::Instant};

use tokio::task::JoinSet;

use super::*;
use crate::{
    Retry, is_unique_violation, retry,
    testing::{config, migrations, open},
};

async fn add(write: &mut Write, text: &str) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO note_1 (text) VALUES (?)")
        .bind(text)
        .execute(&mut **write)
        .await?;
    Ok(())
}

async fn notes(sqlite: &Sqlite) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM note_1")
        .fetch_one(sqlite.reader())
        .await
        .unwrap()
}

#[tokio::test]
async fn only_a_commit_is_seen() {
    let (_folder, sqlite) = open().await;
    let mut write = sqlite.begin().await.unwrap();
    add(&mut write, "dropped").await.unwrap();
    drop(write);
    let mut write = sqlite.begin().await.unwrap();
    add(&mut write, "rolled back").await.unwrap();
    assert_eq!(notes(&sqlite).await, 0, "seen before the commit");
    write.rollback().await;
    let mut write = sqlite.begin().await.unwrap();
    add(&mut write, "committed").await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(notes(&sqlite).await, 1);
}

#[tokio::test]
async fn a_dropped_transaction_lets_other_processes_write_without_another_begin() {
    let (folder, sqlite) = open().await;
    let mut write = sqlite.begin().await.unwrap();
    add(&mut write, "dropped").await.unwrap();
    drop(write);
    let other = Sqlite::open(&config(&folder), &migrations(1))
        .await
        .unwrap();
    other.begin().await.unwrap().commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_queue_in_turn_and_none_finds_the_database_locked() {
    let (_folder, sqlite) = open().await;
    let mut writers = JoinSet::new();
    for number in 0..320 {
        let sqlite = sqlite.clone();
        writers.spawn(async move {
            let mut write = sqlite.begin().await?;
            let before: i64 = sqlx::query_scalar("SELECT count(*) FROM note_1")
                .fetch_one(&mut *write)
                .await?;
            add(&mut write, &number.to_string()).await?;
            if number % 4 == 0 {
                drop(write); // Gives up in between.
                return Ok(None);
            }
            write.commit().await?;
            Ok::<_, sqlx::Error>(Some(before))
        });
    }
    let results = writers
        .join_all()
        .await
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    let mut seen: Vec<_> = results.into_iter().flatten().collect();
    seen.sort_unstable();
    assert_eq!(
        seen,
        (0..240).collect::<Vec<_>>(),
        "each saw what its predecessors committed"
    );
    assert_eq!(notes(&sqlite).await, 240);
}

/// Drops a future when it waits for the time after `waits_max`; then `None`.
async fn cancelled_after<F: Future>(waits_max: usize, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut waits = 0;
    std::future::poll_fn(move |context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if waits == waits_max => Poll::Ready(None),
        Poll::Pending => {
            waits += 1;
            Poll::Pending
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cancelling_at_any_moment_commits_all_or_nothing_and_harms_no_later_writer() {
    let (_folder, sqlite) = open().await;
    let (mut finished, mut cancelled) = (0, 0);
    for round in 0..240 {
        let work = async {
            let mut write = sqlite.begin().await?;
            add(&mut write, "one").await?;
            add(&mut write, "two").await?;
            write.commit().await
        };
        // How far it comes within so many waits is the machine's affair.
        match cancelled_after(round % 12, work).await {
            Some(result) => {
                result.unwrap();
                finished += 1;
            }
            None => cancelled += 1,
        }
    }
    assert!(
        finished > 0 && cancelled > 0,
        "cancelled at no or at every moment: {finished} finished, {cancelled} cancelled"
    );
    // A commit that was under way when it was cancelled may come through: let the writer get there.
    sqlite.begin().await.unwrap().rollback().await;
    let pairs: Vec<i64> = sqlx::query_scalar("SELECT count(*) FROM note_1 GROUP BY text")
        .fetch_all(sqlite.reader())
        .await
        .unwrap();
    assert!(
        pairs.windows(2).all(|pair| pair[0] == pair[1]),
        "half a transaction: {pairs:?}"
    );
    let before = notes(&sqlite).await;
    let mut write = sqlite.begin().await.unwrap();
    add(&mut write, "after").await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(notes(&sqlite).await, before + 1);
}

#[tokio::test]
async fn waiting_for_the_writer_has_an_end_and_may_be_repeated() {
    let folder = tempfile::TempDir::new().unwrap();
    let config = SqliteConfig {
        queue_timeout_ms: 1_000,
        ..config(&folder)
    };
    let sqlite = Sqlite::open(&config, &migrations(1)).await.unwrap();
    let held = sqlite.begin().await.unwrap();
    let begin = Instant::now();
    let error = sqlite.begin().await.unwrap_err();
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert!(matches!(error, sqlx::Error::PoolTimedOut), "{error:?}");
    assert_eq!(retry(&error), Retry::Always);
    drop(held);
    sqlite.begin().await.unwrap();
}

#[tokio::test]
async fn errors_know_whether_repeating_helps() {
    let folder = tempfile::TempDir::new().unwrap();
    let impatient = SqliteConfig {
        busy_timeout_ms: 10,
        ..config(&folder)
    };
    let sqlite = Sqlite::open(&impatient, &migrations(1)).await.unwrap();
    let other = Sqlite::open(&impatient, &migrations(1)).await.unwrap();

    let held = other.begin().await.unwrap();
    let busy = sqlite.begin().await.unwrap_err();
    assert_eq!(retry(&busy), Retry::Always, "{busy}");
    assert!(!is_unique_violation(&busy));
    held.rollback().await;

    let mut write = sqlite.begin().await.unwrap();
    let twice = "INSERT INTO note_1 (id, text) VALUES (1, 'x')";
    sqlx::query(twice).execute(&mut *write).await.unwrap();
    let duplicate = sqlx::query(twice).execute(&mut *write).await.unwrap_err();
    assert!(is_unique_violation(&duplicate), "{duplicate}");
    assert_eq!(retry(&duplicate), Retry::Never);
    assert_eq!(retry(&sqlx::Error::WorkerCrashed), Retry::IfIdempotent);
}

#[tokio::test]
async fn the_next_writer_replaces_a_lost_connection() {
    let (_folder, sqlite) = open().await;
    let mut write = sqlite.begin().await.unwrap();
    add(&mut write, "lost").await.unwrap();
    write.forget_if_lost(&sqlx::Error::WorkerCrashed);
    drop(write);
    let mut write = sqlite.begin().await.unwrap();
    add(&mut write, "kept").await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(notes(&sqlite).await, 1);
}

#[tokio::test]
async fn a_commit_wakes_and_a_rollback_does_not() {
    let (_folder, sqlite) = open().await;
    let wake = sqlite.wake();
    sqlite.begin().await.unwrap().rollback().await;
    let woken = timeout(Duration::from_millis(20), wake.notified()).await;
    assert!(woken.is_err(), "woken by a rollback");
    sqlite.begin().await.unwrap().commit().await.unwrap();
    timeout(Duration::from_secs(5), wake.notified())
        .await
        .expect("woken");
}

#[tokio::test]
async fn closing_waits_for_the_writer_and_refuses_later_ones() {
    let (folder, sqlite) = open().await;
    let mut write = sqlite.begin().await.unwrap();
    add(&mut write, "in time").await.unwrap();
    let closing = {
        let sqlite = sqlite.clone();
        async move { sqlite.close().await }
    };
    let (committed, closed) = tokio::join!(write.commit(), closing);
    committed.and(closed).unwrap();
    assert!(matches!(
        sqlite.begin().await.unwrap_err(),
        sqlx::Error::PoolClosed
    ));
    assert!(
        !folder.path().join("store.db-wal").exists(),
        "the log was moved into the file"
    );
}

#[test]
fn a_config_file_that_says_less_is_filled_up_and_one_that_says_more_is_refused() {
    let parse = |json: &str| -> Result<SqliteConfig, _> {
        SqliteConfig::deserialize(serde::de::value::MapDeserializer::<
            _,
            serde::de::value::Error,
        >::new(
            json.split(',').filter_map(|pair| pair.split_once('='))
        ))
    };
    let config = parse("path=/srv/payment.db,durability=relaxed").unwrap();
    assert_eq!(config.path, PathBuf::from("/srv/payment.db"));
    assert_eq!(
        (config.durability, config.readers_max),
        (Durability::Relaxed, 4)
    );
    assert!(
        parse("durability=none")
            .unwrap_err()
            .to_string()
            .contains("none")
    );
    assert!(
        parse("syncronous=off")
            .unwrap_err()
            .to_string()
            .contains("syncronous")
    );
}
