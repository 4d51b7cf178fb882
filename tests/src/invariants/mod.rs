//! What must be true of a quiet shop whatever happened to it before, asked of its databases by SQL of our
//! own: no code of the services takes part, so that a mistake of theirs is not made here again.
//!
//! Each invariant is a function that answers its violations as text. A shop is quiet when nothing is left
//! to do: events are delivered, sagas have ended. Before that a promise may not be kept yet.
//!
//! Deliberately absent: what cannot be seen in the databases. That the same key gets the same bytes is
//! watched by [`crate::rest::Rest`] while it calls, and logs are searched by whoever captured them.

mod acknowledged;
mod books;
mod cards;
mod progress;
mod sales;
mod snapshot;
mod states;
mod stock;
mod stores;

pub use acknowledged::{acknowledged_is_there, queues_are_empty};
pub use books::{
    balances_equal_their_postings, captured_and_refunded_stay_within_bounds,
    every_capture_and_refund_is_booked_once, every_dispute_is_booked_as_it_stands,
    forged_webhooks_are_refused, one_charge_an_order, postings_are_immutable, postings_sum_to_zero,
    provider_account_equals_its_journal, provider_and_payments_agree,
};
pub use cards::{card_number, no_card_number_is_stored};
pub use progress::{every_event_has_one_effect, nothing_is_left_undone};
pub use sales::{product_figures_equal_recomputation, sales_equal_recomputation};
pub use states::only_legal_moves;
pub use stock::{
    committed_equals_captured, every_hold_has_a_payment_that_waits, stock_covers_its_holds,
};
pub use stores::{Stores, Violations};

/// The invariants by name.
pub const NAMES: [&str; 19] = [
    "postings_sum_to_zero",
    "balances_equal_their_postings",
    "postings_are_immutable",
    "captured_and_refunded_stay_within_bounds",
    "every_capture_and_refund_is_booked_once",
    "one_charge_an_order",
    "provider_and_payments_agree",
    "every_dispute_is_booked_as_it_stands",
    "provider_account_equals_its_journal",
    "forged_webhooks_are_refused",
    "stock_covers_its_holds",
    "committed_equals_captured",
    "every_hold_has_a_payment_that_waits",
    "only_legal_moves",
    "every_event_has_one_effect",
    "product_figures_equal_recomputation",
    "sales_equal_recomputation",
    "nothing_is_left_undone",
    "no_card_number_is_stored",
];

/// The violations of the invariant of this name.
pub async fn check(name: &str, stores: &mut Stores) -> sqlx::Result<Violations> {
    match name {
        "postings_sum_to_zero" => postings_sum_to_zero(stores).await,
        "balances_equal_their_postings" => balances_equal_their_postings(stores).await,
        "postings_are_immutable" => postings_are_immutable(stores).await,
        "captured_and_refunded_stay_within_bounds" => {
            captured_and_refunded_stay_within_bounds(stores).await
        }
        "every_capture_and_refund_is_booked_once" => {
            every_capture_and_refund_is_booked_once(stores).await
        }
        "one_charge_an_order" => one_charge_an_order(stores).await,
        "provider_and_payments_agree" => provider_and_payments_agree(stores).await,
        "every_dispute_is_booked_as_it_stands" => {
            every_dispute_is_booked_as_it_stands(stores).await
        }
        "provider_account_equals_its_journal" => provider_account_equals_its_journal(stores).await,
        "forged_webhooks_are_refused" => forged_webhooks_are_refused(stores).await,
        "stock_covers_its_holds" => stock_covers_its_holds(stores).await,
        "committed_equals_captured" => committed_equals_captured(stores).await,
        "every_hold_has_a_payment_that_waits" => every_hold_has_a_payment_that_waits(stores).await,
        "only_legal_moves" => only_legal_moves(stores).await,
        "every_event_has_one_effect" => every_event_has_one_effect(stores).await,
        "product_figures_equal_recomputation" => product_figures_equal_recomputation(stores).await,
        "sales_equal_recomputation" => sales_equal_recomputation(stores).await,
        "nothing_is_left_undone" => nothing_is_left_undone(stores).await,
        "no_card_number_is_stored" => no_card_number_is_stored(stores).await,
        _ => panic!("no invariant is called {name}"),
    }
}

/// All violations of all invariants, each with the name of its invariant.
pub async fn check_all(stores: &mut Stores) -> sqlx::Result<Violations> {
    let mut all = Vec::new();
    for name in NAMES {
        let violations = check(name, stores).await?;
        all.extend(
            violations
                .into_iter()
                .map(|violation| format!("{name}: {violation}")),
        );
    }
    Ok(all)
}
