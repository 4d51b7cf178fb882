//! Reservations: what is held, for how long, and what becomes of it.

use std::sync::Arc;

use kernel::ReservationId;
use product::{error::Error, reservation::Command, store::Store};
use prost::Message as _;

use crate::harness::{
    SECOND_US, START_US, adjust, at, command, commit, create, draft, keyed, on_every_store,
    reserve, restock, stocked, units, variant, wish,
};

on_every_store! {
    two_hundred_buyers_of_fifty_units
    all_lines_or_none
    a_reservation_keeps_what_it_saw
    an_expired_hold_can_be_bought_at_once
    an_expired_hold_is_committed_only_while_its_units_are_free
    lines_are_committed_and_restocked_one_by_one
    what_is_reserved_cannot_be_taken_away
    repeating_a_reservation_reserves_once
    only_active_products_with_a_price_are_reserved
    restocked_units_of_a_removed_variant_are_not_lost
    unknown_reservations_are_not_found
}

async fn two_hundred_buyers_of_fifty_units(store: Arc<dyn Store>) {
    stocked(&*store, "HOT", 50).await;
    let mut buyers = tokio::task::JoinSet::new();
    for buyer in 0..200 {
        let store = store.clone();
        buyers.spawn(async move {
            let origin = keyed(&format!("buyer-{buyer}"), "hot", START_US);
            store
                .reserve(&origin, &wish(&[("HOT", 1)], START_US + 60 * SECOND_US))
                .await
        });
    }
    let mut reserved = Vec::new();
    while let Some(outcome) = buyers.join_next().await {
        match outcome.unwrap() {
            Ok(answer) => reserved.push(ReservationId::parse(&answer.resource.id).unwrap()),
            Err(Error::OutOfStock(short)) => assert_eq!(short[0].available, 0),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(reserved.len(), 50);
    assert_eq!(units(&*store, "HOT", START_US).await, (50, 50, 0));
    for id in reserved {
        command(&*store, id, commit(&[], false), START_US)
            .await
            .unwrap();
    }
    assert_eq!(units(&*store, "HOT", START_US).await, (0, 0, 0));
}

async fn all_lines_or_none(store: Arc<dyn Store>) {
    stocked(&*store, "A", 5).await;
    stocked(&*store, "B", 1).await;
    stocked(&*store, "C", 0).await;
    let refused = reserve(&*store, &[("C", 1), ("A", 2), ("B", 2)], 60, START_US).await;
    let Err(Error::OutOfStock(short)) = refused else {
        panic!("{refused:?}")
    };
    let short: Vec<(&str, i32, i32)> = short
        .iter()
        .map(|line| (line.sku.as_str(), line.wanted, line.available))
        .collect();
    assert_eq!(
        short,
        [("C", 1, 0), ("B", 2, 1)],
        "in the order of the caller"
    );
    for sku in ["A", "B", "C"] {
        assert_eq!(units(&*store, sku, START_US).await.1, 0);
    }
    let missing = reserve(&*store, &[("A", 1), ("X", 1)], 60, START_US).await;
    assert!(matches!(missing, Err(Error::SkusNotFound(skus)) if skus == ["X"]));
}

async fn a_reservation_keeps_what_it_saw(store: Arc<dyn Store>) {
    let product = stocked(&*store, "A", 5).await;
    let id = reserve(&*store, &[("A", 2)], 60, START_US).await.unwrap();
    let mut changed = draft("Dearer", vec![variant("A", 0)]);
    changed.variants[0].variant.prices = vec![crate::harness::usd(999)];
    let update = product::store::Update {
        id: crate::harness::id(&product),
        fields: vec![
            product::product::Field::Title,
            product::product::Field::Variants,
        ],
        draft: changed,
        etag: String::new(),
    };
    store.update(&at(START_US), &update).await.unwrap();
    let line = store.reservation(id, START_US).await.unwrap().lines[0].clone();
    assert_eq!(
        (line.title.as_str(), line.unit_price),
        ("A", crate::harness::usd(199))
    );
    assert_eq!(
        (line.category.as_str(), line.product_id.to_string()),
        ("Category", product.id)
    );
}

async fn an_expired_hold_can_be_bought_at_once(store: Arc<dyn Store>) {
    stocked(&*store, "A", 3).await;
    let first = reserve(&*store, &[("A", 3)], 60, START_US).await.unwrap();
    let just_before = START_US + 60 * SECOND_US - 1;
    assert!(
        reserve(&*store, &[("A", 1)], 60, just_before)
            .await
            .is_err()
    );
    assert_eq!(units(&*store, "A", just_before).await, (3, 3, 0));
    let at_expiry = just_before + 1;
    assert_eq!(units(&*store, "A", at_expiry).await, (3, 0, 3));
    let seen = store.reservation(first, at_expiry).await.unwrap();
    assert_eq!(seen.state, product::reservation::State::Expired);
    reserve(&*store, &[("A", 3)], 60, at_expiry).await.unwrap();
    assert_eq!(units(&*store, "A", at_expiry).await, (3, 3, 0));
}

async fn an_expired_hold_is_committed_only_while_its_units_are_free(store: Arc<dyn Store>) {
    stocked(&*store, "A", 3).await;
    let late = START_US + 61 * SECOND_US;
    let first = reserve(&*store, &[("A", 2)], 60, START_US).await.unwrap();
    let second = reserve(&*store, &[("A", 1)], 60, START_US).await.unwrap();
    command(&*store, first, commit(&[], false), late)
        .await
        .unwrap();
    assert_eq!(units(&*store, "A", late).await, (1, 0, 1));
    reserve(&*store, &[("A", 1)], 60, late).await.unwrap();
    let sold = command(&*store, second, commit(&[], false), late).await;
    assert!(matches!(sold, Err(Error::OutOfStock(short)) if short[0].available == 0));
    let extended = command(
        &*store,
        second,
        Command::Extend {
            expires_at_us: late + SECOND_US,
        },
        late,
    )
    .await;
    assert!(matches!(
        extended,
        Err(Error::InvalidState {
            state: "EXPIRED",
            ..
        })
    ));
    // Another overdue hold does not stand in the way either.
    let much_later = late + 61 * SECOND_US;
    command(&*store, second, commit(&[], false), much_later)
        .await
        .unwrap();
    assert_eq!(units(&*store, "A", much_later).await, (0, 0, 0));
}

async fn lines_are_committed_and_restocked_one_by_one(store: Arc<dyn Store>) {
    create(
        &*store,
        &draft("P", vec![variant("A", 10), variant("B", 10)]),
        START_US,
    )
    .await;
    let id = reserve(&*store, &[("B", 4), ("A", 3)], 60, START_US)
        .await
        .unwrap();
    command(&*store, id, commit(&[("B", 1)], false), START_US)
        .await
        .unwrap();
    assert_eq!(units(&*store, "B", START_US).await, (9, 3, 6));
    let too_many = command(&*store, id, commit(&[("B", 4)], false), START_US).await;
    assert!(matches!(
        too_many,
        Err(Error::QuantityExceeded { left: 3, .. })
    ));
    let back = command(&*store, id, restock(&[("B", 1)]), START_US)
        .await
        .unwrap()
        .resource;
    assert_eq!(back.lines[0].restocked_quantity, 1);
    assert_eq!(units(&*store, "B", START_US).await, (10, 3, 7));
    let too_many = command(&*store, id, restock(&[("B", 1)]), START_US).await;
    assert!(matches!(
        too_many,
        Err(Error::QuantityExceeded { left: 0, .. })
    ));
    let done = command(&*store, id, commit(&[("A", 2)], true), START_US)
        .await
        .unwrap()
        .resource;
    assert_eq!(
        done.state(),
        proto::commerce::product::v1::reservation::State::Committed
    );
    assert_eq!(units(&*store, "A", START_US).await, (8, 0, 8));
    assert_eq!(units(&*store, "B", START_US).await, (10, 0, 10));
    let stranger = command(&*store, id, restock(&[("C", 1)]), START_US).await;
    assert!(matches!(stranger, Err(Error::Invalid(invalid)) if invalid[0].field == "lines[0].sku"));
}

async fn what_is_reserved_cannot_be_taken_away(store: Arc<dyn Store>) {
    stocked(&*store, "A", 5).await;
    reserve(&*store, &[("A", 3)], 60, START_US).await.unwrap();
    let refused = adjust(&*store, "A", -3, START_US).await;
    assert!(matches!(
        refused,
        Err(Error::StockReserved {
            on_hand: 5,
            reserved: 3,
            ..
        })
    ));
    let stock = adjust(&*store, "A", -2, START_US).await.unwrap();
    assert_eq!((stock.on_hand, stock.reserved, stock.available), (3, 3, 0));
    let late = START_US + 60 * SECOND_US;
    let stock = adjust(&*store, "A", -3, late).await.unwrap();
    assert_eq!((stock.on_hand, stock.reserved, stock.available), (0, 0, 0));
    assert!(matches!(
        adjust(&*store, "X", 1, late).await,
        Err(Error::SkusNotFound(_))
    ));
}

async fn repeating_a_reservation_reserves_once(store: Arc<dyn Store>) {
    stocked(&*store, "A", 5).await;
    let wish = wish(&[("A", 2)], START_US + 60 * SECOND_US);
    let first = store
        .reserve(&keyed("k", "r", START_US), &wish)
        .await
        .unwrap();
    let id = ReservationId::parse(&first.resource.id).unwrap();
    let committed = keyed("k2", "c", START_US);
    let command = commit(&[("A", 2)], false);
    let once = store.command(&committed, id, &command).await.unwrap();
    let twice = store.command(&committed, id, &command).await.unwrap();
    assert!(twice.replayed && !once.replayed);
    assert_eq!(
        once.resource.encode_to_vec(),
        twice.resource.encode_to_vec()
    );
    let again = store
        .reserve(&keyed("k", "r", START_US + 1), &wish)
        .await
        .unwrap();
    assert!(again.replayed);
    assert_eq!(
        again.resource.encode_to_vec(),
        first.resource.encode_to_vec()
    );
    assert_eq!(units(&*store, "A", START_US).await, (3, 0, 3));
}

async fn only_active_products_with_a_price_are_reserved(store: Arc<dyn Store>) {
    let mut archived = draft("Old", vec![variant("OLD", 1)]);
    archived.status = Some(product::product::Status::Archived);
    create(&*store, &archived, START_US).await;
    let refused = reserve(&*store, &[("OLD", 1)], 60, START_US).await;
    assert!(matches!(refused, Err(Error::NotActive { .. })));
    let mut won = draft("Won", vec![variant("WON", 1)]);
    won.variants[0].variant.prices = vec![crate::harness::krw(100)];
    create(&*store, &won, START_US).await;
    let refused = reserve(&*store, &[("WON", 1)], 60, START_US).await;
    assert!(matches!(refused, Err(Error::PriceNotFound { .. })));
}

async fn restocked_units_of_a_removed_variant_are_not_lost(store: Arc<dyn Store>) {
    let product = create(
        &*store,
        &draft("P", vec![variant("A", 1), variant("B", 0)]),
        START_US,
    )
    .await;
    let id = reserve(&*store, &[("A", 1)], 60, START_US).await.unwrap();
    command(&*store, id, commit(&[], false), START_US)
        .await
        .unwrap();
    let mut update = product::store::Update {
        id: crate::harness::id(&product),
        fields: vec![product::product::Field::Variants],
        draft: draft("P", vec![variant("B", 0)]),
        etag: String::new(),
    };
    store.update(&at(START_US), &update).await.unwrap();
    command(&*store, id, restock(&[("A", 1)]), START_US)
        .await
        .unwrap();
    update.draft.variants = vec![variant("A", 2), variant("B", 0)];
    store.update(&at(START_US), &update).await.unwrap();
    assert_eq!(units(&*store, "A", START_US).await, (3, 0, 3));
}

async fn unknown_reservations_are_not_found(store: Arc<dyn Store>) {
    let id = ReservationId::generate(START_US);
    assert!(matches!(
        store.reservation(id, START_US).await,
        Err(Error::ReservationNotFound(_))
    ));
    let refused = command(&*store, id, Command::Release, START_US).await;
    assert!(matches!(refused, Err(Error::ReservationNotFound(_))));
}
