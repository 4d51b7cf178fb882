//! Random sequences of commands over the state machine and the ledger, with discounts, shipping and taxes: after each
//! command every invariant holds. Where `random` compares with a model, this asks only what must be true of any payment.
//!
//! The domain alone, on two threads; `PAYMENT_SEED` sets the first seed, which a failure prints, `PAYMENT_SEQUENCES` how
//! many are run.

use crate::suite::random::{Alone, Bench as _, Step, seeds, step};
use crate::suite::table::Table;
use crate::suite::world::NOW_US;
use mesh_runtime::Clock;
use payment::capture::CaptureState;
use payment::charges::{ChargeLine, Charges, PPM, Part, Shipping, Size};
use payment::fact::Effects;
use payment::ledger::{Account, Source, Transaction};
use payment::payment::Payment;
use payment::refund::RefundState;
use payment::sales::SaleKind;
use payment::state::State;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::collections::{BTreeMap, BTreeSet};

const SEQUENCES: u64 = 4_000;
const THREADS: usize = 2;
const COMMANDS_MAX: usize = 12;

fn size(random: &mut StdRng, amount_minor_max: i64) -> Size {
    if random.random_bool(0.6) {
        Size::RatePpm(random.random_range(1..=PPM))
    } else {
        Size::AmountMinor(random.random_range(1..=amount_minor_max))
    }
}

fn lines(random: &mut StdRng, amount_minor_max: i64) -> Vec<ChargeLine> {
    let line = |random: &mut StdRng| ChargeLine {
        title: "line".into(),
        size: size(random, amount_minor_max),
        came_to_minor: 0,
    };
    (0..random.random_range(0..3))
        .map(|_| line(random))
        .collect()
}

fn charges(random: &mut StdRng) -> Charges {
    Charges {
        discounts: lines(random, 120),
        shipping: random.random_bool(0.5).then(|| Shipping {
            title: "parcel".into(),
            amount_minor: random.random_range(1..500),
        }),
        taxes: lines(random, 90),
    }
}

/// What holds of any payment and all that it has left behind.
fn hold(payment: &Payment, left_behind: &Effects) {
    moves_follow_each_other(payment, left_behind);
    amounts_are_sums_within_bounds(payment);
    everything_is_booked_once(payment, &left_behind.entries);
    sales_are_the_goods(payment, left_behind);
}

fn moves_follow_each_other(payment: &Payment, left_behind: &Effects) {
    let mut state = None;
    for moved in &left_behind.moves {
        assert_eq!(moved.from, state, "moves follow each other");
        state = Some(moved.to);
    }
    assert_eq!(
        state,
        Some(payment.state),
        "the last move leads to the state"
    );
    let versions = left_behind.moves.windows(2);
    assert!(
        versions
            .clone()
            .all(|pair| pair[0].version < pair[1].version),
        "each has a version"
    );
    assert!(
        payment.state != State::Canceled || payment.captured_minor() == 0,
        "canceled keeps nothing"
    );
}

fn amounts_are_sums_within_bounds(payment: &Payment) {
    let shares = payment.shares();
    let whole = shares
        .items
        .iter()
        .fold(shares.shipping, |sum, part| sum.plus(*part));
    assert_eq!(
        whole.total_minor(),
        payment.amount_minor,
        "parts sum to the whole"
    );
    let captures = || {
        payment
            .captures
            .iter()
            .filter(|capture| capture.state != CaptureState::Failed)
    };
    let refunds = || {
        payment
            .refunds
            .iter()
            .filter(|refund| refund.state.counts())
    };
    let sum = |parts: &mut dyn Iterator<Item = Part>| parts.fold(Part::default(), Part::plus);
    for (item, whole) in payment.order.items.iter().zip(&shares.items) {
        let of_item = |lines: &[payment::capture::Line]| -> Part {
            let lines = lines.iter().filter(|line| line.sku == item.sku);
            sum(&mut lines.map(payment::capture::Line::part))
        };
        let captured = sum(&mut captures().map(|capture| of_item(&capture.lines)));
        let refunded = sum(&mut refunds().map(|refund| of_item(&refund.lines)));
        within(refunded, captured, "refunded of an item");
        within(captured, *whole, "captured of an item");
        let units = payment.captured_quantity(&item.sku);
        assert!(payment.refunded_quantity(&item.sku) <= units && units <= item.quantity);
        if units == item.quantity {
            assert_eq!(captured, *whole, "all units are all of it");
        }
    }
    let captured = sum(&mut captures().map(|capture| capture.shipping));
    within(
        sum(&mut refunds().map(|refund| refund.shipping)),
        captured,
        "refunded of shipping",
    );
    within(captured, shares.shipping, "captured of shipping");
    if captures().count() > 0 {
        assert_eq!(
            captured, shares.shipping,
            "shipping goes with the first capture"
        );
    }
    for (amount, lines, shipping) in captures()
        .map(|capture| (capture.amount_minor, &capture.lines, capture.shipping))
        .chain(refunds().map(|refund| (refund.amount_minor, &refund.lines, refund.shipping)))
    {
        let lines: i64 = lines.iter().map(|line| line.amount_minor).sum();
        assert_eq!(
            amount,
            lines + shipping.total_minor(),
            "an amount is the sum of its parts"
        );
        assert!(amount > 0);
    }
}

fn within(part: Part, whole: Part, what: &str) {
    let within = |part: i64, whole: i64| (0..=whole).contains(&part);
    let both = within(part.net_minor, whole.net_minor) && within(part.tax_minor, whole.tax_minor);
    assert!(both, "{what}: {part:?} of {whole:?}");
}

fn everything_is_booked_once(payment: &Payment, entries: &[Transaction]) {
    let captured = payment
        .captures
        .iter()
        .filter(|capture| capture.state == CaptureState::Succeeded);
    let refunded = payment
        .refunds
        .iter()
        .filter(|refund| refund.state == RefundState::Succeeded);
    let mut expected: BTreeMap<(&'static str, String), i64> = BTreeMap::new();
    let mut book = |source: Source, minor: i64| {
        expected.insert((source.kind(), source.to_string()), minor);
    };
    for capture in captured.clone() {
        book(Source::Capture(capture.id), capture.amount_minor);
    }
    for refund in &payment.refunds {
        let reversed = refund.reversed_at_us.is_some();
        if refund.state == RefundState::Succeeded || reversed {
            book(Source::Refund(refund.id), -refund.amount_minor);
        }
        if reversed {
            assert_eq!(
                refund.state,
                RefundState::Failed,
                "what came back has failed"
            );
            book(Source::RefundReversal(refund.id), refund.amount_minor);
        }
    }
    let mut disputed = 0;
    for dispute in &payment.disputes {
        let minor = dispute.amount.amount_minor();
        if dispute.withdrawn_at_us.is_some() {
            book(Source::Dispute(dispute.id), -minor);
        }
        if dispute.reinstated_at_us.is_some() {
            book(Source::DisputeReversal(dispute.id), minor);
        }
        disputed += if dispute.holds_money() { minor } else { 0 };
    }
    let mut balances: BTreeMap<Account, i64> = BTreeMap::new();
    let mut sources = BTreeSet::new();
    for entry in entries {
        let source = (entry.source().kind(), entry.source().to_string());
        let expected = expected.get(&source);
        assert!(sources.insert(source.clone()), "booked twice: {source:?}");
        let mut sum = 0;
        for posting in entry.postings() {
            let minor = posting.amount.amount_minor();
            sum += minor;
            *balances.entry(posting.account.clone()).or_default() += minor;
            if let Account::Provider(_) = posting.account {
                assert_eq!(
                    Some(&minor),
                    expected,
                    "what the provider took or gave back"
                );
            }
        }
        assert_eq!(sum, 0, "an entry sums to zero");
    }
    assert_eq!(sources.len(), expected.len(), "everything is booked");
    assert_eq!(
        balances
            .get(&Account::Disputes)
            .copied()
            .unwrap_or_default(),
        disputed,
        "what disputes hold"
    );
    let taxes = captured
        .clone()
        .map(|capture| tax(&capture.lines, capture.shipping))
        .sum::<i64>()
        - refunded
            .clone()
            .map(|refund| tax(&refund.lines, refund.shipping))
            .sum::<i64>();
    let balance = |account| balances.get(&account).copied().unwrap_or_default();
    assert_eq!(balance(Account::Tax), -taxes, "tax that is owed");
    let shipping = captured
        .map(|capture| capture.shipping.net_minor)
        .sum::<i64>();
    assert_eq!(balance(Account::Shipping), -shipping, "shipping");
    assert_eq!(balances.values().sum::<i64>(), 0, "a trial balance is zero");
}

fn tax(lines: &[payment::capture::Line], shipping: Part) -> i64 {
    lines.iter().map(|line| line.tax_minor).sum::<i64>() + shipping.tax_minor
}

fn sales_are_the_goods(payment: &Payment, left_behind: &Effects) {
    let sold: i64 = left_behind
        .sales
        .iter()
        .map(|line| line.kind.sign() * line.amount_minor)
        .sum();
    let of = |kind: SaleKind, lines: &[payment::capture::Line]| -> i64 {
        kind.sign() * lines.iter().map(|line| line.part().net_minor).sum::<i64>()
    };
    let captured = payment
        .captures
        .iter()
        .filter(|capture| capture.state == CaptureState::Succeeded);
    let refunded = payment
        .refunds
        .iter()
        .filter(|refund| refund.state == RefundState::Succeeded);
    let goods = captured
        .map(|capture| of(SaleKind::Capture, &capture.lines))
        .sum::<i64>()
        + refunded
            .map(|refund| of(SaleKind::Refund, &refund.lines))
            .sum::<i64>();
    assert_eq!(sold, goods, "product revenue");
}

/// One purchase, and at its end everything is given back: nothing is left.
async fn sequence(seed: u64) -> usize {
    let random = &mut StdRng::seed_from_u64(seed);
    let table = Table::new(Clock::manual(NOW_US));
    let mut bench = Alone {
        table: &table,
        payment: None,
        charges: charges(random),
    };
    let bought = [random.random_range(1..6), random.random_range(1..4)];
    if !bench.try_buy(bought, random.random_bool(0.7)).await {
        return 0; // Discounts leave nothing to pay, or are more than there is.
    }
    let commands = random.random_range(2..=COMMANDS_MAX);
    for _ in 0..commands {
        let _refused = bench.carry_out(&step(random)).await; // Which changes nothing.
        hold(&bench.see().await.0, &table.left_behind());
    }
    let _refused = bench.carry_out(&Step::RefundAll(false)).await;
    let (payment, _) = bench.see().await;
    hold(&payment, &table.left_behind());
    let all = payment.refunded_minor() == payment.captured_minor();
    assert!(
        all || payment.disputed_minor() > 0,
        "everything leaves nothing but what is disputed"
    );
    commands
}

#[test]
fn random_sequences_keep_every_invariant() {
    let seeds: Vec<u64> = seeds(SEQUENCES).collect();
    let run = |seeds: &[u64]| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let of_seed = |seed: &u64| {
            let sequence = std::panic::AssertUnwindSafe(|| runtime.block_on(sequence(*seed)));
            std::panic::catch_unwind(sequence).unwrap_or_else(|panic| {
                println!("PAYMENT_SEED={seed}");
                std::panic::resume_unwind(panic)
            })
        };
        seeds
            .iter()
            .map(of_seed)
            .fold((0, 0), |(bought, all), commands| {
                (bought + usize::from(commands > 0), all + commands)
            })
    };
    let (bought, commands) = std::thread::scope(|scope| {
        let halves = seeds.chunks(seeds.len().div_ceil(THREADS));
        let running: Vec<_> = halves.map(|half| scope.spawn(move || run(half))).collect();
        let ended = running
            .into_iter()
            .map(|thread| thread.join().expect("the seed is printed above"));
        ended.fold((0, 0), |(bought, all), (more, commands)| {
            (bought + more, all + commands)
        })
    });
    println!(
        "{} sequences, {bought} of them purchases, {commands} commands",
        seeds.len()
    );
    assert!(bought * 2 > seeds.len(), "only {bought} were purchases");
}
