//! The log of changes: in order, without a hole behind anybody who reads along, and forgotten after a time.

use crate::suite::world::{Buy, SECOND_US, World, request};
use mesh_store::Durability;
use payment::provider::simulator::SimulatorConfig;
use payment::store::{Change, Retention, Store, Viewer};
use payment::wire::method;
use prost::Message as _;
use proto::commerce::payment::v1 as pb;
use std::collections::BTreeMap;
use std::time::Duration;

const PURCHASES: usize = 25;
const PATIENCE: Duration = Duration::from_secs(30);

fn payment(change: &Change) -> pb::Payment {
    pb::Payment::decode(change.body.as_slice()).unwrap()
}

/// Everything after a revision, in small pages.
async fn read(store: &dyn Store, viewer: &Viewer, mut after: i64) -> Vec<Change> {
    let mut all = Vec::new();
    loop {
        let (changes, read_to) = store.changes(viewer, after, 3).await.unwrap();
        if read_to == after {
            return all;
        }
        all.extend(changes);
        after = read_to;
    }
}

/// The same, once there are so many. A change may be seen a little after it was made.
async fn read_all(store: &dyn Store, viewer: &Viewer, after: i64, count: usize) -> Vec<Change> {
    let all = async {
        loop {
            let all = read(store, viewer, after).await;
            if all.len() >= count {
                return all;
            }
            tokio::task::yield_now().await;
        }
    };
    let all = tokio::time::timeout(PATIENCE, all).await;
    all.expect("all changes are seen")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_reads_along_with_two_writers_misses_nothing() {
    let world = World::with(SimulatorConfig::default(), Durability::Relaxed).await;
    let writers = [world.process(), world.replica().await];
    let store = world.storage.store();
    let start = store.revisions().await.unwrap().last;
    let write = async |process: &crate::suite::world::Process| {
        for _ in 0..PURCHASES {
            process.create(&world, Buy::some()).await.unwrap();
        }
    };
    let reading = async {
        let (mut seen, mut finished) = (Vec::new(), 0);
        while finished < 2 * PURCHASES {
            let after = seen.last().map_or(start, |change: &Change| change.revision);
            let more = read(&*store, &Viewer::Operator, after).await;
            let done = |change: &&Change| payment(change).state() == pb::payment::State::Succeeded;
            finished += more.iter().filter(done).count();
            seen.extend(more);
            tokio::task::yield_now().await;
        }
        seen
    };
    let reading = tokio::time::timeout(PATIENCE, reading);
    let (seen, (), ()) = tokio::join!(reading, write(&writers[0]), write(&writers[1]));
    let seen = seen.expect("all purchases are seen to succeed");

    assert!(seen.is_sorted_by_key(|change| change.revision));
    assert_eq!(
        seen,
        read(&*store, &Viewer::Operator, start).await,
        "what was passed by"
    );
    let mut versions: BTreeMap<String, i64> = BTreeMap::new();
    for change in &seen {
        let payment = payment(change);
        let before = versions.insert(payment.id.clone(), payment.version);
        assert!(before < Some(payment.version), "{} went back", payment.id);
    }
    assert_eq!(versions.len(), 2 * PURCHASES);
}

#[tokio::test]
async fn a_client_sees_its_own_and_reads_past_the_rest() {
    let world = World::new().await;
    let process = world.process();
    let store = world.storage.store();
    let start = store.revisions().await.unwrap().last;
    for name in ["shop", "other", "shop", "other"] {
        let mut request = request(method::CREATE_PAYMENT, &format!("key-{}", world.number()));
        request.principal = name.into();
        let order = Buy::unconfirmed().order(&world);
        process.commands.create(request, order).await.unwrap();
    }
    let all = read_all(&*store, &Viewer::Operator, start, 4).await;
    let mine = read(&*store, &Viewer::Client("shop".into()), start).await;
    assert_eq!(all.len(), 4);
    assert_eq!(mine, [all[0].clone(), all[2].clone()]);
    let (_, read_to) = store
        .changes(&Viewer::Client("nobody".into()), start, 10)
        .await
        .unwrap();
    assert_eq!(read_to, all[3].revision);
}

#[tokio::test]
async fn what_is_old_is_forgotten_in_order() {
    let world = World::new().await;
    let process = world.process();
    let store = world.storage.store();
    let start = store.revisions().await.unwrap();
    assert_eq!(start.first, 1);
    for _ in 0..4 {
        process.create(&world, Buy::unconfirmed()).await.unwrap();
        world.clock.advance(SECOND_US);
    }
    let all = read_all(&*store, &Viewer::Operator, start.last, 4).await;
    let now_us = world.clock.now_us();
    let retention = Retention {
        answers_before_us: now_us - 2 * SECOND_US,
        changes_before_us: now_us - SECOND_US,
        webhooks_before_us: now_us,
        windows_before_us: now_us,
        rows_max: 2,
    };
    assert_eq!(store.sweep(retention).await.unwrap(), 4, "two of each");
    assert_eq!(store.revisions().await.unwrap().first, all[1].revision + 1);
    assert_eq!(store.sweep(retention).await.unwrap(), 1);
    assert_eq!(store.sweep(retention).await.unwrap(), 0);
    let kept = store.revisions().await.unwrap();
    assert_eq!(kept.first, all[2].revision + 1);
    assert!(kept.last >= all[3].revision);
    assert_eq!(
        read(&*store, &Viewer::Operator, kept.first - 1).await,
        all[3..]
    );
    assert_eq!(world.storage.count("mesh_idempotency").await, 2);
}
