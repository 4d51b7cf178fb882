//! A hundred discrepancies of every kind among twenty thousand transactions: all are found, and nothing else is.

use crate::suite::api::{api, as_operator};
use crate::suite::bulk::{Bulk, Here, Sale, There};
use crate::suite::world::{NOW_US, Process, SECOND_US, World};
use kernel::day::DAY_US;
use mesh_store::Durability;
use payment::provider::simulator::{FeeRule, SettlementConfig, SimulatorConfig};
use payment::reconcile::{Kind, Run, RunState, Status};
use payment::store::AuditQuery;
use payment::store::reconcile::{DiscrepanciesQuery, RunsQuery};
use proto::commerce::payment::v1 as pb;
use proto::commerce::payment::v1::payment_service_server::PaymentService as _;
use std::collections::BTreeSet;
use std::time::Instant;
use tonic::Request;

const TRANSACTIONS: usize = 20_000;
const PLANTED: usize = 100;

/// What is to be found: the kind, and our reference.
type Expected = BTreeSet<(Kind, String)>;

pub(super) async fn start(process: &Process, key: &str) -> pb::Reconciliation {
    let request = pb::StartReconciliationRequest {
        provider: "simulator".into(),
        request_id: key.into(),
    };
    let api = api(process);
    let started = as_operator(api.start_reconciliation(Request::new(request))).await;
    started.unwrap().into_inner().reconciliation.unwrap()
}

pub(super) async fn last_run(process: &Process) -> Run {
    let query = RunsQuery {
        provider: None,
        after: None,
        limit: 1,
    };
    process
        .reconciliations
        .runs(&query)
        .await
        .unwrap()
        .remove(0)
}

/// What is kept with a status, by kind and our reference.
pub(super) async fn kept(process: &Process, status: Option<Status>) -> Vec<(Kind, String)> {
    let query = DiscrepanciesQuery {
        provider: None,
        kind: None,
        status,
        after: None,
        limit: 10_000,
    };
    let found = process.reconciliations.discrepancies(&query).await.unwrap();
    let told = found
        .into_iter()
        .map(|one| (one.finding.kind, one.finding.our_reference));
    told.collect()
}

/// Plants one discrepancy; says what it is to be found as, and whether it resolves itself.
fn plant(bulk: &mut Bulk<'_>, at_us: i64, number: usize) -> (Kind, String, bool) {
    const GOOD: (Here, There) = (Here::Booked, There::Same);
    let capture = |bulk: &mut Bulk<'_>, here, there| -> Sale {
        let sale = bulk.sale(at_us, false);
        bulk.write_as(&sale, (here, there), GOOD);
        sale
    };
    let refund = |bulk: &mut Bulk<'_>, here, there| -> String {
        let sale = bulk.sale(at_us, true);
        bulk.write_as(&sale, GOOD, (here, there));
        sale.refund.unwrap().to_string()
    };
    let of = |sale: Sale| sale.capture.to_string();
    match number {
        0..12 => (
            Kind::MissingHere,
            of(capture(bulk, Here::Nowhere, There::Same)),
            false,
        ),
        12..20 => (
            Kind::MissingHere,
            of(capture(bulk, Here::Unbooked, There::Same)),
            false,
        ),
        20..32 => (
            Kind::MissingThere,
            of(capture(bulk, Here::Booked, There::Nowhere)),
            false,
        ),
        32..40 => (
            Kind::MissingThere,
            refund(bulk, Here::Booked, There::Nowhere),
            false,
        ),
        40..48 => (
            Kind::Amount,
            of(capture(bulk, Here::Booked, There::OneMore)),
            false,
        ),
        48..55 => (
            Kind::Amount,
            refund(bulk, Here::Booked, There::OneMore),
            false,
        ),
        55..60 => (
            Kind::Currency,
            of(capture(bulk, Here::Booked, There::InWon)),
            false,
        ),
        60..65 => (
            Kind::Currency,
            refund(bulk, Here::Booked, There::InWon),
            false,
        ),
        65..75 => (
            Kind::State,
            of(capture(bulk, Here::Pending, There::Same)),
            true,
        ),
        75..80 => (Kind::State, refund(bulk, Here::Pending, There::Same), true),
        80..85 => (Kind::State, refund(bulk, Here::Failed, There::Same), false),
        85..93 => (
            Kind::Duplicate,
            of(capture(bulk, Here::Booked, There::Twice)),
            false,
        ),
        _ => (
            Kind::Duplicate,
            refund(bulk, Here::Booked, There::Twice),
            false,
        ),
    }
}

async fn world() -> World {
    let fee = FeeRule {
        basis_points: 290,
        fixed_minor: 30,
    };
    let simulator = SimulatorConfig {
        settlement: SettlementConfig {
            fees: [("USD".to_owned(), fee)].into(),
            arrival_days: 1,
        },
        ..SimulatorConfig::default()
    };
    World::with(simulator, Durability::Relaxed).await
}

/// Twenty thousand transactions over forty days, the planted ones among them; what is to be found, and what of it stays.
async fn fill(world: &World, seed: u64) -> (Expected, Expected) {
    let mut bulk = Bulk::new(world, seed);
    let (mut all, mut open) = (Expected::new(), Expected::new());
    let mut number = 0;
    while bulk.movements < TRANSACTIONS {
        let at_us = NOW_US - 40 * DAY_US + i64::from(number) * 150 * SECOND_US;
        if number % 120 == 7 && all.len() < PLANTED {
            let (kind, reference, safe) = plant(&mut bulk, at_us, all.len());
            all.insert((kind, reference.clone()));
            if !safe {
                open.insert((kind, reference));
            }
        } else {
            let sale = bulk.sale(at_us, number % 4 == 0);
            bulk.write(&sale);
        }
        number += 1;
    }
    bulk.flush().await;
    assert_eq!((all.len(), open.len()), (PLANTED, PLANTED - 15));
    (all, open)
}

#[tokio::test]
async fn a_hundred_discrepancies_among_twenty_thousand_transactions_are_found_once() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut world = world().await;
    world.config.reconcile.overlap_s = 60 * 24 * 3_600; // The second run compares everything again.
    let (all, open) = fill(&world, seed).await;
    let process = world.process();
    let reconciler = world.reconciler(&process);

    start(&process, "first").await;
    let began = Instant::now();
    assert_eq!(reconciler.run_once().await.unwrap(), 1);
    println!("{TRANSACTIONS} transactions in {:?}", began.elapsed());
    let first = last_run(&process).await;
    assert_eq!(first.state, RunState::Succeeded, "{}", first.error);
    assert!(first.lines >= i64::try_from(TRANSACTIONS).unwrap());
    let found = kept(&process, None).await;
    let more = found
        .iter()
        .filter(|one| !all.contains(one))
        .collect::<Vec<_>>();
    assert!(more.is_empty(), "what nobody planted: {more:?}");
    let missed = all
        .iter()
        .filter(|one| !found.contains(one))
        .collect::<Vec<_>>();
    assert!(missed.is_empty(), "what was not found: {missed:?}");
    assert_eq!(found.len(), PLANTED, "each once");
    let stays: Expected = kept(&process, Some(Status::Open))
        .await
        .into_iter()
        .collect();
    assert_eq!(stays, open);
    assert_eq!((first.found, first.resolved), (100, 15));
    let lines = world.storage.count("settlement_lines").await;
    let fees = "SELECT CAST(id AS TEXT) FROM ledger_transactions WHERE kind IN ('fee', 'payout')";
    assert_eq!(
        i64::try_from(world.storage.texts(fees).await.len()).unwrap(),
        lines
    );
    assert_eq!(first.booked, lines);
    assert!(lines > 14_000, "{lines}");
    super::audit::seal(&*process.audit).await;
    let query = AuditQuery {
        object: Some(first.id.to_string()),
        limit: 1_000,
        ..AuditQuery::default()
    };
    let records = process.audit.records(&query).await.unwrap();
    let books = |outcome: &str| outcome == "fees and payouts of simulator booked";
    assert!(records.iter().any(|of| books(&of.record.outcome)));

    world.clock.advance(DAY_US);
    start(&process, "second").await;
    assert_eq!(reconciler.run_once().await.unwrap(), 1);
    let second = last_run(&process).await;
    assert_eq!(second.state, RunState::Succeeded, "{}", second.error);
    assert_eq!((second.found, second.resolved), (0, 0));
    assert_eq!((second.lines, second.booked), (first.lines, 0));
    assert_eq!(kept(&process, Some(Status::Open)).await.len(), PLANTED - 15);
}
