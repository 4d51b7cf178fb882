//! Decisions, without a store. The table of states and commands is in the contract tests.

use proptest::prelude::*;

use super::*;

const NOW_US: i64 = 1_000_000_000;

fn line(sku: &str, quantity: i32) -> Line {
    Line {
        sku: sku.to_owned(),
        quantity,
        product_id: ProductId::generate(0),
        title: "Tea".to_owned(),
        category: "Drinks".to_owned(),
        unit_price: Money::zero(kernel::Currency::parse("USD").unwrap()),
        committed: 0,
        restocked: 0,
    }
}

fn held(lines: &[(&str, i32)]) -> Reservation {
    Reservation {
        id: ReservationId::generate(0),
        reference: "pay_1".to_owned(),
        state: State::Held,
        lines: lines
            .iter()
            .map(|(sku, quantity)| line(sku, *quantity))
            .collect(),
        expires_at_us: NOW_US + TTL_MIN_US,
        created_at_us: NOW_US,
        version: 1,
    }
}

fn part(sku: &str, quantity: i32) -> Part {
    Part {
        sku: sku.to_owned(),
        quantity,
    }
}

fn commit(parts: Vec<Part>, release_rest: bool) -> Command {
    Command::Commit {
        parts,
        release_rest,
    }
}

#[test]
fn changes_of_stock_are_in_sku_order() {
    let reservation = held(&[("C", 1), ("A", 2), ("B", 3)]);
    let decision = reservation
        .decide(&commit(vec![], false), NOW_US, |_| 0)
        .unwrap();
    let changes: Vec<(&str, i32, i32)> = decision
        .stock
        .iter()
        .map(|c| (c.sku.as_str(), c.on_hand, c.reserved))
        .collect();
    assert_eq!(changes, [("A", -2, -2), ("B", -3, -3), ("C", -1, -1)]);
    assert_eq!(decision.after.version, reservation.version + 1);
}

#[test]
fn an_extension_never_shortens() {
    let reservation = held(&[("A", 1)]);
    let sooner = Command::Extend {
        expires_at_us: NOW_US + 1,
    };
    let decision = reservation.decide(&sooner, NOW_US, |_| 0).unwrap();
    assert_eq!(
        (decision.after, decision.happened),
        (reservation.clone(), None)
    );
    let later = Command::Extend {
        expires_at_us: reservation.expires_at_us + 1,
    };
    let decision = reservation.decide(&later, NOW_US, |_| 0).unwrap();
    assert_eq!(decision.after.expires_at_us, reservation.expires_at_us + 1);
    assert_eq!(decision.happened, Some(Happened::Extended));
}

#[test]
fn an_expired_hold_needs_every_unit_to_be_free() {
    let expired = held(&[("A", 1), ("B", 2)]);
    let late = expired.expires_at_us;
    assert!(expired.is_overdue(late) && !expired.is_overdue(late - 1));
    assert_eq!(expired.clone().seen_at(late).state, State::Expired);
    let expired = expired.decide(&Command::Expire, late, |_| 0).unwrap().after;
    let short = expired
        .decide(&commit(vec![], false), late, |sku| i32::from(sku == "A"))
        .unwrap_err();
    let Error::OutOfStock(short) = short else {
        panic!("{short:?}")
    };
    assert_eq!(
        short,
        [Shortage {
            sku: "B".to_owned(),
            wanted: 2,
            available: 0
        }]
    );
    // Only the lines that are named have to be free.
    let one = commit(vec![part("A", 1)], false);
    let decision = expired
        .decide(&one, late, |sku| i32::from(sku == "A"))
        .unwrap();
    assert_eq!(
        decision.stock,
        [StockChange {
            sku: "A".into(),
            on_hand: -1,
            reserved: 0
        }]
    );
}

#[test]
fn wrong_lines_are_named() {
    let long: Vec<Part> = (0..101).map(|n| part(&n.to_string(), 1)).collect();
    assert!(check_parts("lines", &long[..100]).is_ok());
    for (parts, field) in [
        (vec![part("A", 0)], "lines[0].quantity"),
        (vec![part("A", QUANTITY_MAX + 1)], "lines[0].quantity"),
        (vec![part("A", 1), part("A", 1)], "lines[1].sku"),
        (vec![part("A", 1), part("X", 1)], "lines[1].sku"),
        (vec![part("a b", 1)], "lines[0].sku"),
        (long, "lines"),
    ] {
        let refused = held(&[("A", 5)])
            .decide(&commit(parts, false), NOW_US, |_| 0)
            .unwrap_err();
        let Error::Invalid(invalid) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(invalid[0].field, field);
    }
}

#[test]
fn a_hold_lasts_a_second_to_thirty_days() {
    assert_eq!(expiry("ttl", TTL_MIN_US, 5), Ok(5 + TTL_MIN_US));
    let thirty_days_us = 2_592_000_000_000;
    assert_eq!(expiry("ttl", thirty_days_us, 5), Ok(5 + thirty_days_us));
    for ttl_us in [TTL_MIN_US - 1, TTL_MAX_US + 1, 0, -1, i64::MIN, i64::MAX] {
        assert_eq!(expiry("ttl", ttl_us, 5).unwrap_err().field, "ttl");
    }
}

proptest! {
    /// Whatever is asked, the changes of stock are those of the lines, and nothing goes negative.
    #[test]
    fn stock_follows_the_lines(
        commands in prop::collection::vec((0u8..4, 1i32..4, 1i32..4, any::<bool>()), 1..12),
        expire_after in 0usize..12,
    ) {
        let mut reservation = held(&[("A", 5), ("B", 3)]);
        let (mut on_hand, mut reserved) = ([10, 10], [5, 3]);
        for (index, (kind, a, b, flag)) in commands.into_iter().enumerate() {
            let command = match kind {
                _ if index == expire_after => Command::Expire,
                0 => Command::Release,
                1 => Command::Restock { parts: vec![part("A", a)] },
                2 => commit(vec![part("A", a), part("B", b)], flag),
                _ => commit(vec![part("B", b)], flag),
            };
            let now_us = if index == expire_after { reservation.expires_at_us } else { NOW_US };
            let free = |sku: &str| {
                let at = usize::from(sku == "B");
                on_hand[at] - reserved[at]
            };
            let Ok(decision) = reservation.decide(&command, now_us, free) else { continue };
            for change in &decision.stock {
                let at = usize::from(change.sku == "B");
                on_hand[at] += change.on_hand;
                reserved[at] += change.reserved;
            }
            reservation = decision.after;
            for (at, line) in reservation.lines.iter().enumerate() {
                let held = if reservation.state == State::Held { line.outstanding() } else { 0 };
                prop_assert_eq!(reserved[at], held);
                prop_assert_eq!(on_hand[at], 10 - line.committed + line.restocked);
                prop_assert!(0 <= line.restocked && line.restocked <= line.committed);
                prop_assert!(line.committed <= line.quantity);
            }
        }
    }
}
