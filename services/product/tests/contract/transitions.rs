//! Every (state, command) pair of a reservation, legal and illegal, each from a reservation that was
//! really brought into that state.

use std::sync::Arc;

use kernel::ReservationId;
use product::{
    reservation::{Command, State},
    store::Store,
};

use crate::harness::{
    SECOND_US, START_US, command, commit, on_every_store, reserve, restock, stocked, units,
};

on_every_store! { every_state_and_command }

const TTL_S: i64 = 60;
const NOW_US: i64 = START_US + 30 * SECOND_US;
const LATE_US: i64 = START_US + 90 * SECOND_US;

/// How a reservation of 3 units of "A" (10 on hand) was brought where it is.
#[derive(Debug, Clone, Copy)]
enum Before {
    Held,
    HeldPartly,
    /// Its time ran out, and nothing has noted that.
    Overdue,
    Expired,
    ExpiredPartly,
    Committed,
    CommittedPartly,
    Released,
}

/// What is left of a command: the state afterwards and what is on hand and reserved; or the reason.
type Outcome = Result<(State, i32, i32), &'static str>;

async fn every_state_and_command(store: Arc<dyn Store>) {
    use Before::*;
    let extend = || Command::Extend {
        expires_at_us: LATE_US + TTL_S * SECOND_US,
    };
    let all = || commit(&[], false);
    let one = || commit(&[("A", 1)], false);
    let last = || commit(&[("A", 1)], true);
    let back = || restock(&[("A", 1)]);
    let release = || Command::Release;
    let (held, committed) = (State::Held, State::Committed);
    let (released, expired) = (State::Released, State::Expired);
    let table: Vec<(Before, Command, Outcome)> = vec![
        (Held, extend(), Ok((held, 10, 3))),
        (Held, all(), Ok((committed, 7, 0))),
        (Held, one(), Ok((held, 9, 2))),
        (Held, last(), Ok((committed, 9, 0))),
        (Held, release(), Ok((released, 10, 0))),
        (Held, back(), Err("QUANTITY_EXCEEDED")),
        (HeldPartly, extend(), Ok((held, 9, 2))),
        (HeldPartly, all(), Ok((committed, 7, 0))),
        (HeldPartly, one(), Ok((held, 8, 1))),
        (HeldPartly, last(), Ok((committed, 8, 0))),
        (HeldPartly, release(), Ok((committed, 9, 0))),
        (HeldPartly, back(), Ok((held, 10, 2))),
        (Overdue, extend(), Err("INVALID_STATE")),
        (Overdue, all(), Ok((committed, 7, 0))),
        (Overdue, one(), Ok((expired, 9, 0))),
        (Overdue, last(), Ok((committed, 9, 0))),
        (Overdue, release(), Ok((expired, 10, 0))),
        (Overdue, back(), Err("QUANTITY_EXCEEDED")),
        (Expired, extend(), Err("INVALID_STATE")),
        (Expired, all(), Ok((committed, 7, 0))),
        (Expired, one(), Ok((expired, 9, 0))),
        (Expired, last(), Ok((committed, 9, 0))),
        (Expired, release(), Ok((expired, 10, 0))),
        (Expired, back(), Err("QUANTITY_EXCEEDED")),
        (ExpiredPartly, extend(), Err("INVALID_STATE")),
        (ExpiredPartly, all(), Ok((committed, 7, 0))),
        (ExpiredPartly, one(), Ok((expired, 8, 0))),
        (ExpiredPartly, last(), Ok((committed, 8, 0))),
        (ExpiredPartly, release(), Ok((expired, 9, 0))),
        (ExpiredPartly, back(), Ok((expired, 10, 0))),
        (Committed, extend(), Err("INVALID_STATE")),
        (Committed, all(), Ok((committed, 7, 0))),
        (Committed, one(), Err("QUANTITY_EXCEEDED")),
        (Committed, last(), Err("QUANTITY_EXCEEDED")),
        (Committed, release(), Err("INVALID_STATE")),
        (Committed, back(), Ok((committed, 8, 0))),
        (CommittedPartly, extend(), Err("INVALID_STATE")),
        (CommittedPartly, all(), Ok((committed, 9, 0))),
        (CommittedPartly, one(), Err("QUANTITY_EXCEEDED")),
        (CommittedPartly, last(), Err("QUANTITY_EXCEEDED")),
        (CommittedPartly, release(), Ok((committed, 9, 0))),
        (CommittedPartly, back(), Ok((committed, 10, 0))),
        (Released, extend(), Err("INVALID_STATE")),
        (Released, all(), Err("INVALID_STATE")),
        (Released, one(), Err("INVALID_STATE")),
        (Released, last(), Err("INVALID_STATE")),
        (Released, release(), Ok((released, 10, 0))),
        (Released, back(), Err("INVALID_STATE")),
    ];
    for (index, (before, asked, expected)) in table.into_iter().enumerate() {
        let sku_store = fresh_sku(&*store, index).await;
        let outcome = sku_store.run(before, asked.clone()).await;
        assert_eq!(outcome, expected, "{before:?} {asked:?}");
    }
}

/// A variant of its own for each row of the table.
struct Row<'a> {
    store: &'a dyn Store,
    sku: String,
}

async fn fresh_sku(store: &dyn Store, index: usize) -> Row<'_> {
    let sku = format!("A{index}");
    stocked(store, &sku, 10).await;
    Row { store, sku }
}

impl Row<'_> {
    async fn run(&self, before: Before, asked: Command) -> Outcome {
        let store = self.store;
        let (id, now_us) = self.brought_to(before).await;
        let (on_hand, reserved, _) = units(store, &self.sku, now_us).await;
        let seen = store.reservation(id, now_us).await.unwrap();
        match command(store, id, self.named(asked), now_us).await {
            Ok(_) => {
                let after = store.reservation(id, now_us).await.unwrap();
                let (on_hand, reserved, _) = units(store, &self.sku, now_us).await;
                Ok((after.state, on_hand, reserved))
            }
            Err(error) => {
                let after = store.reservation(id, now_us).await.unwrap();
                assert_eq!(after, seen, "a refused command changes nothing");
                let (on_hand_after, reserved_after, _) = units(store, &self.sku, now_us).await;
                assert_eq!((on_hand_after, reserved_after), (on_hand, reserved));
                Err(error.reason())
            }
        }
    }

    async fn brought_to(&self, before: Before) -> (ReservationId, i64) {
        let store = self.store;
        let id = reserve(store, &[(&self.sku, 3)], TTL_S, START_US)
            .await
            .unwrap();
        let steps: (Vec<Command>, i64) = match before {
            Before::Held => (vec![], NOW_US),
            Before::HeldPartly => (vec![commit(&[("A", 1)], false)], NOW_US),
            Before::Overdue | Before::Expired => (vec![], LATE_US),
            Before::ExpiredPartly => (vec![commit(&[("A", 1)], false)], LATE_US),
            Before::Committed => (vec![commit(&[], false)], NOW_US),
            Before::CommittedPartly => (vec![commit(&[("A", 1)], true)], NOW_US),
            Before::Released => (vec![Command::Release], NOW_US),
        };
        for step in steps.0 {
            command(store, id, self.named(step), NOW_US).await.unwrap();
        }
        if matches!(before, Before::Expired | Before::ExpiredPartly) {
            assert!(store.expire_overdue(LATE_US, 100).await.unwrap() >= 1);
        }
        (id, steps.1)
    }

    /// The command with this row's SKU instead of "A".
    fn named(&self, mut command: Command) -> Command {
        if let Command::Commit { parts, .. } | Command::Restock { parts } = &mut command {
            for part in parts {
                part.sku.clone_from(&self.sku);
            }
        }
        command
    }
}
