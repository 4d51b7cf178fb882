//! Reconciliation where something else goes wrong than what is compared: the storage, a shop with several providers,
//! several replicas, findings that look different the next time.

use crate::suite::bulk::{Bulk, Here, There};
use crate::suite::reconcile_bulk::{kept, last_run, start};
use crate::suite::world::{NOW_US, Process, SECOND_US, World};
use kernel::day::DAY_US;
use kernel::{Currency, Money, PaymentId};
use payment::reconcile::{Discrepancy, Finding, Kind, RunState, Status};
use payment::reconciler::Metrics;
use payment::store::reconcile::{DiscrepanciesQuery, Outcome, PageQuery, RunLease};
use prometheus::Registry;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn entries_of_other_providers_are_passed_page_by_page() {
    let world = World::new().await;
    let process = world.process();
    let mut bulk = Bulk::new(&world, 1);
    for number in 0..3 {
        let sale = bulk.sale(NOW_US - DAY_US + number, false);
        bulk.write(&sale);
    }
    bulk.flush().await;
    let mut query = PageQuery {
        provider: "another".to_owned(),
        since_us: 0,
        until_us: NOW_US,
        after: None,
        limit: 2,
    };
    let mut pages = Vec::new();
    loop {
        let page = process.reconciliations.entries(&query).await.unwrap();
        assert_eq!(page.payments, []);
        let Some(last) = page.last else { break };
        pages.push(last.0);
        query.after = Some(last);
    }
    assert_eq!(pages, [NOW_US - DAY_US + 1, NOW_US - DAY_US + 2]);
    (query.provider, query.after) = ("simulator".to_owned(), None);
    let ours = process.reconciliations.entries(&query).await.unwrap();
    assert_eq!(ours.payments.len(), 2);
}

#[tokio::test]
async fn a_page_that_fails_here_shows_in_the_run_and_ends_it_in_the_end() {
    let world = World::new().await;
    let process = world.process();
    let reconciler = world.reconciler(&process);
    let started = start(&process, "k").await;
    let away = "ALTER TABLE statement_lines RENAME TO away";
    world.storage.execute(away).await.unwrap();
    reconciler.run_once().await.unwrap();
    let waits = last_run(&process).await;
    assert_eq!((waits.id.to_string(), waits.tries), (started.id, 1));
    assert!(waits.error.contains("the log says why"), "{}", waits.error);
    for _ in 1..world.config.reconcile.tries_max {
        world.clock.advance(DAY_US);
        let ended = "UPDATE reconciliations SET lease_until_us = 0";
        world.storage.execute(ended).await.unwrap();
        reconciler.run_once().await.unwrap();
    }
    assert_eq!(last_run(&process).await.state, RunState::Failed);
}

#[tokio::test]
async fn a_replica_shows_what_another_one_found() {
    let world = World::new().await;
    let process = world.process();
    let mut bulk = Bulk::new(&world, 3);
    let sale = bulk.sale(NOW_US - DAY_US, false);
    bulk.write_as(
        &sale,
        (Here::Booked, There::Nowhere),
        (Here::Booked, There::Same),
    );
    bulk.flush().await;
    start(&process, "k").await;
    world.reconciler(&process).run_once().await.unwrap();
    assert_eq!(kept(&process, Some(Status::Open)).await.len(), 1);

    let registry = Registry::new();
    let metrics = Metrics::unregistered().unwrap();
    metrics.register_in(&registry).unwrap();
    let other = world.replica().await;
    let other = world.reconciler_with(&other, metrics);
    let shutdown = CancellationToken::new();
    let seen = async {
        shows(&registry, 1).await;
        let resolved = "UPDATE discrepancies SET status = 'resolved', resolved_at_us = 1";
        world.storage.execute(resolved).await.unwrap();
        world.clock.advance(61 * SECOND_US);
        shows(&registry, 0).await;
        shutdown.cancel();
    };
    tokio::join!(other.run(shutdown.clone()), seen);
}

/// Waits until so many are shown as missing there.
async fn shows(registry: &Registry, count: i64) {
    let wanted = format!(
        "payment_discrepancies_open{{kind=\"missing_there\",provider=\"simulator\"}} {count}\n"
    );
    let shown = async || {
        let encoder = prometheus::TextEncoder::new();
        while !encoder
            .encode_to_string(&registry.gather())
            .unwrap()
            .contains(&wanted)
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let shown = tokio::time::timeout(Duration::from_secs(30), shown()).await;
    shown.expect("it is never shown");
}

#[tokio::test]
async fn what_is_found_again_looks_as_it_does_now() {
    let world = World::new().await;
    let process = world.process();
    start(&process, "k").await;
    let lease = RunLease {
        owner: "one".to_owned(),
        now_us: NOW_US,
        lasts_us: 60 * SECOND_US,
    };
    let mut run = process.reconciliations.take(&lease).await.unwrap().unwrap();
    let dollars = |minor| Money::new(Currency::parse("USD").unwrap(), minor).ok();
    let first = Finding {
        kind: Kind::State,
        subject: "txn_1".to_owned(),
        payment: None,
        our_reference: String::new(),
        provider_id: "txn_1".to_owned(),
        ours: None,
        theirs: dollars(5),
        booked_at_us: 1,
        safe: true,
    };
    let now = Finding {
        payment: Some(PaymentId::generate(NOW_US)),
        our_reference: "cap_1".to_owned(),
        ours: dollars(4),
        theirs: dollars(6),
        safe: false,
        ..first.clone()
    };
    let mut record = async |findings: Vec<Finding>, gone: Vec<kernel::DiscrepancyId>| {
        let outcome = Outcome { findings, gone };
        let kept = process
            .reconciliations
            .record(&mut run, &outcome, &lease, true);
        assert!(kept.await.unwrap());
        run.found
    };
    assert_eq!(record(vec![first.clone()], vec![]).await, 1);
    assert_eq!(record(vec![now.clone()], vec![]).await, 1, "it is no other");
    let open = listed(&process).await;
    assert_eq!((&open.finding, open.status), (&now, Status::Open));
    record(vec![], vec![open.id]).await;
    assert_eq!(listed(&process).await.status, Status::ResolvedItself);
    assert_eq!(record(vec![first.clone()], vec![]).await, 2, "open again");
    let again = listed(&process).await;
    assert_eq!((again.finding, again.status), (first, Status::Open));
}

/// The only one.
async fn listed(process: &Process) -> Discrepancy {
    let query = DiscrepanciesQuery {
        provider: None,
        kind: None,
        status: None,
        after: None,
        limit: 2,
    };
    let mut found = process.reconciliations.discrepancies(&query).await.unwrap();
    assert_eq!(found.len(), 1);
    found.remove(0)
}
