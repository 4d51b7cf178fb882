//! Disputes from their opening to their end, with the money, the events and our responses.

use crate::suite::world::{Buy, Process, SECOND_US, World, how, request};
use kernel::{Currency, DisputeId, Money, PaymentId};
use payment::commands::Answer;
use payment::dispute::{
    ContentType, Dispute, DisputeState, Evidence, EvidenceFile, FileKind, Response, TextKind,
};
use payment::error::Error;
use payment::provider::simulator::Decision;
use payment::refund::{How, Wanted};
use payment::rejection::Rejection;
use payment::store::{DisputesQuery, Viewer};
use payment::wire::method;
use prost::Message as _;
use proto::commerce::payment::v1 as pb;

const DAY_US: i64 = 86_400 * SECOND_US;

pub(super) fn evidence() -> Evidence {
    Evidence {
        texts: vec![(TextKind::Explanation, "it was sent".into())],
        files: vec![EvidenceFile {
            kind: FileKind::Receipt,
            content_type: ContentType::Pdf,
            description: "the receipt".into(),
            bytes: [b"%PDF-1.7 ".as_slice(), &[0, 255, 128]].concat(),
        }],
    }
}

impl Process {
    pub(super) async fn hand_in(
        &self,
        key: &str,
        id: DisputeId,
        evidence: Evidence,
    ) -> Result<Answer, Error> {
        let request = request(method::SUBMIT_DISPUTE_EVIDENCE, key);
        self.commands.submit_evidence(request, id, evidence).await
    }

    async fn accept(&self, key: &str, id: DisputeId) -> Result<Answer, Error> {
        let request = request(method::ACCEPT_DISPUTE, key);
        self.commands.accept_dispute(request, id).await
    }

    pub(super) async fn disputes(&self, id: &str) -> Vec<Dispute> {
        self.payment(id).await.disputes
    }
}

async fn balance(process: &Process, account: &str) -> i64 {
    let accounts = process.store.accounts(None).await.unwrap();
    let found = accounts.iter().find(|of| of.account == account);
    found.map_or(0, |of| of.balance_minor)
}

/// A payment by a token, and its first dispute.
pub(super) async fn disputed(
    world: &World,
    process: &Process,
    token: &'static str,
) -> (String, Dispute) {
    let paid = process.create(world, Buy::by(token)).await.unwrap();
    world.clock.advance(5 * SECOND_US);
    world.settle(process).await;
    let disputes = process.disputes(&paid.id).await;
    assert_eq!(disputes.len(), 1, "{token}");
    (paid.id, disputes[0].clone())
}

pub(super) fn decoded(answer: &Answer) -> pb::Dispute {
    let answer = pb::SubmitDisputeEvidenceResponse::decode(answer.bytes.as_slice()).unwrap();
    answer.dispute.unwrap()
}

fn states(world_events: &[Vec<u8>]) -> Vec<pb::dispute::State> {
    let state = |body: &Vec<u8>| {
        let event = pb::DisputeOpened::decode(body.as_slice()).unwrap();
        event.dispute.unwrap().state()
    };
    world_events.iter().map(state).collect()
}

#[tokio::test]
async fn evidence_wins_a_dispute_and_its_money_comes_back() {
    for world in [World::new().await, World::one_step().await] {
        let process = world.process();
        let (paid, dispute) = disputed(&world, &process, "pm_card_dispute_won").await;
        assert_eq!(dispute.state, DisputeState::NeedsResponse);
        assert_eq!(dispute.amount.amount_minor(), 450);
        assert!(dispute.holds_money() && dispute.evidence_due_at_us.is_some());
        assert_eq!(balance(&process, "expenses:disputes").await, 450);
        assert_eq!(balance(&process, "assets:provider:simulator").await, 0);

        let answer = process.hand_in("k", dispute.id, evidence()).await.unwrap();
        let shown = decoded(&answer);
        assert_eq!(shown.response(), pb::dispute::Response::Submitted);
        assert_eq!(shown.state(), pb::dispute::State::UnderReview);
        assert_eq!(shown.evidence.len(), 2);
        assert_eq!(shown.evidence[1].description, "the receipt");
        assert_eq!(
            world.storage.count("dispute_evidence").await,
            0,
            "the provider has it"
        );
        let again = process.hand_in("k", dispute.id, evidence()).await.unwrap();
        assert!(again.replayed && again.bytes == answer.bytes);
        let twice = process.hand_in("other", dispute.id, evidence()).await;
        assert!(matches!(
            twice,
            Err(Error::Rejected(Rejection::DisputeState { .. }))
        ));

        world.clock.advance(5 * SECOND_US);
        world.settle(&process).await;
        let won = process.disputes(&paid).await.remove(0);
        assert_eq!(
            (won.state, won.response),
            (DisputeState::Won, Response::Submitted)
        );
        assert!(!won.holds_money() && !won.is_open());
        assert_eq!(balance(&process, "expenses:disputes").await, 0);
        assert_eq!(balance(&process, "assets:provider:simulator").await, 450);
        let opened = world.storage.events("payment.DisputeOpened.v1").await;
        assert_eq!(states(&opened), [pb::dispute::State::NeedsResponse]);
        let closed = world.storage.events("payment.DisputeClosed.v1").await;
        assert_eq!(states(&closed), [pb::dispute::State::Won]);
        let payment = wire_payment(&process, &paid).await;
        assert_eq!(payment.disputes.len(), 1);
        assert_eq!(payment.refunded_amount.unwrap().amount_minor, 0);
        world.check().await;
    }
}

async fn wire_payment(process: &Process, id: &str) -> pb::Payment {
    payment::wire::payment(&process.payment(id).await)
}

#[tokio::test]
async fn without_evidence_in_time_it_is_lost() {
    let world = World::new().await;
    let process = world.process();
    let (paid, dispute) = disputed(&world, &process, "pm_card_dispute_won").await;
    world.clock.advance(8 * DAY_US);
    let late = process.hand_in("late", dispute.id, evidence()).await;
    assert!(
        matches!(late, Err(Error::Rejected(Rejection::DisputeState { .. }))),
        "{late:?}"
    );
    world.settle(&process).await;
    let lost = process.disputes(&paid).await.remove(0);
    assert_eq!(
        (lost.state, lost.response),
        (DisputeState::Lost, Response::None)
    );
    assert!(lost.holds_money());
    assert_eq!(balance(&process, "expenses:disputes").await, 450);
    let decided = process.hand_in("decided", dispute.id, evidence()).await;
    assert!(matches!(
        decided,
        Err(Error::Rejected(Rejection::DisputeState { .. }))
    ));
    world.check().await;
}

#[tokio::test]
async fn evidence_may_lose_too_and_a_bank_may_decide_anew() {
    let world = World::new().await;
    let process = world.process();
    let (paid, dispute) = disputed(&world, &process, "pm_card_dispute_lost").await;
    process.hand_in("k", dispute.id, evidence()).await.unwrap();
    world.clock.advance(5 * SECOND_US);
    world.settle(&process).await;
    assert_eq!(process.disputes(&paid).await[0].state, DisputeState::Lost);
    let provider_ref = dispute.provider_ref.as_str();
    let decided = world.simulator.decide_dispute(provider_ref, Decision::Win);
    decided.await.unwrap();
    world.settle(&process).await;
    assert_eq!(process.disputes(&paid).await[0].state, DisputeState::Won);
    assert_eq!(balance(&process, "expenses:disputes").await, 0);
    let closed = world.storage.events("payment.DisputeClosed.v1").await;
    assert_eq!(closed.len(), 2);
    world.check().await;
}

#[tokio::test]
async fn what_is_given_up_is_lost_and_said_once() {
    let world = World::new().await;
    let process = world.process();
    let (paid, dispute) = disputed(&world, &process, "pm_card_dispute_won").await;
    let answer = process.accept("k", dispute.id).await.unwrap();
    let shown = pb::AcceptDisputeResponse::decode(answer.bytes.as_slice()).unwrap();
    let shown = shown.dispute.unwrap();
    assert_eq!(shown.state(), pb::dispute::State::Lost);
    assert_eq!(shown.response(), pb::dispute::Response::Accepted);
    assert!(process.accept("k", dispute.id).await.unwrap().replayed);
    let twice = process.accept("other", dispute.id).await;
    assert!(matches!(
        twice,
        Err(Error::Rejected(Rejection::DisputeState { .. }))
    ));
    world.settle(&process).await;
    assert_eq!(process.disputes(&paid).await[0].state, DisputeState::Lost);
    world.check().await;
}

#[tokio::test]
async fn an_inquiry_moves_no_money_and_may_become_a_dispute() {
    let world = World::new().await;
    let process = world.process();
    let (quiet, inquiry) = disputed(&world, &process, "pm_card_inquiry").await;
    let (grave, _) = disputed(&world, &process, "pm_card_inquiry_escalates").await;
    assert_eq!(inquiry.state, DisputeState::Inquiry);
    assert_eq!(balance(&process, "expenses:disputes").await, 0);
    let answer = process.hand_in("k", inquiry.id, evidence()).await.unwrap();
    assert_eq!(decoded(&answer).state(), pb::dispute::State::Inquiry);
    world.clock.advance(8 * DAY_US);
    world.settle(&process).await;
    let closed = process.disputes(&quiet).await.remove(0);
    assert_eq!(closed.state, DisputeState::Closed);
    assert!(closed.withdrawn_at_us.is_none());
    let escalated = process.disputes(&grave).await.remove(0);
    assert_eq!(escalated.state, DisputeState::NeedsResponse);
    assert_eq!(balance(&process, "expenses:disputes").await, 450);
    let updated = world.storage.events("payment.DisputeUpdated.v1").await;
    assert!(states(&updated).contains(&pb::dispute::State::NeedsResponse));
    world.check().await;
}

#[tokio::test]
async fn several_disputes_and_refunds_may_be_more_than_was_captured() {
    let world = World::new().await;
    let process = world.process();
    let paid = process.create(&world, Buy::some()).await.unwrap();
    let usd = |minor| Money::new(Currency::parse("USD").unwrap(), minor).unwrap();
    let some = Wanted::Amount(usd(100));
    process.refund(&world, &paid.id, some, false).await.unwrap();
    let attempt = process.payment(&paid.id).await.attempts[0].id.to_string();
    for amount in [Some(usd(450)), Some(usd(50))] {
        let opened = world.simulator.open_dispute(&attempt, amount, false);
        opened.await.unwrap();
    }
    world.settle(&process).await;
    let payment = process.payment(&paid.id).await;
    assert_eq!((payment.disputes.len(), payment.disputed_minor()), (2, 500));
    assert_eq!(balance(&process, "assets:provider:simulator").await, -150);

    let more = process
        .refund(&world, &paid.id, Wanted::Everything, false)
        .await;
    match more {
        Err(Error::Rejected(Rejection::Disputed {
            disputed_minor,
            left,
            ..
        })) => {
            assert_eq!((disputed_minor, left.amount_minor()), (500, 0));
        }
        other => panic!("{other:?}"),
    }
    let forced = How {
        disputed_too: true,
        ..how(false)
    };
    let id = PaymentId::parse(&paid.id).unwrap();
    let request = request(method::CREATE_REFUND, "forced");
    let wanted = Wanted::Amount(usd(350));
    let forced = process.commands.refund(request, id, wanted, forced).await;
    forced.unwrap();
    assert_eq!(balance(&process, "assets:provider:simulator").await, -500);
    world.check().await;
}

#[tokio::test]
async fn a_refund_beside_a_dispute_of_a_part_is_no_matter() {
    let world = World::new().await;
    let process = world.process();
    let paid = process.create(&world, Buy::some()).await.unwrap();
    let usd = |minor| Money::new(Currency::parse("USD").unwrap(), minor).unwrap();
    let attempt = process.payment(&paid.id).await.attempts[0].id.to_string();
    let opened = world
        .simulator
        .open_dispute(&attempt, Some(usd(100)), false);
    let provider_ref = opened.await.unwrap();
    world.settle(&process).await;
    let refund = |minor| process.refund(&world, &paid.id, Wanted::Amount(usd(minor)), false);
    assert!(matches!(
        refund(351).await,
        Err(Error::Rejected(Rejection::Disputed { .. }))
    ));
    refund(350).await.unwrap();
    world
        .simulator
        .decide_dispute(&provider_ref, Decision::Win)
        .await
        .unwrap();
    world.settle(&process).await;
    refund(100).await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn what_a_client_may_see_and_list() {
    let world = World::new().await;
    let process = world.process();
    let (one, _) = disputed(&world, &process, "pm_card_dispute_won").await;
    let (_, inquiry) = disputed(&world, &process, "pm_card_inquiry").await;
    let query = DisputesQuery {
        viewer: Viewer::Client("shop".into()),
        payment: None,
        state: None,
        after: None,
        limit: 10,
    };
    let listed = process.store.disputes(&query).await.unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0].dispute, inquiry, "newest first");
    assert_eq!(listed[1].payment.to_string(), one);
    assert_eq!(listed[1].provider, "simulator");
    let count = |query: DisputesQuery| {
        let store = process.store.clone();
        async move { store.disputes(&query).await.unwrap().len() }
    };
    let state = Some(DisputeState::Inquiry);
    assert_eq!(
        count(DisputesQuery {
            state,
            ..query.clone()
        })
        .await,
        1
    );
    let payment = Some(PaymentId::parse(&one).unwrap());
    assert_eq!(
        count(DisputesQuery {
            payment,
            ..query.clone()
        })
        .await,
        1
    );
    let after = Some((inquiry.created_at_us, inquiry.id));
    assert_eq!(
        count(DisputesQuery {
            after,
            ..query.clone()
        })
        .await,
        1
    );
    let viewer = Viewer::Client("other".into());
    assert_eq!(
        count(DisputesQuery {
            viewer: viewer.clone(),
            ..query
        })
        .await,
        0
    );
    let mut foreign = request(method::ACCEPT_DISPUTE, "foreign");
    foreign.viewer = viewer;
    let refused = process.commands.accept_dispute(foreign, inquiry.id).await;
    assert!(matches!(refused, Err(Error::DisputeNotFound(_))));
}

#[tokio::test]
async fn everything_that_happens_to_a_dispute_is_on_record() {
    let world = World::new().await;
    let process = world.process();
    let (paid, dispute) = disputed(&world, &process, "pm_card_dispute_won").await;
    process.hand_in("k", dispute.id, evidence()).await.unwrap();
    world.clock.advance(5 * SECOND_US);
    world.settle(&process).await;
    let outcomes: Vec<String> = world
        .storage
        .texts("SELECT outcome FROM audit_pending ORDER BY id")
        .await;
    let id = dispute.id;
    for expected in [
        format!("booked {id}, {id} is NEEDS_RESPONSE, response none"),
        format!("began {id}, {id} is NEEDS_RESPONSE, response submitting"),
        format!("reversed {id}, {id} is WON, response submitted"),
    ] {
        assert!(
            outcomes.iter().any(|outcome| outcome.contains(&expected)),
            "{expected} is not in {outcomes:#?} of {paid}"
        );
    }
}
