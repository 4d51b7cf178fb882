//! Two providers: payments go to the one that answers, and none is charged at both.

use crate::suite::world::{Buy, Process, SECOND_US, World};
use mesh_events::FaultPoints;
use mesh_store::{Durability, SqliteConfig};
use payment::commands::Commands;
use payment::provider::simulator::{Faults, Simulator, SimulatorConfig};
use payment::provider::{CircuitConfig, Guarded, Provider, TransactionKind};
use payment::routing::{Choice, Route};
use payment::saga::{Providers, Saga};
use payment::state::State;
use payment::worker::Worker;
use std::collections::BTreeMap;
use std::sync::Arc;
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

const CIRCUIT: CircuitConfig = CircuitConfig {
    failures_max: 2,
    open_ms: 5_000,
};

/// A process whose payments go to `first`, and to `second` while that is left alone.
struct Two {
    process: Process,
    second: Arc<Simulator>,
    _folder: TempDir,
}

impl Two {
    async fn of(world: &World) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let journal = SqliteConfig {
            path: folder.path().join("second.db"),
            durability: Durability::Relaxed,
            ..SqliteConfig::default()
        };
        let second = Simulator::open(&SimulatorConfig::default(), &journal, world.clock.clone())
            .await
            .unwrap();
        let second = Arc::new(second);
        let guarded = |provider: Arc<dyn Provider>| -> Arc<dyn Provider> {
            Arc::new(Guarded::new(provider, CIRCUIT, world.clock.clone()))
        };
        let providers = Providers::from([
            ("first".to_owned(), guarded(world.simulator.clone())),
            ("second".to_owned(), guarded(second.clone())),
        ]);
        let choice = |name: &str, weight| Choice {
            name: name.to_owned(),
            weight,
        };
        let route = Route {
            providers: vec![choice("first", 1), choice("second", 0)],
            ..Route::default()
        };
        let base = world.process();
        let saga = Saga::new(
            base.store.clone(),
            world.catalogue.clone(),
            providers,
            world.config.saga.clone(),
            world.clock.clone(),
            TaskTracker::new(),
            FaultPoints::default(),
        )
        .routed(vec![route]);
        let worker = Worker::new(base.store.clone(), saga.clone(), world.config.clone());
        let catalogue = world.catalogue.clone();
        let commands = Commands::new(base.store.clone(), saga, catalogue, "first".to_owned());
        let process = Process {
            commands,
            worker,
            ..base
        };
        Self {
            process,
            second,
            _folder: folder,
        }
    }
}

/// What a provider took of each attempt.
async fn taken(provider: &Simulator) -> BTreeMap<String, i64> {
    let page = provider.transactions(None).await.unwrap();
    let captures = page
        .transactions
        .into_iter()
        .filter(|booked| booked.kind == TransactionKind::Capture);
    captures
        .map(|booked| (booked.charge_reference, booked.amount.amount_minor()))
        .collect()
}

#[tokio::test]
async fn payments_fall_back_only_where_nothing_was_sent_and_none_is_charged_twice() {
    let world = World::new().await;
    let two = Two::of(&world).await;
    let process = &two.process;
    let early = process.create(&world, Buy::some()).await.unwrap();
    let waiting = process.create(&world, Buy::unconfirmed()).await.unwrap();
    assert_eq!(
        (early.provider.as_str(), waiting.provider.as_str()),
        ("first", "first")
    );

    // What first does is not answered: it did it, but nobody knows. Such payments stay where they are.
    world.simulator.set_faults(Faults {
        unknown_after: 1.0,
        ..Faults::default()
    });
    let mut unknown = Vec::new();
    for _ in 0..2 {
        unknown.push(process.create(&world, Buy::some()).await.unwrap());
    }
    let confirmed = process
        .confirm(&world, &waiting.id, "pm_card_mastercard")
        .await
        .unwrap();
    assert_eq!(
        confirmed.provider, "second",
        "first has heard nothing of it"
    );
    let late = process.create(&world, Buy::some()).await.unwrap();
    assert_eq!(late.provider, "second", "the circuit is open");

    world.simulator.set_faults(Faults::default());
    for _ in 0..60 {
        world.clock.advance(2 * SECOND_US);
        process.worker.run_once().await.unwrap();
    }
    let back = process.create(&world, Buy::some()).await.unwrap();
    assert_eq!(back.provider, "first", "the circuit has closed");

    let (first, second) = (taken(&world.simulator).await, taken(&two.second).await);
    let of_first = unknown
        .iter()
        .chain([&early, &back])
        .map(|payment| (payment, "first"));
    let of_second = [&confirmed, &late].map(|payment| (payment, "second"));
    for (payment, name) in of_first.chain(of_second) {
        let payment = process.payment(&payment.id).await;
        assert_eq!(payment.state, State::Succeeded, "{}", payment.id);
        assert_eq!(payment.order.provider, name);
        let attempt = payment.attempts[0].id.to_string();
        let both = [first.get(&attempt), second.get(&attempt)];
        let expected = match name {
            "first" => [Some(&payment.amount_minor), None],
            _ => [None, Some(&payment.amount_minor)],
        };
        assert_eq!((payment.attempts.len(), both), (1, expected));
    }
    assert_eq!((first.len(), second.len()), (4, 2));
}
