//! What operators see and do about webhooks and about outcomes that stay unknown.

use crate::suite::api::api;
use crate::suite::disputes::{disputed, evidence};
use crate::suite::world::{Buy, Process, SECOND_US, VISA, World};
use mesh_events::FaultPoints;
use mesh_runtime::config::Secret;
use payment::commands::Commands;
use payment::provider::Provider;
use payment::provider::simulator::Faults;
use payment::provider::toss::{Toss, TossConfig};
use payment::refund::Wanted;
use payment::saga::{Providers, Saga};
use payment::unresolved::CallKind;
use proto::commerce::payment::v1 as pb;
use proto::commerce::payment::v1::payment_service_server::PaymentService as _;
use std::sync::Arc;
use tokio_util::task::TaskTracker;
use tonic::{Code, Request};

const AWAY: Faults = Faults {
    seed: 1,
    unavailable: 1.0,
    ..Faults::NONE
};
const LOST: Faults = Faults {
    unavailable: 0.0,
    unknown_after: 1.0,
    ..AWAY
};

fn webhooks(page_size: i32, page_token: &str, provider: &str) -> Request<pb::ListWebhooksRequest> {
    Request::new(pb::ListWebhooksRequest {
        page_size,
        page_token: page_token.into(),
        provider: provider.into(),
    })
}

/// An operator asks the provider now.
async fn look_up(process: &Process, id: &str) -> pb::Payment {
    let operator = mesh::Principal::new("desk", ["operator".to_owned()]);
    let request = Request::new(pb::LookUpPaymentRequest {
        id: id.into(),
        request_id: String::new(),
    });
    let api = api(process);
    let context = mesh::CallContext::root(operator);
    let answer = context.scope(api.look_up_payment(request)).await.unwrap();
    answer.into_inner().payment.unwrap()
}

#[tokio::test]
async fn webhooks_are_listed_once_each_and_newest_first() {
    let world = World::new().await;
    let process = world.process();
    let api = api(&process);
    for _ in 0..3 {
        let buy = Buy::by("pm_card_webhook_duplicate");
        process.create(&world, buy).await.unwrap();
        world.settle(&process).await;
    }
    let all = api
        .list_webhooks(webhooks(0, "", ""))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(all.webhooks.len(), 3, "duplicates count once");
    assert_eq!(all.next_page_token, "");
    let mut paged = Vec::new();
    let mut token = String::new();
    loop {
        let page = api
            .list_webhooks(webhooks(1, &token, "simulator"))
            .await
            .unwrap();
        let page = page.into_inner();
        paged.extend(page.webhooks);
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(paged, all.webhooks);
    let seconds = |webhook: &pb::Webhook| webhook.receive_time.unwrap().seconds;
    assert!(paged.is_sorted_by(|newer, older| seconds(newer) >= seconds(older)));
    let others = api.list_webhooks(webhooks(0, "", "stripe")).await.unwrap();
    assert!(others.into_inner().webhooks.is_empty());
    world.check().await;
}

#[tokio::test]
async fn a_replayed_webhook_asks_the_provider_again() {
    let world = World::new().await;
    let process = world.process();
    let api = api(&process);
    let buy = Buy::by("pm_card_webhook_duplicate");
    let payment = process.create(&world, buy).await.unwrap();
    world.settle(&process).await;
    let listed = api
        .list_webhooks(webhooks(0, "", ""))
        .await
        .unwrap()
        .into_inner();
    let replay = |event_id: &str| {
        Request::new(pb::ReplayWebhookRequest {
            provider: "simulator".into(),
            event_id: event_id.into(),
            request_id: String::new(),
        })
    };
    let operator = mesh::Principal::new("desk", ["operator".to_owned()]);
    let context = mesh::CallContext::root(operator);
    let replayed = context
        .clone()
        .scope(api.replay_webhook(replay(&listed.webhooks[0].event_id)))
        .await;
    let replayed = replayed.unwrap().into_inner().payment.unwrap();
    assert_eq!(
        (replayed.state(), replayed.id),
        (pb::payment::State::Succeeded, payment.id)
    );
    let missing = context
        .scope(api.replay_webhook(replay("evt_nothing")))
        .await;
    assert_eq!(missing.unwrap_err().code(), Code::NotFound);
    world.check().await;
}

#[tokio::test]
async fn what_stays_unknown_waits_for_a_person_and_resolves_when_asked() {
    let world = World::new().await;
    let process = world.process();
    let api = api(&process);
    let sold = process.create(&world, Buy::by(VISA)).await.unwrap();
    world.clock.advance(SECOND_US);
    world.simulator.set_faults(LOST);
    let unknown = process.create(&world, Buy::by(VISA)).await.unwrap();
    let whole = Wanted::Everything;
    process
        .refund(&world, &sold.id, whole, false)
        .await
        .unwrap();
    world.simulator.set_faults(AWAY);
    let listed = || async {
        let request = Request::new(pb::ListUnresolvedPaymentsRequest::default());
        api.list_unresolved_payments(request)
            .await
            .unwrap()
            .into_inner()
            .calls
    };
    assert_eq!(listed().await, [], "not for so long yet");
    for _ in 0..70 {
        world.clock.advance(60 * SECOND_US);
        process.worker.run_once().await.unwrap();
    }
    let calls = listed().await;
    let told: Vec<_> = calls
        .iter()
        .map(|call| (call.payment_id.clone(), call.kind()))
        .collect();
    assert_eq!(
        told,
        [
            (sold.id.clone(), pb::unresolved_call::Kind::Refund),
            (unknown.id.clone(), pb::unresolved_call::Kind::Charge),
        ]
    );
    assert!(
        calls
            .iter()
            .all(|call| call.tries > 5 && !call.next_step.is_empty())
    );

    world.simulator.set_faults(Faults::default());
    for id in [&sold.id, &unknown.id] {
        let payment = look_up(&process, id).await;
        assert_eq!(payment.state(), pb::payment::State::Succeeded, "{id}");
    }
    assert_eq!(listed().await, []);
    world.settle(&process).await;
    world.check().await;
}

#[tokio::test]
async fn goods_that_do_not_leave_the_stock_wait_for_a_person() {
    let world = World::new().await;
    let process = world.process();
    let payment = process.create(&world, Buy::manual()).await.unwrap();
    world.catalogue.set_down(true);
    process
        .capture(&world, &payment.id, &[], true)
        .await
        .unwrap();
    for _ in 0..70 {
        world.clock.advance(60 * SECOND_US);
        process.worker.run_once().await.unwrap();
    }
    let listed = async || {
        let before_us = world.clock.now_us() - 3_600 * SECOND_US;
        let listed = process.desk.unresolved(before_us, None, 10).await.unwrap();
        let calls = listed.iter().flat_map(|p| p.unresolved(before_us));
        calls.map(|call| call.kind).collect::<Vec<_>>()
    };
    assert_eq!(listed().await, [CallKind::Stock]);
    world.catalogue.set_down(false);
    world.settle(&process).await;
    assert_eq!(listed().await, []);
    world.check().await;
}

#[tokio::test]
async fn a_response_to_a_dispute_that_nobody_takes_waits_for_a_person() {
    let world = World::new().await;
    let process = world.process();
    let (paid, dispute) = disputed(&world, &process, "pm_card_dispute_won").await;
    world.simulator.set_faults(AWAY);
    process.hand_in("k", dispute.id, evidence()).await.unwrap();
    world.clock.advance(3_600 * SECOND_US);
    process.worker.run_once().await.unwrap();
    let listed = async || {
        let before_us = world.clock.now_us() - 1_800 * SECOND_US;
        let listed = process.desk.unresolved(before_us, None, 10).await.unwrap();
        let calls = listed.iter().flat_map(|p| p.unresolved(before_us));
        calls
            .map(|call| (call.kind, call.reference))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        listed().await,
        [(CallKind::Response, dispute.id.to_string())]
    );
    world.simulator.set_faults(Faults::NONE);
    let payment = look_up(&process, &paid).await;
    assert_eq!(
        payment.disputes[0].response(),
        pb::dispute::Response::Submitted
    );
    assert_eq!(listed().await, []);
    world.check().await;
}

#[tokio::test]
async fn names_of_providers_are_noted_once() {
    let world = World::new().await;
    let references = world.storage.references();
    assert_eq!(references.find("stripe", "att_1").await, Ok(None));
    for name in ["pi_1", "pi_2"] {
        references.note("stripe", "att_1", name).await.unwrap();
        assert_eq!(
            references.find("stripe", "att_1").await,
            Ok(Some("pi_1".into()))
        );
    }
    assert_eq!(references.find("toss", "att_1").await, Ok(None));
}

#[tokio::test]
async fn an_unsigned_hint_is_stored_only_where_it_names_a_payment() {
    let world = World::new().await;
    let config = TossConfig {
        url: "http://127.0.0.1:1".to_owned(), // Nobody is asked.
        secret_key: Secret::new("test_sk_1"),
        ..TossConfig::default()
    };
    let toss = Toss::new(&config, world.storage.references(), world.clock.clone()).unwrap();
    let base = world.process();
    let providers = Providers::from([
        (
            "simulator".to_owned(),
            world.simulator.clone() as Arc<dyn Provider>,
        ),
        ("toss".to_owned(), Arc::new(toss)),
    ]);
    let saga = Saga::new(
        base.store.clone(),
        world.catalogue.clone(),
        providers,
        world.config.saga.clone(),
        world.clock.clone(),
        TaskTracker::new(),
        FaultPoints::default(),
    );
    let catalogue = world.catalogue.clone();
    let commands = Commands::new(base.store.clone(), saga, catalogue, "simulator".to_owned());
    let process = Process { commands, ..base };
    let payment = process.create(&world, Buy::some()).await.unwrap();
    let waiting = process.create(&world, Buy::unconfirmed()).await.unwrap();
    let api = api(&process);
    let nowhere = kernel::PaymentId::generate(1).to_string();
    for order in [
        nowhere.as_str(),
        waiting.id.as_str(),
        "",
        "att_1",
        payment.id.as_str(),
    ] {
        let body =
            format!(r#"{{"eventType":"PAYMENT_STATUS_CHANGED","data":{{"orderId":"{order}"}}}}"#);
        let headers = http::HeaderMap::new();
        for blanks in 0..20 {
            let body = format!("{body}{:blanks$}", "");
            let received = process
                .commands
                .receive_webhook("toss", &headers, body.as_bytes());
            received.await.unwrap();
        }
    }
    let stored = api
        .list_webhooks(webhooks(0, "", "toss"))
        .await
        .unwrap()
        .into_inner();
    let attempt = process.payment(&payment.id).await.attempts[0]
        .id
        .to_string();
    let references: Vec<_> = stored
        .webhooks
        .iter()
        .map(|one| one.reference.as_str())
        .collect();
    assert_eq!(
        references,
        [attempt.as_str()],
        "only one names what is under way"
    );
    world.check().await;
}
