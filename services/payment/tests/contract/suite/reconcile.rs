//! Reconciliation of what the service did itself, and of what goes wrong on the way.

use crate::suite::api::{api, as_operator, reason};
use crate::suite::bulk::{Bulk, Here, There};
use crate::suite::reconcile_bulk::{kept, last_run, start};
use crate::suite::world::{Buy, NOW_US, Process, SECOND_US, World, owned};
use kernel::day::DAY_US;
use payment::audit::Record;
use payment::provider::simulator::Faults;
use payment::reconcile::{Kind, Phase, Run, RunState, Status};
use payment::refund::Wanted;
use payment::store::AuditQuery;
use payment::store::reconcile::{Outcome, RunLease};
use proto::commerce::payment::v1 as pb;
use proto::commerce::payment::v1::payment_service_server::PaymentService as _;
use tonic::{Code, Request};

const HOUR_US: i64 = 3_600 * SECOND_US;

#[tokio::test]
async fn what_the_service_did_itself_is_no_discrepancy() {
    let seed = rand::random();
    println!("seed {seed}");
    for world in [World::new().await, World::one_step().await] {
        let process = world.process();
        world.simulator.set_faults(Faults {
            seed,
            unavailable: 0.05,
            unknown_before: 0.1,
            unknown_after: 0.1,
            late: 0.05,
            ..Faults::NONE
        });
        for method in [
            "pm_card_visa",
            "pm_card_declined",
            "pm_card_timeout_before",
            "pm_card_timeout_after",
            "pm_card_late",
            "pm_card_capture_declined",
            "pm_card_refund_declined",
            "pm_card_webhook_late",
            "pm_card_authentication_fail",
        ] {
            for given_up in [false, true] {
                let payment = process.create(&world, Buy::by(method)).await.unwrap();
                // What cannot be given back is the provider's, and a discrepancy.
                if given_up && method != "pm_card_refund_declined" {
                    // Where it is not possible any more, all the better.
                    drop(process.cancel(&world, &payment.id).await);
                }
                world.settle(&process).await;
                let wanted = Wanted::Lines(owned(&[("A", 1)]));
                drop(process.refund(&world, &payment.id, wanted, false).await);
            }
        }
        world.catalogue.set_on_hand("A", 0);
        for _ in 0..3 {
            process.create(&world, Buy::some()).await.unwrap();
        }
        world.settle(&process).await;
        world.simulator.set_faults(Faults::NONE);
        world.settle(&process).await;
        world.clock.advance(2 * HOUR_US);
        world.settle(&process).await;
        world.clock.advance(2 * HOUR_US);
        start(&process, "k").await;
        world.reconciler(&process).run_once().await.unwrap();
        let run = last_run(&process).await;
        assert_eq!((run.state, run.error.as_str()), (RunState::Succeeded, ""));
        assert_eq!(kept(&process, None).await, [], "seed {seed}");
        assert!(run.lines > 10, "{}", run.lines);
        world.check().await;
    }
}

#[tokio::test]
async fn what_is_done_there_and_pending_here_is_asked_about_by_the_saga() {
    let mut world = World::new().await;
    world.config.reconcile.grace_s = 0;
    let process = world.process();
    let sold = process.create(&world, Buy::some()).await.unwrap();
    world.simulator.set_faults(Faults {
        seed: 1,
        unknown_after: 1.0,
        ..Faults::NONE
    });
    let wanted = Wanted::Lines(owned(&[("A", 1)]));
    process
        .refund(&world, &sold.id, wanted, false)
        .await
        .unwrap();
    world.simulator.set_faults(Faults::NONE);
    start(&process, "k").await;
    world.clock.advance(1);
    world.reconciler(&process).run_once().await.unwrap();
    let run = last_run(&process).await;
    assert_eq!((run.found, run.resolved), (1, 1), "{run:?}");
    let refund = process.payment(&sold.id).await.refunds[0].clone();
    let found = kept(&process, Some(Status::ResolvedItself)).await;
    assert_eq!(found, [(Kind::State, refund.id.to_string())]);
    assert_eq!(refund.state, payment::refund::RefundState::Succeeded);
    world.settle(&process).await;
    world.check().await;
}

#[tokio::test]
async fn what_is_young_is_not_yet_a_discrepancy() {
    let world = World::new().await;
    let process = world.process();
    let reconciler = world.reconciler(&process);
    let mut bulk = Bulk::new(&world, 7);
    let good = (Here::Booked, There::Same);
    let young = bulk.sale(NOW_US - HOUR_US / 2, false);
    bulk.write_as(&young, (Here::Booked, There::Nowhere), good);
    let unknown = bulk.sale(NOW_US - HOUR_US / 2, false);
    bulk.write_as(&unknown, (Here::Nowhere, There::Same), good);
    bulk.flush().await;
    start(&process, "early").await;
    reconciler.run_once().await.unwrap();
    assert_eq!(kept(&process, None).await, []);
    world.clock.advance(HOUR_US);
    start(&process, "later").await;
    reconciler.run_once().await.unwrap();
    let mut found = kept(&process, Some(Status::Open)).await;
    found.sort();
    let expected = [
        (Kind::MissingHere, unknown.capture.to_string()),
        (Kind::MissingThere, young.capture.to_string()),
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn asking_twice_is_asking_once() {
    let world = World::new().await;
    let process = world.process();
    let first = start(&process, "k").await;
    assert_eq!(first.state(), pb::reconciliation::State::Requested);
    assert_eq!(start(&process, "k").await, first, "the same answer");
    assert_eq!(start(&process, "other").await.id, first.id, "one at a time");
    world.reconciler(&process).run_once().await.unwrap();
    assert_eq!(start(&process, "k").await, first, "still the first answer");
    world.clock.advance(SECOND_US);
    assert_ne!(start(&process, "third").await.id, first.id);
    let api = api(&process);
    let nowhere = pb::StartReconciliationRequest {
        provider: "nowhere".into(),
        request_id: String::new(),
    };
    let missing = as_operator(api.start_reconciliation(Request::new(nowhere)))
        .await
        .unwrap_err();
    assert_eq!(
        (missing.code(), reason(&missing).as_str()),
        (Code::NotFound, "PROVIDER_NOT_FOUND")
    );
    let got = api.get_reconciliation(Request::new(pb::GetReconciliationRequest {
        id: first.id.clone(),
    }));
    let got = got.await.unwrap().into_inner().reconciliation.unwrap();
    assert_eq!(got.state(), pb::reconciliation::State::Succeeded);
    let mut ids = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListReconciliationsRequest {
            page_size: 1,
            page_token,
            provider: "simulator".into(),
        };
        let page = api
            .list_reconciliations(Request::new(request))
            .await
            .unwrap()
            .into_inner();
        ids.extend(page.reconciliations.into_iter().map(|run| run.id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!((ids.len(), &ids[1]), (2, &first.id), "newest first");
}

#[tokio::test]
async fn a_run_that_was_left_is_gone_on_with_by_another_replica() {
    let world = World::new().await;
    let process = world.process();
    let mut bulk = Bulk::new(&world, 9);
    for number in 0..450 {
        let sale = bulk.sale(NOW_US - DAY_US + number, false);
        bulk.write(&sale);
    }
    bulk.flush().await;
    let started = start(&process, "k").await;
    let lease = RunLease {
        owner: "dies".to_owned(),
        now_us: world.clock.now_us(),
        lasts_us: HOUR_US,
    };
    let mut run = process.reconciliations.take(&lease).await.unwrap().unwrap();
    run.begin(None, 0, HOUR_US, world.clock.now_us());
    run.lines = 200;
    run.advance(Some("400".to_owned()), world.clock.now_us());
    let nothing = Outcome::default();
    let kept = process
        .reconciliations
        .record(&mut run, &nothing, &lease, true);
    assert!(kept.await.unwrap());
    assert_eq!(run.phase, Phase::Transactions);
    let other = world.reconciler(&world.replica().await);
    assert_eq!(other.run_once().await.unwrap(), 0, "it is somebody's");
    let ended = "UPDATE reconciliations SET lease_until_us = 0";
    world.storage.execute(ended).await.unwrap();
    assert_eq!(other.run_once().await.unwrap(), 1);
    let done = last_run(&process).await;
    assert_eq!(
        (done.id.to_string(), done.state),
        (started.id, RunState::Succeeded)
    );
    assert_eq!(
        (done.until_us, done.lines),
        (run.until_us, 450),
        "it went on from its place"
    );
    let late = process
        .reconciliations
        .record(&mut run, &nothing, &lease, true);
    assert!(!late.await.unwrap(), "the lease is somebody else's");
}

#[tokio::test]
async fn a_schedule_asks_once_however_many_replicas_there_are() {
    let mut world = World::new().await;
    world.config.reconcile.every_s = 60;
    let process = world.process();
    let one = world.reconciler(&process);
    let other = world.reconciler(&world.replica().await);
    let started_us = world.clock.now_us();
    assert_eq!(one.schedule(started_us).await.unwrap(), 0, "not at once");
    world.clock.advance(61 * SECOND_US);
    let (first, second) = tokio::join!(one.schedule(started_us), other.schedule(started_us));
    assert_eq!(first.unwrap() + second.unwrap(), 1);
    assert_eq!(
        one.run_once().await.unwrap() + other.run_once().await.unwrap(),
        1
    );
    assert_eq!(other.schedule(started_us).await.unwrap(), 0);
    world.clock.advance(61 * SECOND_US);
    assert_eq!(other.schedule(started_us).await.unwrap(), 1);
    world.config.reconcile.every_s = 0;
    let never = world.reconciler(&process);
    world.clock.advance(DAY_US);
    assert_eq!(
        never.schedule(started_us).await.unwrap(),
        0,
        "only when asked"
    );
    assert_eq!(last_run(&process).await.requested_by, "schedule");
}

#[tokio::test]
async fn a_provider_that_is_not_there_fails_the_run_by_name() {
    let world = World::new().await;
    let process = world.process();
    let run = Run::new("gone", "boss", NOW_US);
    let record = Record::new("boss", "m", run.id.to_string(), String::new(), NOW_US);
    let asked = process
        .reconciliations
        .request(None, &run, &record, &|_| Vec::new());
    asked.await.unwrap();
    world.reconciler(&process).run_once().await.unwrap();
    let failed = last_run(&process).await;
    assert_eq!(failed.state, RunState::Failed);
    assert!(failed.error.contains("\"gone\""), "{}", failed.error);
    assert_eq!(
        world.reconciler(&process).run_once().await.unwrap(),
        0,
        "it has ended"
    );
}

/// Three captures that the provider lacks, and three that it has with one cent more.
async fn plant_six(world: &World) {
    let mut bulk = Bulk::new(world, 3);
    let good = (Here::Booked, There::Same);
    for number in 0..3 {
        let sale = bulk.sale(NOW_US - DAY_US + number, false);
        bulk.write_as(&sale, (Here::Booked, There::Nowhere), good);
        let sale = bulk.sale(NOW_US - DAY_US + number, false);
        bulk.write_as(&sale, (Here::Booked, There::OneMore), good);
    }
    bulk.flush().await;
}

#[tokio::test]
async fn a_person_resolves_what_stays_and_it_is_found_no_more() {
    let world = World::new().await;
    let process = world.process();
    let reconciler = world.reconciler(&process);
    plant_six(&world).await;
    start(&process, "first").await;
    reconciler.run_once().await.unwrap();

    let api = api(&process);
    let list = async |kind: pb::discrepancy::Kind, status: pb::discrepancy::Status| {
        let request = pb::ListDiscrepanciesRequest {
            provider: "simulator".into(),
            kind: kind.into(),
            status: status.into(),
            ..Default::default()
        };
        let listed = api.list_discrepancies(Request::new(request)).await.unwrap();
        listed.into_inner().discrepancies
    };
    let any = pb::discrepancy::Kind::Unspecified;
    assert_eq!(
        list(any, pb::discrepancy::Status::Unspecified).await.len(),
        6
    );
    let missing = list(
        pb::discrepancy::Kind::MissingThere,
        pb::discrepancy::Status::Open,
    )
    .await;
    assert_eq!(missing.len(), 3);
    let one = missing[0].clone();
    assert!(one.our_amount.is_some() && one.provider_amount.is_none());
    assert!(one.payment_id.starts_with("pay_") && one.our_reference.starts_with("cap_"));
    assert!(
        one.next_step.contains("ask the provider"),
        "{}",
        one.next_step
    );
    let amount = &list(pb::discrepancy::Kind::Amount, pb::discrepancy::Status::Open).await[0];
    let minor =
        |money: &Option<proto::commerce::money::v1::Money>| money.as_ref().unwrap().amount_minor;
    assert_eq!(
        minor(&amount.our_amount) + 1,
        minor(&amount.provider_amount)
    );

    let resolve = |id: &str, note: &str, key: &str| {
        Request::new(pb::ResolveDiscrepancyRequest {
            id: id.to_owned(),
            note: note.to_owned(),
            request_id: key.to_owned(),
        })
    };
    let bad = as_operator(api.resolve_discrepancy(resolve(&one.id, "", "k0"))).await;
    assert_eq!(bad.unwrap_err().code(), Code::InvalidArgument);
    let nowhere = kernel::DiscrepancyId::generate(1).to_string();
    let lost = as_operator(api.resolve_discrepancy(resolve(&nowhere, "x", "k1")))
        .await
        .unwrap_err();
    assert_eq!(
        (lost.code(), reason(&lost).as_str()),
        (Code::NotFound, "DISCREPANCY_NOT_FOUND")
    );
    for key in ["k", "k", "another"] {
        let note = if key == "k" {
            "paid by transfer"
        } else {
            "too late"
        };
        let resolved = as_operator(api.resolve_discrepancy(resolve(&one.id, note, key)))
            .await
            .unwrap();
        let resolved = resolved.into_inner().discrepancy.unwrap();
        assert_eq!(resolved.status(), pb::discrepancy::Status::Resolved);
        assert_eq!(
            (resolved.note.as_str(), resolved.resolved_by.as_str()),
            ("paid by transfer", "boss")
        );
    }
    is_recorded_once(&process, &one.id).await;

    world.clock.advance(HOUR_US);
    start(&process, "second").await;
    reconciler.run_once().await.unwrap();
    let second = last_run(&process).await;
    assert_eq!((second.found, second.resolved), (0, 0));
    assert_eq!(list(any, pb::discrepancy::Status::Open).await.len(), 5);
}

/// That a person resolved it is in the audit trail, once, and who it was.
async fn is_recorded_once(process: &Process, discrepancy: &str) {
    super::audit::seal(&*process.audit).await;
    let query = AuditQuery {
        object: Some(discrepancy.to_owned()),
        limit: 10,
        ..AuditQuery::default()
    };
    let records = process.audit.records(&query).await.unwrap();
    assert_eq!(records.len(), 1, "once, and by whom");
    assert_eq!(records[0].record.principal, "boss");
}
