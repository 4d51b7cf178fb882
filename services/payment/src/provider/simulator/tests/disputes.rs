//! What banks do, by tokens and when told to.

use super::*;
use crate::dispute::{DisputeState, Evidence, SeenDispute, TextKind};
use crate::provider::simulator::Decision;

const SECOND_US: i64 = 1_000_000;
const WEEK_US: i64 = 7 * 24 * 3_600 * SECOND_US;

impl Bench {
    /// A charge of 1000 whose disputes a token scripts.
    async fn charge(&self, token: &str) {
        let charge = Authorize {
            capture: true,
            ..authorize("att_1", token)
        };
        self.simulator.authorize(&charge).await.unwrap();
    }

    async fn disputes(&self) -> Vec<SeenDispute> {
        self.simulator.look_up_disputes("att_1").await.unwrap()
    }

    async fn state(&self) -> DisputeState {
        let disputes = self.disputes().await;
        assert_eq!(disputes.len(), 1);
        disputes[0].state
    }

    async fn hand_in(&self, reference: &str) -> Result<SeenDispute, ProviderError> {
        let request = SubmitEvidence {
            reference: reference.to_owned(),
            dispute_ref: self.disputes().await[0].provider_ref.clone(),
            evidence: Evidence {
                texts: vec![(TextKind::Explanation, "sent".into())],
                files: Vec::new(),
            },
        };
        self.simulator.submit_evidence(&request).await
    }

    /// The types of the webhooks that wait.
    async fn announced(&self) -> Vec<String> {
        sqlx::query_scalar("SELECT body ->> '$.type' FROM webhooks ORDER BY sequence")
            .fetch_all(self.simulator.journal.reader())
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn evidence_decides_as_the_token_says() {
    for (token, end, kept_minor) in [
        ("pm_card_dispute_won", DisputeState::Won, 1000),
        ("pm_card_dispute_lost", DisputeState::Lost, 0),
    ] {
        let mut bench = Bench::new().await;
        bench.charge(token).await;
        assert!(bench.disputes().await.is_empty(), "not yet");
        bench.clock.advance(SECOND_US);
        assert_eq!(bench.state().await, DisputeState::NeedsResponse);
        assert_eq!(bench.taken_minor().await, 0, "the money is taken back");
        let taken = bench.hand_in("dsp_1").await.unwrap();
        assert_eq!(
            (taken.state, taken.responded),
            (DisputeState::UnderReview, true)
        );
        bench.reopen().await;
        assert_eq!(bench.hand_in("dsp_1").await, Ok(taken));
        assert_eq!(refusal(bench.hand_in("dsp_2").await), "ALREADY_SUBMITTED");
        bench.clock.advance(SECOND_US);
        assert_eq!(bench.state().await, end);
        assert_eq!(bench.taken_minor().await, kept_minor);
        let announced = bench.announced().await;
        assert_eq!(
            announced,
            [
                "dispute.needs_response".to_owned(),
                "dispute.under_review".to_owned(),
                format!("dispute.{}", end.name().to_lowercase()),
            ]
        );
    }
}

#[tokio::test]
async fn silence_loses_and_inquiries_end_by_themselves() {
    let bench = Bench::new().await;
    bench.charge("pm_card_dispute_won").await;
    bench.clock.advance(SECOND_US);
    let due_us = bench.disputes().await[0].evidence_due_at_us;
    assert_eq!(due_us, Some(NOW_US + SECOND_US + WEEK_US));
    bench.clock.advance(WEEK_US);
    assert_eq!(refusal(bench.hand_in("dsp_1").await), "INVALID_STATE");
    assert_eq!(bench.state().await, DisputeState::Lost);

    let bench = Bench::new().await;
    bench.charge("pm_card_inquiry").await;
    bench.clock.advance(SECOND_US);
    assert_eq!(bench.state().await, DisputeState::Inquiry);
    assert_eq!(bench.taken_minor().await, 1000, "no money moves");
    let accept = AcceptDispute {
        reference: "dsp_1".into(),
        dispute_ref: bench.disputes().await[0].provider_ref.clone(),
    };
    assert_eq!(
        refusal(bench.simulator.accept_dispute(&accept).await),
        "INVALID_STATE"
    );
    bench.clock.advance(WEEK_US);
    assert_eq!(bench.state().await, DisputeState::Closed);

    let bench = Bench::new().await;
    bench.charge("pm_card_inquiry_escalates").await;
    bench.clock.advance(SECOND_US);
    assert_eq!(bench.state().await, DisputeState::Inquiry);
    bench.clock.advance(WEEK_US);
    let escalated = bench.disputes().await.remove(0);
    assert_eq!(escalated.state, DisputeState::NeedsResponse);
    assert!(escalated.withdrawn && !escalated.reinstated);
}

#[tokio::test]
async fn banks_do_what_they_are_told() {
    let bench = Bench::new().await;
    bench.charge("pm_card_visa").await;
    assert_eq!(
        refusal(bench.simulator.open_dispute("att_2", None, false).await),
        "NOTHING_CAPTURED"
    );
    let negative = bench
        .simulator
        .open_dispute("att_1", Some(usd(0)), false)
        .await;
    assert_eq!(refusal(negative), "AMOUNT_INVALID");
    let first = bench
        .simulator
        .open_dispute("att_1", Some(usd(300)), true)
        .await
        .unwrap();
    let second = bench
        .simulator
        .open_dispute("att_1", None, false)
        .await
        .unwrap();
    assert_ne!(first, second);
    assert_eq!(bench.taken_minor().await, 0);
    let decide = |dispute, decision| bench.simulator.decide_dispute(dispute, decision);
    assert_eq!(
        refusal(decide(&first, Decision::Win).await),
        "INVALID_STATE"
    );
    assert_eq!(
        decide(&first, Decision::Escalate).await.unwrap().state,
        DisputeState::NeedsResponse
    );
    assert_eq!(bench.taken_minor().await, -300, "more than was captured");
    assert_eq!(
        decide(&second, Decision::Lose).await.unwrap().state,
        DisputeState::Lost
    );
    assert_eq!(
        refusal(decide(&second, Decision::Lose).await),
        "INVALID_STATE"
    );
    let anew = decide(&second, Decision::Win).await.unwrap();
    assert!(anew.state == DisputeState::Won && anew.reinstated);
    assert_eq!(
        refusal(decide(&first, Decision::Close).await),
        "INVALID_STATE"
    );
    assert_eq!(
        refusal(decide("nobody", Decision::Win).await),
        "DISPUTE_NOT_FOUND"
    );
    assert_eq!(bench.disputes().await.len(), 2);
    assert_eq!(bench.taken_minor().await, 700);
}

#[tokio::test]
async fn a_refund_comes_back_by_its_token_or_when_told_and_can_be_made_again() {
    let bench = Bench::new().await;
    bench.charge("pm_card_refund_fails_later").await;
    let all = refund("re_1", "att_1", 1000);
    assert!(is_done(&bench.simulator.refund(&all).await.unwrap()));
    assert_eq!(bench.taken_minor().await, 0);
    bench.clock.advance(SECOND_US);
    bench.simulator.carry_out_due().await.unwrap();
    let now = bench.simulator.look_up_settlement("re_1").await.unwrap();
    assert!(matches!(now, Some(Settlement::Declined(_))), "{now:?}");
    assert_eq!(bench.taken_minor().await, 1000);
    assert_eq!(bench.announced().await, ["refund.refund_failed"]);
    let repeated = bench.simulator.refund(&all).await.unwrap();
    assert_eq!(Some(repeated), now, "the same reference, the same answer");
    let again = refund("re_2", "att_1", 1000);
    assert!(is_done(&bench.simulator.refund(&again).await.unwrap()));
    bench.simulator.return_refund("re_2").await.unwrap();
    assert_eq!(
        refusal(bench.simulator.return_refund("re_2").await),
        "NOT_REFUNDED"
    );
    assert_eq!(
        refusal(bench.simulator.return_refund("re_3").await),
        "NOT_REFUNDED"
    );
    bench.clock.advance(SECOND_US);
    bench.simulator.carry_out_due().await.unwrap();
    assert_eq!(bench.taken_minor().await, 1000, "once");
}
