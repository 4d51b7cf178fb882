//! Who did what: recorded with what was done or not at all, in one chain however many replicas make it.

use crate::suite::api::{api, as_client, as_operator, order};
use crate::suite::world::{Buy, World};
use futures_util::future::join_all;
use payment::audit::{Broken, FIRST, Head, SERVICE};
use payment::capture::CaptureState;
use payment::limits::Limit;
use payment::payment::Payment;
use payment::refund::{RefundState, Wanted};
use payment::sealer::Sealer;
use payment::store::audit::{Verified, verify};
use payment::store::{AuditLog, AuditQuery};
use payment::wire::method;
use proto::commerce::payment::v1 as pb;
use proto::commerce::payment::v1::payment_service_server::PaymentService as _;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::Request;

/// Gives all records their places.
pub(super) async fn seal(log: &dyn AuditLog) {
    while log.seal(7).await.unwrap() > 0 {}
}

/// The head of a chain that is whole.
pub(super) async fn whole(log: &dyn AuditLog, known: Option<Head>) -> Head {
    match verify(log, known).await.unwrap() {
        Verified::Whole(head) => head,
        Verified::Broken(broken) => panic!("{broken}"),
    }
}

async fn broken(log: &dyn AuditLog, known: Option<Head>) -> Broken {
    match verify(log, known).await.unwrap() {
        Verified::Whole(head) => panic!("whole up to {head}"),
        Verified::Broken(broken) => broken,
    }
}

#[tokio::test]
async fn who_did_what_is_listed_with_what_came_of_it() {
    let world = World::new().await;
    let process = world.process();
    let api = api(&process);
    let bought = as_client("shop", api.create_payment(order("1", "k"))).await;
    let payment = bought.unwrap().into_inner().payment.unwrap();
    let again = as_client("shop", api.create_payment(order("1", "k"))).await;
    again.unwrap(); // Changes nothing: no record.
    let taken = as_client("shop", api.create_payment(order("1", "k2"))).await;
    taken.unwrap_err(); // Neither does this.
    as_client("other", api.create_payment(order("1", "k")))
        .await
        .unwrap();
    let refund = Request::new(pb::CreateRefundRequest {
        payment_id: payment.id.clone(),
        request_id: "r".into(),
        ..Default::default()
    });
    let refund = as_operator(api.create_refund(refund)).await.unwrap();
    let refund = refund.into_inner().refund.unwrap().id;
    seal(&*process.audit).await;

    let list = |page_token: String, page_size| {
        Request::new(pb::ListAuditRecordsRequest {
            payment_id: payment.id.clone(),
            page_size,
            page_token,
            ..Default::default()
        })
    };
    let mut records = Vec::new();
    let mut token = String::new();
    loop {
        let page = as_operator(api.list_audit_records(list(token, 3))).await;
        let page = page.unwrap().into_inner();
        records.extend(page.records);
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let mut told: Vec<(&str, &str, &str)> = records
        .iter()
        .map(|record| (&*record.principal, &*record.method, &*record.outcome))
        .collect();
    told.sort_unstable(); // All of it happened in the same microsecond.
    let capture = &payment.captures[0].id;
    let (booked, began, given_back) = (
        format!("SUCCEEDED, booked {capture}"),
        format!("SUCCEEDED, began {refund}"),
        format!("SUCCEEDED, booked {refund}"),
    );
    let mut expected = [
        ("shop", method::CREATE_PAYMENT, "PROCESSING"),
        (SERVICE, "saga", &*booked),
        ("boss", method::CREATE_REFUND, &*began),
        (SERVICE, "saga", &*given_back),
    ];
    expected.sort_unstable();
    assert_eq!(told, expected);
    assert!(records.iter().all(|record| record.payment_id == payment.id));
    assert!(
        records
            .iter()
            .all(|record| record.time == payment.create_time)
    );
    let of_boss = AuditQuery {
        principal: Some("boss".into()),
        limit: 10,
        ..AuditQuery::default()
    };
    assert_eq!(process.audit.records(&of_boss).await.unwrap().len(), 1);
    world.check().await;
}

#[tokio::test]
async fn what_is_refused_in_the_transaction_leaves_no_record() {
    let mut world = World::new().await;
    world.config.limits = vec![Limit {
        currency: "USD".into(),
        window_s: 60,
        charges_max: 1,
        ..Limit::default()
    }];
    let process = world.process();
    process.create(&world, Buy::some()).await.unwrap();
    seal(&*process.audit).await;
    let before = whole(&*process.audit, None).await;
    process.create(&world, Buy::some()).await.unwrap_err();
    let waiting = process.create(&world, Buy::unconfirmed()).await.unwrap();
    process
        .confirm(&world, &waiting.id, "pm_card_visa")
        .await
        .unwrap_err();
    seal(&*process.audit).await;
    let after = whole(&*process.audit, Some(before)).await;
    assert_eq!(
        after.number,
        before.number + 1,
        "the creation of the one that waits"
    );
}

/// Two replicas buy and seal at the same time: one chain without gaps, with every record in it once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_make_one_chain() {
    let world = World::new().await;
    let processes = [world.process(), world.replica().await];
    let stop = CancellationToken::new();
    let sealing = join_all(processes.iter().map(|process| {
        let (log, stop) = (process.audit.clone(), stop.clone());
        let sealer = Sealer {
            log,
            every: Duration::from_millis(1),
            batch_max: 3,
        };
        async move { sealer.run(stop).await }
    }));
    let buying = async {
        let buy = |number: usize| processes[number % 2].create(&world, Buy::some());
        for bought in join_all((0..40).map(buy)).await {
            bought.unwrap();
        }
        stop.cancel();
    };
    tokio::join!(sealing, buying);
    seal(&*processes[0].audit).await;
    let head = whole(&*processes[0].audit, None).await;
    assert_eq!(
        head.number, 80,
        "a record of each purchase, and one of what was booked"
    );
    world.check().await;
}

/// The table refuses changes; whoever gets past that is found, whatever was changed.
#[tokio::test]
async fn a_changed_row_is_found_whichever_column() {
    let world = World::new().await;
    let process = world.process();
    for _ in 0..3 {
        let bought = process.create(&world, Buy::some()).await.unwrap();
        process
            .refund(&world, &bought.id, Wanted::Everything, false)
            .await
            .unwrap();
    }
    seal(&*process.audit).await;
    let head = whole(&*process.audit, None).await;
    assert_eq!(head.number, 12);
    let storage = &world.storage;
    for statement in [
        "UPDATE audit_log SET outcome = 'CANCELED' WHERE number = 5",
        "DELETE FROM audit_log WHERE number = 12",
    ] {
        let refused = storage.execute(statement).await.unwrap_err();
        assert!(refused.contains("append-only"), "{refused}");
    }
    storage.unlock_audit().await;
    for (change, back, number) in [
        ("at_us = at_us + 1", "at_us = at_us - 1", 5),
        (
            "principal = principal || ' '",
            "principal = substr(principal, 1, length(principal) - 1)",
            1,
        ),
        (
            "method = method || 'x'",
            "method = substr(method, 1, length(method) - 1)",
            12,
        ),
        (
            "object = object || 'x'",
            "object = substr(object, 1, length(object) - 1)",
            7,
        ),
        (
            "outcome = 'x' || outcome",
            "outcome = substr(outcome, 2)",
            2,
        ),
        ("number = 99", "number = 5", 5),
    ] {
        let at =
            |set: &str, number: i64| format!("UPDATE audit_log SET {set} WHERE number = {number}");
        storage.execute(&at(change, number)).await.unwrap();
        let found = broken(&*process.audit, None).await;
        let named = match found {
            Broken::Changed { number } | Broken::Missing { number, .. } => number,
            other => panic!("{other}"),
        };
        assert_eq!(named, number, "{change}");
        let now_at = if change.starts_with("number") {
            99
        } else {
            number
        };
        storage.execute(&at(back, now_at)).await.unwrap();
        assert_eq!(whole(&*process.audit, Some(head)).await, head, "{back}");
    }
    // The newest of all: only a head that was kept elsewhere tells.
    storage
        .execute("DELETE FROM audit_log WHERE number = 12")
        .await
        .unwrap();
    whole(&*process.audit, None).await;
    let short = Broken::Short {
        number: 12,
        found: 11,
    };
    assert_eq!(broken(&*process.audit, Some(head)).await, short);
    storage.execute("DELETE FROM audit_log").await.unwrap();
    assert_eq!(whole(&*process.audit, None).await, FIRST);
    let short = Broken::Short {
        number: 12,
        found: 0,
    };
    assert_eq!(broken(&*process.audit, Some(head)).await, short);
}

impl World {
    /// The chain is whole, and tells of each payment's creation, and once of everything that was booked.
    pub(super) async fn check_audit(&self, payments: &[Payment]) {
        let log = self.storage.audit();
        let log = &*log;
        seal(log).await;
        whole(log, None).await;
        let mut outcomes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut after = 0;
        loop {
            let page = log.chain(after, 1_000).await.unwrap();
            let Some(last) = page.last() else { break };
            after = last.number;
            for sealed in page {
                let record = sealed.record;
                outcomes
                    .entry(record.object)
                    .or_default()
                    .push(record.outcome);
            }
        }
        for payment in payments {
            let told = outcomes.remove(&payment.id.to_string()).unwrap_or_default();
            let captures = payment
                .captures
                .iter()
                .filter(|capture| capture.state == CaptureState::Succeeded);
            let refunds = payment
                .refunds
                .iter()
                .filter(|refund| refund.state == RefundState::Succeeded);
            let booked = captures.map(|capture| capture.id.to_string());
            for id in booked.chain(refunds.map(|refund| refund.id.to_string())) {
                let count = told
                    .iter()
                    .filter(|told| told.contains(&format!("booked {id}")))
                    .count();
                assert_eq!(count, 1, "records that {id} was booked: {told:?}");
            }
            let last = told
                .last()
                .unwrap_or_else(|| panic!("nobody created {}", payment.id));
            assert!(
                told.iter()
                    .any(|told| told.starts_with(payment.state.name())),
                "{last}"
            );
        }
        outcomes.retain(|object, _| object.starts_with("pay_"));
        assert!(
            outcomes.is_empty(),
            "records of payments that are not there: {outcomes:?}"
        );
    }
}
