//! Random sequences of commands against a model in memory that knows the rules in its own words:
//! many of the domain alone, some of the whole service over its database and the simulator.
//!
//! The model, its commands and what compares them are one file: each change of a rule touches all three.
//!
//! `PAYMENT_SEED` sets the seed that a failure prints, `PAYMENT_SEQUENCES` how many are run in each.

use crate::suite::bank::{self, Bank, ModelDispute, ModelRefund};
use crate::suite::catalogue::Sold;
use crate::suite::table::Table;
use crate::suite::world::{Buy, NOW_US, Process, SECOND_US, VISA, World, how, owned};
use kernel::{Currency, Money};
use mesh_runtime::Clock;
use mesh_store::Durability;
use payment::catalogue::Catalogue as _;
use payment::charges::Charges;
use payment::error::Error;
use payment::fact::Turn;
use payment::payment::{CaptureMethod, Order, Payment};
use payment::provider::simulator::SimulatorConfig;
use payment::refund::Wanted;
use payment::rejection::Rejection;
use payment::state::State;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

const HOUR_US: i64 = 3_600 * SECOND_US;
pub(super) const SKUS: [&str; 2] = ["A", "B"];
const PRICES: [i64; 2] = [100, 250];
const SEQUENCES: u64 = 10_000;
const STORED_SEQUENCES: u64 = 250;
const COMMANDS_MAX: usize = 9;
const DECLINED: &str = "pm_card_declined";
const ASKS: &str = "pm_card_authentication_required";
const ASKS_ONCE: &str = "pm_card_authentication_ok";

#[derive(Debug, Clone)]
pub(super) enum Step {
    Confirm(&'static str),
    Capture(Vec<(usize, i32)>, bool),
    Cancel,
    RefundAll(bool),
    RefundUnits(Vec<(usize, i32)>, bool),
    RefundAmount(i64),
    Wait(i64),
    /// What banks do, and what we answer: about the refund or dispute with that number, counted around.
    Bank(Bank),
}

/// What a purchase of some units of two things is by the rules.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) state: State,
    manual: bool,
    bought: [i32; 2],
    pub(super) captured: [i32; 2],
    pub(super) refunded: [i32; 2],
    pub(super) refunded_minor: [i64; 2],
    restocked: [i32; 2],
    pub(super) refunds: Vec<ModelRefund>,
    pub(super) disputes: Vec<ModelDispute>,
    waits_with: Option<&'static str>,
    ends_us: Option<i64>,
}

impl Model {
    pub(super) fn new(bought: [i32; 2], manual: bool, now_us: i64) -> Self {
        Self {
            state: State::RequiresConfirmation,
            manual,
            bought,
            captured: [0; 2],
            refunded: [0; 2],
            refunded_minor: [0; 2],
            restocked: [0; 2],
            refunds: Vec::new(),
            disputes: Vec::new(),
            waits_with: None,
            ends_us: Some(now_us + 24 * HOUR_US),
        }
    }

    fn left_minor(&self, index: usize) -> i64 {
        i64::from(self.captured[index]) * PRICES[index] - self.refunded_minor[index]
    }

    /// What happens, or the name of the rule that is broken.
    pub(super) fn apply(&mut self, step: &Step, now_us: i64) -> Result<(), &'static str> {
        match step {
            Step::Confirm(method) => self.confirm(method, now_us),
            Step::Capture(lines, last) => self.capture(lines, *last),
            Step::Cancel => match self.state {
                State::RequiresConfirmation | State::RequiresAction | State::RequiresCapture => {
                    self.end(State::Canceled);
                    Ok(())
                }
                _ => Err("state"),
            },
            Step::RefundAll(restock) => {
                let lines: Vec<(usize, i32, i64)> = (0..2)
                    .map(|i| (i, self.captured[i] - self.refunded[i], self.left_minor(i)))
                    .collect();
                self.refund(&lines, *restock)
            }
            Step::RefundUnits(lines, restock) => {
                if self.captured == [0, 0] {
                    return Err("nothing captured");
                }
                let mut refund = Vec::new();
                for (index, units) in lines {
                    let left = self.captured[*index] - self.refunded[*index];
                    if *units > left {
                        return Err("quantity");
                    }
                    let price = i64::from(*units) * PRICES[*index];
                    let all = self.left_minor(*index);
                    refund.push((
                        *index,
                        *units,
                        if *units == left { all } else { price.min(all) },
                    ));
                }
                self.refund(&refund, *restock)
            }
            Step::RefundAmount(minor) => {
                if self.captured == [0, 0] {
                    return Err("nothing captured");
                }
                let (a, b) = (self.left_minor(0), self.left_minor(1));
                if *minor > a + b {
                    return Err("amount");
                }
                // Two parts: the larger remainder gets the unit that is left over, A on a tie.
                let (part, rest) = (minor * a / (a + b), minor * a % (a + b));
                let rest_of_b = minor * b % (a + b);
                let part = part + i64::from(rest > 0 && rest >= rest_of_b);
                self.refund(&[(0, 0, part), (1, 0, minor - part)], false)
            }
            Step::Wait(_) => {
                if self.ends_us.is_some_and(|ends_us| ends_us <= now_us) {
                    let captured = self.state == State::PartiallyCaptured;
                    self.end(if captured {
                        State::Succeeded
                    } else {
                        State::Canceled
                    });
                }
                Ok(())
            }
            Step::Bank(step) => self.bank(step),
        }
    }

    fn end(&mut self, state: State) {
        self.state = state;
        self.ends_us = None;
    }

    fn confirm(&mut self, method: &'static str, now_us: i64) -> Result<(), &'static str> {
        if !matches!(
            self.state,
            State::RequiresConfirmation | State::RequiresAction
        ) {
            return Err("state");
        }
        let again = self.state == State::RequiresAction && self.waits_with == Some(method);
        let asks = method == ASKS || (method == ASKS_ONCE && !again);
        if method == DECLINED {
            self.state = State::RequiresConfirmation;
            self.ends_us = Some(now_us + 24 * HOUR_US);
        } else if asks {
            self.state = State::RequiresAction;
            self.waits_with = Some(method);
            self.ends_us = Some(now_us + HOUR_US / 4);
        } else if self.manual {
            self.state = State::RequiresCapture;
            self.ends_us = Some(now_us + 7 * 24 * HOUR_US);
        } else {
            self.captured = self.bought;
            self.end(State::Succeeded);
        }
        Ok(())
    }

    fn capture(&mut self, lines: &[(usize, i32)], last: bool) -> Result<(), &'static str> {
        if !matches!(
            self.state,
            State::RequiresCapture | State::PartiallyCaptured
        ) {
            return Err("state");
        }
        let mut captured = self.captured;
        if lines.is_empty() {
            captured = self.bought;
        }
        for (index, units) in lines {
            captured[*index] += units;
            if captured[*index] > self.bought[*index] {
                return Err("quantity");
            }
        }
        self.captured = captured;
        if last || captured == self.bought {
            self.end(State::Succeeded);
        } else {
            self.state = State::PartiallyCaptured;
        }
        Ok(())
    }

    fn refund(&mut self, lines: &[(usize, i32, i64)], restock: bool) -> Result<(), &'static str> {
        if self.captured == [0, 0] {
            return Err("nothing captured");
        }
        if lines.iter().all(|(_, _, minor)| *minor == 0) {
            return Err("nothing left");
        }
        let minor: i64 = lines.iter().map(|(_, _, minor)| minor).sum();
        let disputed = self.disputed_minor();
        if disputed > 0 && minor > self.left_minor(0) + self.left_minor(1) - disputed {
            return Err("disputed");
        }
        for (index, units, minor) in lines {
            self.refunded[*index] += units;
            self.refunded_minor[*index] += minor;
        }
        // The stock takes back no unit twice, and all units of a refund or none.
        let fits = |(index, units, _): &(usize, i32, i64)| {
            self.restocked[*index] + units <= self.captured[*index]
        };
        if restock && lines.iter().all(fits) {
            for (index, units, _) in lines {
                self.restocked[*index] += units;
            }
        }
        self.refunds.push(ModelRefund {
            lines: lines.to_vec(),
            returned: false,
        });
        Ok(())
    }
}

fn units(random: &mut StdRng) -> Vec<(usize, i32)> {
    match random.random_range(0..3) {
        0 => vec![(0, random.random_range(1..4))],
        1 => vec![(1, random.random_range(1..3))],
        _ => vec![
            (1, random.random_range(1..3)),
            (0, random.random_range(1..4)),
        ],
    }
}

pub(super) fn step(random: &mut StdRng) -> Step {
    match random.random_range(0..20) {
        0..5 => {
            Step::Confirm([VISA, VISA, VISA, DECLINED, ASKS, ASKS_ONCE][random.random_range(0..6)])
        }
        5..9 => {
            let lines = if random.random_bool(0.2) {
                Vec::new()
            } else {
                units(random)
            };
            Step::Capture(lines, random.random_bool(0.3))
        }
        9 => Step::Cancel,
        10 => Step::RefundAll(random.random_bool(0.5)),
        11..13 => Step::RefundUnits(units(random), random.random_bool(0.5)),
        13..15 => Step::RefundAmount(random.random_range(1..600)),
        15..19 => Step::Bank(bank::step(random)),
        _ => Step::Wait([HOUR_US / 3, 25 * HOUR_US, 8 * 24 * HOUR_US][random.random_range(0..3)]),
    }
}

pub(super) fn named(rejection: &Rejection) -> &'static str {
    match rejection {
        Rejection::State { .. } => "state",
        Rejection::QuantityExceeded { .. } => "quantity",
        Rejection::AmountExceeded { .. } => "amount",
        Rejection::NothingCaptured(_) => "nothing captured",
        Rejection::NothingLeft(_) => "nothing left",
        Rejection::Disputed { .. } => "disputed",
        Rejection::DisputeState { .. } => "dispute",
        _ => "something else",
    }
}

fn skus(lines: &[(usize, i32)]) -> Vec<(&'static str, i32)> {
    lines
        .iter()
        .map(|(index, units)| (SKUS[*index], *units))
        .collect()
}

pub(super) fn usd(minor: i64) -> Money {
    Money::new(Currency::parse("USD").unwrap(), minor).unwrap()
}

/// What is compared: the payment, and what has left the stock and come back for it.
pub(super) type Seen = (Payment, Sold);

/// One purchase that commands are given to.
pub(super) trait Bench {
    async fn buy(&mut self, bought: [i32; 2], manual: bool);
    async fn carry_out(&mut self, step: &Step) -> Result<(), &'static str>;
    async fn see(&self) -> Seen;
    fn now_us(&self) -> i64;
}

/// The whole service.
pub(super) struct Service<'a> {
    pub(super) world: &'a World,
    pub(super) process: &'a Process,
    pub(super) id: String,
}

impl Bench for Service<'_> {
    async fn buy(&mut self, bought: [i32; 2], manual: bool) {
        let buy = if manual { Buy::manual() } else { Buy::some() };
        let lines = owned(&[("A", bought[0]), ("B", bought[1])]);
        let buy = Buy {
            lines,
            confirm: false,
            ..buy
        };
        self.id = self.process.create(self.world, buy).await.unwrap().id;
    }

    async fn carry_out(&mut self, step: &Step) -> Result<(), &'static str> {
        let (world, id) = (self.world, self.id.as_str());
        let refund = |wanted, restock| self.process.refund(world, id, wanted, restock);
        let done = match step {
            Step::Confirm(method) => self.process.confirm(world, id, method).await.map(drop),
            Step::Capture(lines, last) => self
                .process
                .capture(world, id, &skus(lines), *last)
                .await
                .map(drop),
            Step::Cancel => self.process.cancel(world, id).await.map(drop),
            Step::RefundAll(restock) => refund(Wanted::Everything, *restock).await.map(drop),
            Step::RefundUnits(lines, restock) => {
                refund(Wanted::Lines(owned(&skus(lines))), *restock)
                    .await
                    .map(drop)
            }
            Step::RefundAmount(minor) => refund(Wanted::Amount(usd(*minor)), false).await.map(drop),
            Step::Wait(us) => {
                world.clock.advance(*us);
                self.process.worker.run_once().await.map(drop)
            }
            Step::Bank(step) => return self.bank(step).await,
        };
        done.map_err(|error| match error {
            Error::Rejected(rejection) => named(&rejection),
            other => panic!("{other}"),
        })
    }

    async fn see(&self) -> Seen {
        (
            self.process.payment(&self.id).await,
            self.world.catalogue.sold(&self.id),
        )
    }

    fn now_us(&self) -> i64 {
        self.world.clock.now_us()
    }
}

/// The domain alone.
pub(super) struct Alone<'a> {
    pub(super) table: &'a Table,
    pub(super) payment: Option<Payment>,
    pub(super) charges: Charges,
}

impl Alone<'_> {
    /// Whether there is anything to pay.
    pub(super) async fn try_buy(&mut self, bought: [i32; 2], manual: bool) -> bool {
        let lines = owned(&[("A", bought[0]), ("B", bought[1])]);
        let currency = Currency::parse("USD").unwrap();
        let order = Order {
            principal: "shop".into(),
            order_ref: "order".into(),
            customer_ref: String::new(),
            currency,
            items: self.table.catalogue.quote(&lines, currency).await.unwrap(),
            charges: self.charges.clone(),
            payment_method: String::new(),
            capture_method: if manual {
                CaptureMethod::Manual
            } else {
                CaptureMethod::Automatic
            },
            provider: "table".into(),
            ordered_at_us: None,
        };
        let mut turn = Turn::new(self.now_us(), self.table.rules());
        self.payment = Payment::create(order, &mut turn).ok();
        self.table.keep(turn.effects);
        self.payment.is_some()
    }
}

impl Bench for Alone<'_> {
    async fn buy(&mut self, bought: [i32; 2], manual: bool) {
        assert!(
            self.try_buy(bought, manual).await,
            "there is something to pay"
        );
    }

    async fn carry_out(&mut self, step: &Step) -> Result<(), &'static str> {
        let table = self.table;
        let payment = self.payment.as_mut().unwrap();
        let done = match step {
            Step::Confirm(method) => {
                table
                    .change(payment, |payment, turn| payment.confirm(turn, Some(method)))
                    .await
            }
            Step::Capture(lines, last) => {
                let lines = owned(&skus(lines));
                table
                    .change(payment, |payment, turn| {
                        payment.capture(turn, &lines, *last)
                    })
                    .await
            }
            Step::Cancel => table.change(payment, Payment::cancel).await,
            Step::RefundAll(restock) => {
                let wanted = Wanted::Everything;
                let refund =
                    |p: &mut Payment, turn: &mut Turn<'_>| p.refund(turn, &wanted, how(*restock));
                table.change(payment, refund).await
            }
            Step::RefundUnits(lines, restock) => {
                let wanted = Wanted::Lines(owned(&skus(lines)));
                let refund =
                    |p: &mut Payment, turn: &mut Turn<'_>| p.refund(turn, &wanted, how(*restock));
                table.change(payment, refund).await
            }
            Step::RefundAmount(minor) => {
                let wanted = Wanted::Amount(usd(*minor));
                let refund =
                    |p: &mut Payment, turn: &mut Turn<'_>| p.refund(turn, &wanted, how(false));
                table.change(payment, refund).await
            }
            Step::Wait(us) => {
                table.clock.advance(*us);
                table.change(payment, |_, _| Ok(())).await
            }
            Step::Bank(step) => return self.bank(step).await,
        };
        done.map_err(|rejection| named(&rejection))
    }

    async fn see(&self) -> Seen {
        let payment = self.payment.clone().unwrap();
        let sold = self.table.catalogue.sold(&payment.id.to_string());
        (payment, sold)
    }

    fn now_us(&self) -> i64 {
        self.table.clock.now_us()
    }
}

async fn sequence(bench: &mut impl Bench, seed: u64) {
    let random = &mut StdRng::seed_from_u64(seed);
    let bought = [random.random_range(1..4), random.random_range(1..3)];
    let manual = random.random_bool(0.7);
    bench.buy(bought, manual).await;
    let mut model = Model::new(bought, manual, bench.now_us());
    let mut steps = Vec::new();
    for _ in 0..random.random_range(2..=COMMANDS_MAX) {
        let step = step(random);
        steps.push(step.clone());
        let done = bench.carry_out(&step).await;
        let expected = model.apply(&step, bench.now_us());
        let (payment, sold) = bench.see().await;
        let told = || format!("PAYMENT_SEED={seed}: {steps:#?}\n{model:#?}\n{payment:#?}");
        assert_eq!(done, expected, "{}", told());
        assert_eq!(payment.state, model.state, "{}", told());
        for (index, sku) in SKUS.into_iter().enumerate() {
            assert_eq!(
                payment.captured_quantity(sku),
                model.captured[index],
                "{}",
                told()
            );
            assert_eq!(
                payment.refunded_quantity(sku),
                model.refunded[index],
                "{}",
                told()
            );
            let stock = sold.get(sku).copied().unwrap_or_default();
            assert_eq!(
                stock,
                (model.captured[index], model.restocked[index]),
                "{}",
                told()
            );
        }
        let captured: i64 = (0..2)
            .map(|i| i64::from(model.captured[i]) * PRICES[i])
            .sum();
        assert_eq!(payment.captured_minor(), captured, "{}", told());
        assert_eq!(
            payment.refunded_minor(),
            model.refunded_minor.iter().sum::<i64>()
        );
        model.compare_disputes(&payment, &told);
    }
}

/// The seeds to run, as set or by chance.
pub(super) fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let number = |name| std::env::var_os(name)?.to_str()?.parse::<u64>().ok();
    let first = number("PAYMENT_SEED").unwrap_or_else(rand::random);
    let count = number("PAYMENT_SEQUENCES").unwrap_or(count);
    println!("PAYMENT_SEED={first}, {count} sequences");
    (0..count).map(move |index| first.wrapping_add(index))
}

#[tokio::test]
async fn random_sequences_on_the_domain_agree_with_the_model() {
    for seed in seeds(SEQUENCES) {
        let table = Table::new(Clock::manual(NOW_US));
        sequence(
            &mut Alone {
                table: &table,
                payment: None,
                charges: Charges::default(),
            },
            seed,
        )
        .await;
    }
}

#[tokio::test]
async fn random_sequences_on_the_service_agree_with_the_model() {
    let patient = SimulatorConfig {
        dispute_response_s: u32::MAX, // What a bank does, a step says.
        ..SimulatorConfig::default()
    };
    let world = World::with(patient, Durability::Relaxed).await;
    let process = world.process();
    for seed in seeds(STORED_SEQUENCES) {
        let mut bench = Service {
            world: &world,
            process: &process,
            id: String::new(),
        };
        sequence(&mut bench, seed).await;
    }
    world.settle(&process).await;
    world.check().await;
}
