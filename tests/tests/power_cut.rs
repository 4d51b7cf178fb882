//! Acknowledged means on disk: writes through the store on a disk whose power is cut.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh_store::{Durability, Sqlite, SqliteConfig};
use rand::Rng;
use rand::rngs::StdRng;
use sqlx::migrate::Migrator;
use tests::chance::{random, random_moment};
use tests::eventually;
use tests::power_cut::{Disk, Loss};
use tokio::task::JoinSet;

const SERVER: &str = env!("CARGO_BIN_EXE_power-cut-disk");
const CUTS: usize = 24;
const WRITERS: usize = 4;
/// Some pages a write, so that the log is moved into the file again and again and cuts hit that too.
const FILLER_BYTES: i64 = 9_000;

/// What some cuts did to the writes that were acknowledged before.
struct Outcome {
    acknowledged: usize,
    lost: usize,
    syncs: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_takes_no_acknowledged_write() {
    let Some(outcome) = cut_again_and_again(Durability::Full, "takes_no_acknowledged_write").await
    else {
        return;
    };
    assert_eq!(
        outcome.lost, 0,
        "of {} acknowledged writes",
        outcome.acknowledged
    );
    let acknowledged = u64::try_from(outcome.acknowledged).unwrap();
    assert!(
        outcome.syncs >= acknowledged,
        "{} syncs, {acknowledged} writes",
        outcome.syncs
    );
}

/// The disk tells a durable database from one that is not: else the test above would prove nothing.
#[tokio::test(flavor = "multi_thread")]
async fn relaxed_durability_loses_acknowledged_writes() {
    let Some(outcome) = cut_again_and_again(Durability::Relaxed, "relaxed_durability_loses").await
    else {
        return;
    };
    assert!(
        outcome.lost > 0,
        "all {} writes survived {CUTS} cuts",
        outcome.acknowledged
    );
}

async fn cut_again_and_again(durability: Durability, test: &str) -> Option<Outcome> {
    let mut disk = match Disk::mount(SERVER) {
        Ok(disk) => disk,
        Err(why) => {
            println!("SKIPPED {test}: no disk whose power can be cut: {why}");
            return None;
        }
    };
    let mut random = random(test);
    let mut outcome = Outcome {
        acknowledged: 0,
        lost: 0,
        syncs: 0,
    };
    let next = Arc::new(AtomicI64::new(1));
    let mut acknowledged = BTreeSet::new();
    for cut in 0..CUTS {
        let store = open(&disk.path(), durability).await;
        let kept = check(&store).await;
        outcome.lost += acknowledged.difference(&kept).count();
        outcome.acknowledged += acknowledged.len();
        let written = write_until_the_cut(store, &mut disk, &next, &mut random).await;
        outcome.syncs += written.1;
        acknowledged = written.0;
        disk.power_on().unwrap();
        assert!(!acknowledged.is_empty(), "cut {cut} came before any write");
    }
    let kept = check(&open(&disk.path(), durability).await).await;
    outcome.lost += acknowledged.difference(&kept).count();
    outcome.acknowledged += acknowledged.len();
    let Outcome {
        acknowledged,
        lost,
        syncs,
    } = outcome;
    println!(
        "{durability:?}: {CUTS} cuts, {acknowledged} acknowledged, {lost} lost, {syncs} syncs"
    );
    Some(outcome)
}

/// Opens the store where a shop would: in a folder that it makes itself.
async fn open(disk: &Path, durability: Durability) -> Sqlite {
    let path = disk.join("data").join("shop.db");
    let config = SqliteConfig {
        path,
        durability,
        ..SqliteConfig::default()
    };
    let store = Sqlite::open(&config, &Migrator::DEFAULT).await.unwrap();
    let mut write = store.begin().await.unwrap();
    sqlx::query("CREATE TABLE IF NOT EXISTS writes (n INTEGER PRIMARY KEY, twin INTEGER, filler)")
        .execute(&mut *write)
        .await
        .unwrap();
    write.commit().await.unwrap();
    store
}

/// What is there; the file must be sound and no write there by half.
async fn check(store: &Sqlite) -> BTreeSet<i64> {
    let sound: String = sqlx::query_scalar("PRAGMA integrity_check")
        .fetch_one(store.reader())
        .await
        .unwrap();
    assert_eq!(sound, "ok");
    let rows: Vec<(i64, i64)> = sqlx::query_as("SELECT n, twin FROM writes")
        .fetch_all(store.reader())
        .await
        .unwrap();
    let kept: BTreeSet<i64> = rows.iter().map(|row| row.0).collect();
    assert!(
        rows.iter().all(|row| kept.contains(&row.1)),
        "a write is there by half"
    );
    kept
}

/// Writes until the power is cut at a random moment; answers what was acknowledged before, and the syncs.
async fn write_until_the_cut(
    store: Sqlite,
    disk: &mut Disk,
    next: &Arc<AtomicI64>,
    random: &mut StdRng,
) -> (BTreeSet<i64>, u64) {
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let (store, next, acknowledged) = (store.clone(), next.clone(), acknowledged.clone());
        writers.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if write(&store, n).await.is_err() {
                    return;
                }
                acknowledged.lock().unwrap().insert(n);
            }
        });
    }
    let enough = random.random_range(1..120);
    eventually("some writes", || async {
        acknowledged.lock().unwrap().len() >= enough
    })
    .await;
    random_moment(random, Duration::from_millis(5)).await;
    let everything = random.random();
    let loss = if everything {
        Loss::Everything
    } else {
        Loss::Some {
            seed: random.random(),
        }
    };
    let syncs = disk.cut(loss).unwrap();
    while writers.join_next().await.is_some() {}
    drop(store.close().await); // It cannot write any more; only its files have to be closed.
    let acknowledged = acknowledged.lock().unwrap().clone();
    (acknowledged, syncs)
}

/// One write of two rows that belong together.
async fn write(store: &Sqlite, n: i64) -> sqlx::Result<()> {
    let mut write = store.begin().await?;
    for (n, twin) in [(n, -n), (-n, n)] {
        sqlx::query("INSERT INTO writes VALUES (?, ?, zeroblob(?))")
            .bind(n)
            .bind(twin)
            .bind(FILLER_BYTES)
            .execute(&mut *write)
            .await?;
    }
    write.commit().await
}
