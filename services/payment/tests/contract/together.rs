//! New payments that come at the same time are written together, and what is wrong with one is nobody else's affair.

use crate::suite::world::{Buy, World, decoded, request};
use futures_util::future::join_all;
use payment::error::Error;
use payment::rejection::Rejection;
use payment::wire::method;
use std::collections::BTreeSet;

const PAYMENTS: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_written_together_succeeds_and_fails_apart() {
    let world = World::new().await;
    let process = world.process();
    let named = |order_ref: &str| Buy {
        order_ref: Some(order_ref.to_owned()),
        ..Buy::unconfirmed()
    };
    let taken = process.create(&world, named("taken")).await.unwrap();

    let create = |number: usize| {
        let (process, world) = (&process, &world);
        // The second half are the first ten calls once more, one whose order_ref is taken, and others.
        let (key, order_ref) = match number {
            30..40 => (number - 30, format!("order {}", number - 30)),
            40 => (number, "taken".to_owned()),
            _ => (number, format!("order {number}")),
        };
        async move {
            let request = request(method::CREATE_PAYMENT, &format!("together-{key}"));
            let new = named(&order_ref).order(world);
            (key, process.commands.create(request, new).await)
        }
    };
    let answers = join_all((0..PAYMENTS).map(create)).await;
    let mut ids = BTreeSet::new();
    for (key, answer) in &answers {
        match answer {
            Ok(answer) if !answer.replayed => {
                assert!(
                    ids.insert((*key, decoded(answer).id)),
                    "key {key} had two effects"
                );
            }
            Ok(_) | Err(Error::InFlight) if *key < 10 => {}
            Err(Error::Rejected(Rejection::OrderRefTaken { id, .. })) => {
                assert_eq!((*key, id.to_string()), (40, taken.id.clone()));
            }
            other => panic!("key {key}: {other:?}"),
        }
    }
    assert_eq!(
        ids.len(),
        PAYMENTS - 11,
        "each but the repeated and the refused"
    );

    let counted = "SELECT count(*)::text FROM payments \
         UNION ALL SELECT count(DISTINCT revision)::text FROM payment_changes \
         UNION ALL SELECT count(DISTINCT xmin::text)::text FROM payments";
    let counted = world.storage.texts(counted).await;
    let counted: Vec<usize> = counted.iter().map(|text| text.parse().unwrap()).collect();
    let all = PAYMENTS - 11 + 1;
    assert_eq!(
        counted[..2],
        [all, all],
        "each change has a number of its own"
    );
    assert!(
        counted[2] < all,
        "{} transactions for {all} payments",
        counted[2]
    );
}
