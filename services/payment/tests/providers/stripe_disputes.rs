//! Disputes at Stripe: what its answers mean, and what becomes of evidence that is not taken.

use crate::stripe::{ATTEMPT, authorize, stripe, usd};
use payment::dispute::{ContentType, DisputeState, Evidence, EvidenceFile, FileKind, SeenDispute};
use payment::provider::{AcceptDispute, Provider as _, ProviderError, SubmitEvidence};

const DISPUTED: &str = r#""amount": 595, "currency": "usd", "reason": "fraudulent", "evidence_details": {"due_by": 1700000000, "submission_count": 0}"#;

/// A dispute as Stripe lists it, of a charge whose intent is known.
async fn listed(status: &str, moved: &str) -> SeenDispute {
    let (recorder, stripe) = stripe().await;
    recorder.answer(200, r#"{"id": "pi_1", "status": "succeeded"}"#);
    stripe.authorize(&authorize()).await.unwrap();
    let dispute = format!(
        r#"{{"id": "dp_1", "status": "{status}", {DISPUTED}, "balance_transactions": [{moved}]}}"#
    );
    recorder.answer(200, &format!(r#"{{"data": [{dispute}]}}"#));
    let mut seen = stripe.look_up_disputes(ATTEMPT).await.unwrap();
    assert_eq!(seen.len(), 1);
    seen.remove(0)
}

#[tokio::test]
async fn each_status_of_a_dispute_has_its_state_and_the_balance_says_where_the_money_is() {
    const TAKEN: &str = r#"{"id": "txn_1", "amount": -595, "fee": 1500}"#;
    const BACK: &str = r#"{"id": "txn_1", "amount": -595}, {"id": "txn_2", "amount": 595}"#;
    let table = [
        ("warning_needs_response", "", DisputeState::Inquiry),
        ("warning_under_review", "", DisputeState::Inquiry),
        ("warning_closed", "", DisputeState::Closed),
        ("needs_response", TAKEN, DisputeState::NeedsResponse),
        ("under_review", TAKEN, DisputeState::UnderReview),
        ("won", BACK, DisputeState::Won),
        ("lost", TAKEN, DisputeState::Lost),
        ("something_new", "", DisputeState::Inquiry),
        ("something_new", TAKEN, DisputeState::NeedsResponse),
    ];
    for (status, moved, expected) in table {
        let seen = listed(status, moved).await;
        assert_eq!(seen.stands(), expected, "{status}");
        assert_eq!(seen.withdrawn, !moved.is_empty(), "{status}");
        assert_eq!(seen.reinstated, moved == BACK, "{status}");
        assert_eq!(seen.amount, usd(595));
        assert_eq!(seen.reason, "fraudulent");
        assert_eq!(seen.evidence_due_at_us, Some(1_700_000_000_000_000));
        assert!(!seen.responded);
    }
}

#[tokio::test]
async fn a_dispute_without_an_amount_is_no_answer() {
    let (recorder, stripe) = stripe().await;
    recorder.answer(
        200,
        r#"{"id": "dp_1", "status": "lost", "amount": 0, "currency": "usd"}"#,
    );
    let accept = AcceptDispute {
        reference: "dsp_1-response-1".to_owned(),
        dispute_ref: "dp_1".to_owned(),
    };
    let answer = stripe.accept_dispute(&accept).await;
    assert!(
        matches!(answer, Err(ProviderError::Unknown(_))),
        "{answer:?}"
    );
}

#[tokio::test]
async fn the_charge_of_a_dispute_is_found_by_our_note_or_by_its_metadata() {
    let (recorder, stripe) = stripe().await;
    let intent = format!(
        r#"{{"id": "pi_2", "status": "succeeded", "metadata": {{"reference": "{ATTEMPT}"}}}}"#
    );
    recorder.answer(200, &intent);
    let found = stripe.reference_of("pi_2").await;
    assert_eq!(found, Ok(Some(ATTEMPT.to_owned())), "as its metadata say");
    recorder.answer(200, r#"{"id": "pi_3", "status": "succeeded"}"#);
    assert_eq!(
        stripe.reference_of("pi_3").await,
        Ok(None),
        "somebody else's"
    );
    recorder.answer(200, r#"{"id": "pi_1", "status": "succeeded"}"#);
    stripe.authorize(&authorize()).await.unwrap();
    recorder.take();
    assert_eq!(
        stripe.reference_of("pi_1").await,
        Ok(Some(ATTEMPT.to_owned()))
    );
    assert!(
        recorder.take().is_empty(),
        "what was noted is not asked for"
    );
}

#[tokio::test]
async fn a_file_that_is_not_taken_hands_nothing_in() {
    let (recorder, stripe) = stripe().await;
    let request = SubmitEvidence {
        reference: "dsp_1-response-1".to_owned(),
        dispute_ref: "dp_1".to_owned(),
        evidence: Evidence {
            texts: Vec::new(),
            files: vec![EvidenceFile {
                kind: FileKind::Other,
                content_type: ContentType::Pdf,
                description: String::new(),
                bytes: b"%PDF-1.7".to_vec(),
            }],
        },
    };
    recorder.answer(500, "sorry");
    let lost = stripe.submit_evidence(&request).await;
    assert!(
        matches!(lost, Err(ProviderError::Unavailable(_))),
        "{lost:?}"
    );
    recorder.answer(
        400,
        r#"{"error": {"type": "invalid_request_error", "message": "too large"}}"#,
    );
    let refused = stripe.submit_evidence(&request).await;
    assert!(
        matches!(refused, Err(ProviderError::Refused { .. })),
        "{refused:?}"
    );
    assert_eq!(recorder.take().len(), 2, "nothing was submitted");
}
