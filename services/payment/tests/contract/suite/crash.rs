//! A process may end between any two steps: another one finishes, with one charge, one answer and
//! nothing held.

use crate::suite::fuse::Fuse;
use crate::suite::world::{Buy, Process, World, how, owned, request};
use kernel::PaymentId;
use payment::error::Error;
use payment::payment::{CancelReason, Payment};
use payment::refund::{RefundState, Wanted};
use payment::state::State;
use payment::wire::method;
use std::pin::Pin;
use std::sync::Arc;

type Call<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>>;
type Command = for<'a> fn(&'a Process, &'a str, PaymentId, &'a Buy, &'a World) -> Call<'a>;

/// A command that is interrupted, and what must have become of its payment in the end.
struct Scenario {
    /// What is bought, and how far the purchase is carried before the command.
    buy: Buy,
    /// Nothing: the command is the purchase itself.
    command: Option<Command>,
    /// Whether the payment is as it must be.
    ends: fn(&Payment) -> bool,
}

fn capture_part<'a>(
    p: &'a Process,
    key: &'a str,
    id: PaymentId,
    _: &'a Buy,
    _: &'a World,
) -> Call<'a> {
    Box::pin(async move {
        let request = request(method::CAPTURE_PAYMENT, key);
        p.commands
            .capture(request, id, owned(&[("A", 1)]), false)
            .await
            .map(drop)
    })
}

fn capture_last<'a>(
    p: &'a Process,
    key: &'a str,
    id: PaymentId,
    _: &'a Buy,
    _: &'a World,
) -> Call<'a> {
    Box::pin(async move {
        let request = request(method::CAPTURE_PAYMENT, key);
        p.commands
            .capture(request, id, owned(&[("A", 1)]), true)
            .await
            .map(drop)
    })
}

fn cancel<'a>(p: &'a Process, key: &'a str, id: PaymentId, _: &'a Buy, _: &'a World) -> Call<'a> {
    Box::pin(async move {
        p.commands
            .cancel(request(method::CANCEL_PAYMENT, key), id)
            .await
            .map(drop)
    })
}

fn refund<'a>(p: &'a Process, key: &'a str, id: PaymentId, _: &'a Buy, _: &'a World) -> Call<'a> {
    Box::pin(async move {
        let wanted = Wanted::Lines(owned(&[("A", 1)]));
        let request = request(method::CREATE_REFUND, key);
        p.commands
            .refund(request, id, wanted, how(true))
            .await
            .map(drop)
    })
}

fn confirm<'a>(
    p: &'a Process,
    key: &'a str,
    id: PaymentId,
    buy: &'a Buy,
    _: &'a World,
) -> Call<'a> {
    Box::pin(async move {
        let request = request(method::CONFIRM_PAYMENT, key);
        p.commands
            .confirm(request, id, Some(buy.payment_method.into()))
            .await
            .map(drop)
    })
}

pub(crate) async fn create(
    process: &Process,
    world: &World,
    key: &str,
    buy: &Buy,
) -> Result<(), Error> {
    let order = buy.order(world);
    process
        .commands
        .create(request(method::CREATE_PAYMENT, key), order)
        .await
        .map(drop)
}

/// Runs the scenario with a process that ends at moment 1, 2, 3, … until one runs through.
async fn survives(world: &World, scenario: &Scenario) {
    for moment in 1..500 {
        let fuse = Fuse::at(moment);
        let order_ref = format!("crash-{}", world.number());
        let buy = Buy {
            order_ref: Some(order_ref.clone()),
            ..scenario.buy.clone()
        };
        let key = format!("key-{order_ref}");
        let id = if scenario.command.is_some() {
            let prepared = world.process().create(world, buy.clone()).await.unwrap();
            Some(PaymentId::parse(&prepared.id).unwrap())
        } else {
            None
        };
        let doomed = world.process_with(&fuse);
        let ran_through = tokio::select! {
            biased;
            () = fuse.blown() => false,
            done = run(&doomed, world, scenario, &key, id, &buy) => {
                done.unwrap();
                true
            }
        };
        drop(doomed);

        let survivor = world.process();
        world.outlast_leases().await;
        world.settle(&survivor).await;
        // The caller comes back with the same key: replayed, or carried out now.
        run(&survivor, world, scenario, &key, id, &buy)
            .await
            .unwrap();
        world.settle(&survivor).await;
        let payment = only_payment(world, &order_ref).await;
        assert!((scenario.ends)(&payment), "moment {moment}: {payment:#?}");
        world.check().await;
        if ran_through {
            assert!(moment > 4, "the fuse was never reached");
            return;
        }
    }
    panic!("never ran through");
}

async fn run(
    process: &Process,
    world: &World,
    scenario: &Scenario,
    key: &str,
    id: Option<PaymentId>,
    buy: &Buy,
) -> Result<(), Error> {
    match (scenario.command, id) {
        (Some(command), Some(id)) => command(process, key, id, buy, world).await,
        (_, _) => create(process, world, key, buy).await,
    }
}

pub(crate) async fn only_payment(world: &World, order_ref: &str) -> Payment {
    let mut payments = world.payments().await;
    payments.retain(|payment| payment.order.order_ref == order_ref);
    assert_eq!(payments.len(), 1, "payments of {order_ref}");
    payments.remove(0)
}

fn nothing_held(payment: &Payment) -> bool {
    use payment::attempt::Hold;
    payment.attempts.iter().all(|attempt| {
        matches!(
            attempt.hold,
            Hold::None | Hold::Released | Hold::Committed | Hold::Restocked
        )
    })
}

pub(crate) fn sold(payment: &Payment) -> bool {
    payment.state == State::Succeeded
        && payment.captured_minor() == 450
        && payment.attempts.len() == 1
        && payment.captures.len() == 1
        && nothing_held(payment)
}

fn canceled(payment: &Payment, reason: CancelReason) -> bool {
    payment.state == State::Canceled
        && payment.closing == Some(reason)
        && payment.captured_minor() == 0
        && nothing_held(payment)
}

#[tokio::test]
async fn a_purchase() {
    for world in [World::new().await, World::one_step().await] {
        survives(
            &world,
            &Scenario {
                buy: Buy::some(),
                command: None,
                ends: sold,
            },
        )
        .await;
    }
}

#[tokio::test]
async fn a_purchase_whose_charge_times_out() {
    for world in [World::new().await, World::one_step().await] {
        for method in ["pm_card_timeout_before", "pm_card_timeout_after"] {
            survives(
                &world,
                &Scenario {
                    buy: Buy::by(method),
                    command: None,
                    ends: sold,
                },
            )
            .await;
        }
    }
}

#[tokio::test]
async fn a_declined_purchase() {
    let ends = |payment: &Payment| {
        payment.state == State::RequiresConfirmation
            && payment.last_error.is_some()
            && payment.attempts.len() == 1
            && nothing_held(payment)
    };
    let world = World::new().await;
    let buy = Buy::by("pm_card_declined");
    survives(
        &world,
        &Scenario {
            buy,
            command: None,
            ends,
        },
    )
    .await;
}

#[tokio::test]
async fn a_purchase_whose_goods_are_gone() {
    for world in [World::new().await, World::one_step().await] {
        world
            .catalogue
            .refuse_commits
            .store(true, std::sync::atomic::Ordering::SeqCst);
        let ends = |payment: &Payment| canceled(payment, CancelReason::OutOfStock);
        // The caller's repetition finds its answer stored, so that the order is not bought twice.
        survives(
            &world,
            &Scenario {
                buy: Buy::some(),
                command: None,
                ends,
            },
        )
        .await;
    }
}

#[tokio::test]
async fn a_purchase_whose_capture_is_refused() {
    let ends = |payment: &Payment| canceled(payment, CancelReason::CaptureFailed);
    let buy = Buy::by("pm_card_capture_declined");
    survives(
        &World::new().await,
        &Scenario {
            buy,
            command: None,
            ends,
        },
    )
    .await;
}

#[tokio::test]
async fn an_authorisation_for_later() {
    let ends =
        |payment: &Payment| payment.state == State::RequiresCapture && payment.attempts.len() == 1;
    survives(
        &World::new().await,
        &Scenario {
            buy: Buy::manual(),
            command: None,
            ends,
        },
    )
    .await;
}

#[tokio::test]
async fn a_capture_of_a_part() {
    let ends = |payment: &Payment| {
        payment.state == State::PartiallyCaptured && payment.captured_minor() == 100
    };
    let scenario = Scenario {
        buy: Buy::manual(),
        command: Some(capture_part),
        ends,
    };
    survives(&World::new().await, &scenario).await;
}

#[tokio::test]
async fn a_last_capture() {
    let ends = |payment: &Payment| {
        payment.state == State::Succeeded
            && payment.captured_minor() == 100
            && nothing_held(payment)
    };
    let scenario = Scenario {
        buy: Buy::manual(),
        command: Some(capture_last),
        ends,
    };
    survives(&World::new().await, &scenario).await;
}

#[tokio::test]
async fn a_cancellation() {
    let ends = |payment: &Payment| canceled(payment, CancelReason::Requested);
    let scenario = Scenario {
        buy: Buy::manual(),
        command: Some(cancel),
        ends,
    };
    survives(&World::new().await, &scenario).await;
}

#[tokio::test]
async fn a_refund() {
    let ends = |payment: &Payment| {
        payment.refunds.len() == 1
            && payment.refunds[0].state == RefundState::Succeeded
            && payment.refunds[0].amount_minor == 100
    };
    for world in [World::new().await, World::one_step().await] {
        let scenario = Scenario {
            buy: Buy::some(),
            command: Some(refund),
            ends,
        };
        survives(&world, &scenario).await;
    }
}

#[tokio::test]
async fn a_confirmation_after_authentication() {
    for world in [World::new().await, World::one_step().await] {
        let buy = Buy::by("pm_card_authentication_ok");
        survives(
            &world,
            &Scenario {
                buy,
                command: Some(confirm),
                ends: sold,
            },
        )
        .await;
    }
}

/// A run that lost its lease while it was held up records nothing any more.
#[tokio::test]
async fn a_run_that_comes_back_late_changes_nothing() {
    let world = Arc::new(World::new().await);
    // From before the reservation to after the capture.
    for moment in 7..=18 {
        let fuse = Fuse::gate(moment);
        let slow = Arc::new(world.process_with(&fuse));
        let order_ref = format!("late-{moment}");
        let buy = Buy {
            order_ref: Some(order_ref.clone()),
            ..Buy::some()
        };
        let call = {
            let (slow, world, key) = (slow.clone(), world.clone(), order_ref.clone());
            mesh::spawn(async move { create(&slow, &world, &key, &buy).await })
        };
        fuse.blown().await;
        world.outlast_leases().await;
        let other = world.process();
        world.settle(&other).await;
        let done = only_payment(&world, &order_ref).await;
        assert!(sold(&done), "moment {moment}: {done:#?}");
        fuse.open();
        call.await.unwrap().unwrap();
        assert_eq!(
            only_payment(&world, &order_ref).await,
            done,
            "moment {moment}"
        );
        world.check().await;
    }
}
