//! Who may carry a payment out, and for how long.

use crate::suite::world::{Buy, SECOND_US, World};
use kernel::PaymentId;
use payment::fact::Effects;
use payment::payment::Payment;
use payment::rejection::Rejection;
use payment::step::Next;
use payment::store::{Advanced, Decision, LeaseWish, Store};

const LEASE_US: i64 = 30 * SECOND_US;

fn wish(world: &World, owner: &str) -> LeaseWish {
    let now_us = world.clock.now_us();
    LeaseWish {
        owner: owner.to_owned(),
        now_us,
        until_us: now_us + LEASE_US,
    }
}

/// Goes on at `due_at_us`, with the lease or without.
fn later(
    due_at_us: i64,
    pause: bool,
) -> impl FnMut(&mut Payment, bool) -> Result<Decision, Rejection> + Send {
    move |_, holds_lease| {
        assert!(holds_lease, "asked without the lease");
        Ok(Decision {
            effects: Effects::default(),
            next: Next::Later(due_at_us),
            pause,
            begun: None,
        })
    }
}

async fn taken(store: &dyn Store, id: PaymentId, world: &World, owner: &str) -> bool {
    let mut decide = later(world.clock.now_us(), true);
    let taken = store.take(id, &wish(world, owner), &mut decide).await;
    matches!(taken.unwrap(), Advanced::Pause(_))
}

async fn advanced(store: &dyn Store, id: PaymentId, world: &World, owner: &str) -> bool {
    let mut decide = later(world.clock.now_us(), true);
    let advanced = store.advance(id, &wish(world, owner), &mut decide).await;
    matches!(advanced.unwrap(), Advanced::Pause(_))
}

#[tokio::test]
async fn a_lease_has_one_holder_until_it_runs_out() {
    let world = World::new().await;
    let created = world.process().create(&world, Buy::unconfirmed()).await;
    let id = PaymentId::parse(&created.unwrap().id).unwrap();
    let (one, other) = (world.storage.store(), world.storage.replica().await);

    assert!(taken(&*one, id, &world, "one").await);
    assert!(!taken(&*other, id, &world, "other").await);
    assert!(!advanced(&*other, id, &world, "other").await);
    assert!(advanced(&*one, id, &world, "one").await);

    world.outlast_leases().await;
    assert!(advanced(&*one, id, &world, "one").await, "nobody took it");
    world.outlast_leases().await;
    assert!(taken(&*other, id, &world, "other").await);
    assert!(!advanced(&*one, id, &world, "one").await, "it was lost");

    let mut decide = later(world.clock.now_us(), false);
    let left = other.advance(id, &wish(&world, "other"), &mut decide).await;
    assert!(matches!(left.unwrap(), Advanced::Left));
    assert!(taken(&*one, id, &world, "one").await, "it was given back");
}

#[tokio::test]
async fn what_is_due_and_nobodys_is_found() {
    let world = World::new().await;
    let process = world.process();
    let mut ids = Vec::new();
    for _ in 0..5 {
        let created = process.create(&world, Buy::unconfirmed()).await.unwrap();
        ids.push(PaymentId::parse(&created.id).unwrap());
    }
    ids.sort();
    let store = world.storage.store();
    let due = async |limit| {
        let mut due = store.due(world.clock.now_us(), limit).await.unwrap();
        due.sort();
        due
    };
    assert_eq!(due(10).await, [], "they wait to be confirmed");
    world.clock.advance(25 * 3_600 * SECOND_US);
    assert_eq!(due(10).await, ids);
    assert_eq!(due(2).await.len(), 2);
    assert!(taken(&*store, ids[0], &world, "one").await);
    assert_eq!(due(10).await, ids[1..], "one is carried out");
    world.outlast_leases().await;
    assert_eq!(due(10).await, ids);
    process.worker.run_once().await.unwrap();
    assert_eq!(due(10).await, [], "all have run out");
}

/// Many want it at once: one gets it, and nobody else is asked to decide on what is not theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_many_gets_the_lease() {
    let world = World::new().await;
    let created = world.process().create(&world, Buy::unconfirmed()).await;
    let id = PaymentId::parse(&created.unwrap().id).unwrap();
    let stores = [world.storage.store(), world.storage.replica().await];
    let wishes = (0..40).map(async |number| {
        let owner = format!("owner-{number}");
        taken(&*stores[number % 2], id, &world, &owner).await
    });
    let taken = futures_util::future::join_all(wishes).await;
    assert_eq!(taken.into_iter().filter(|taken| *taken).count(), 1);
}
