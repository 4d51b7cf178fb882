//! Two replicas at the same payment at the same time: what comes out is what the model says of their
//! commands one after the other, in one order or the other.

use crate::suite::random::{Bench as _, Model, SKUS, Service, Step, seeds, step};
use crate::suite::world::{Buy, VISA, World, request};
use mesh_store::Durability;
use payment::error::Error;
use payment::payment::Payment;
use payment::provider::simulator::SimulatorConfig;
use payment::wire::method;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

const SEQUENCES: u64 = 60;
const ROUNDS: usize = 4;
const CALLS: usize = 200;

/// What a command comes to; nothing: it is refused, for whatever reason.
type Results = [Option<Result<(), &'static str>>; 2];

/// A command that can meet another one; time passes for both, and what banks do begins with a look at the payment.
fn command(random: &mut StdRng) -> Step {
    loop {
        match step(random) {
            Step::Confirm(_) | Step::Wait(_) | Step::Bank(_) => {}
            step => return step,
        }
    }
}

/// What may come out of two commands: either order, and of the second one that it was refused for the
/// first one being carried out; or that it was the same cancellation.
fn outcomes(model: &Model, steps: &[Step; 2], now_us: i64) -> Vec<(Model, Results)> {
    let mut outcomes = Vec::new();
    for first in [0, 1] {
        let mut one = model.clone();
        let mut results = [None; 2];
        results[first] = Some(one.apply(&steps[first], now_us));
        outcomes.push((one.clone(), results));
        if let [Step::Cancel, Step::Cancel] = steps {
            outcomes.push((one.clone(), [results[first]; 2]));
        }
        results[1 - first] = Some(one.apply(&steps[1 - first], now_us));
        outcomes.push((one, results));
    }
    outcomes
}

/// Line by line: an amount that is refunded falls on what is captured by then, so that the sums may agree where the
/// order does not.
fn agrees(model: &Model, payment: &Payment) -> bool {
    let counted = || payment.refunds.iter().filter(|one| one.state.counts());
    let refunded_minor = |sku: &str| -> i64 {
        let lines = counted().flat_map(|refund| &refund.lines);
        let of_sku = lines.filter(|line| line.sku == sku);
        of_sku.map(|line| line.amount_minor).sum()
    };
    model.state == payment.state
        && SKUS.into_iter().enumerate().all(|(index, sku)| {
            payment.captured_quantity(sku) == model.captured[index]
                && payment.refunded_quantity(sku) == model.refunded[index]
                && refunded_minor(sku) == model.refunded_minor[index]
        })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_replicas_do_what_one_would_have_done() {
    let world = World::with(SimulatorConfig::default(), Durability::Relaxed).await;
    let processes = [world.process(), world.replica().await];
    for seed in seeds(SEQUENCES) {
        let random = &mut StdRng::seed_from_u64(seed);
        let bought = [random.random_range(1..4), random.random_range(1..3)];
        let id = String::new();
        let [mut one, mut other] = processes.each_ref().map(|process| Service {
            world: &world,
            process,
            id: id.clone(),
        });
        one.buy(bought, true).await;
        other.id.clone_from(&one.id);
        let mut model = Model::new(bought, true, world.clock.now_us());
        let confirm = Step::Confirm(VISA);
        one.carry_out(&confirm).await.unwrap();
        model.apply(&confirm, world.clock.now_us()).unwrap();
        for _ in 0..ROUNDS {
            let steps = [command(random), command(random)];
            let (first, second) =
                tokio::join!(one.carry_out(&steps[0]), other.carry_out(&steps[1]));
            let (payment, _) = one.see().await;
            let came = [first, second];
            let possible = outcomes(&model, &steps, world.clock.now_us());
            let found = possible.into_iter().find(|(model, results)| {
                let same = |(came, expected): (&Result<_, _>, &Option<_>)| {
                    expected.map_or(came.is_err(), |expected| *came == expected)
                };
                came.iter().zip(results).all(same) && agrees(model, &payment)
            });
            let told = || {
                format!("PAYMENT_SEED={seed}: {steps:?} gave {came:?}\n{model:#?}\n{payment:#?}")
            };
            model = found.unwrap_or_else(|| panic!("{}", told())).0;
        }
    }
    world.settle(&processes[0]).await;
    world.check().await;
}

/// The same call at both replicas, again and again: one payment, one answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_key_at_two_replicas_makes_one_payment() {
    let world = World::with(SimulatorConfig::default(), Durability::Relaxed).await;
    let processes = [world.process(), world.replica().await];
    let order = Buy::some().order(&world);
    let calls = (0..CALLS).map(|number| {
        let commands = &processes[number % 2].commands;
        commands.create(request(method::CREATE_PAYMENT, "one"), order.clone())
    });
    let answers = futures_util::future::join_all(calls).await;
    let mut fresh = 0;
    for answer in answers {
        match answer {
            Ok(answer) => fresh += i32::from(!answer.replayed),
            Err(Error::InFlight) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(fresh, 1);
    assert_eq!(world.payments().await.len(), 1);
    world.check().await;
}
