//! What Stripe's answers mean. A list of cases over one recorder, kept together so that a reader sees whether a case is
//! there.

use crate::notes::Notes;
use crate::recorder::Recorder;
use kernel::{Currency, Money};
use mesh_runtime::config::Secret;
use payment::provider::stripe::{Stripe, StripeConfig};
use payment::provider::{
    Authorize, Capture, ChargeOutcome, Decline, Provider as _, ProviderError, Refund, Settlement,
    SettlementKind, TransactionKind, Void,
};
use std::sync::Arc;

pub(crate) const ATTEMPT: &str = "att_01h455vb4pex5vsknk084sn02q";

pub(crate) async fn stripe() -> (Recorder, Stripe) {
    let (recorder, url) = Recorder::start().await;
    let config = StripeConfig {
        files_url: url.clone(),
        url,
        secret_key: Secret::new("sk_test_1"),
        webhook_secrets: vec![Secret::new("whsec_1")],
        ..StripeConfig::default()
    };
    let stripe = Stripe::new(config, Arc::new(Notes::default())).unwrap();
    (recorder, stripe)
}

pub(crate) fn usd(amount_minor: i64) -> Money {
    Money::new(Currency::parse("USD").unwrap(), amount_minor).unwrap()
}

pub(crate) fn authorize() -> Authorize {
    Authorize {
        reference: ATTEMPT.to_owned(),
        payment_reference: "pay_1".to_owned(),
        amount: usd(1_190),
        payment_method: "pm_card_visa".to_owned(),
        order_ref: "ORDER-1".to_owned(),
        capture: false,
    }
}

fn refund(reference: &str) -> Refund {
    Refund {
        reference: reference.to_owned(),
        charge_reference: ATTEMPT.to_owned(),
        amount: usd(595),
    }
}

fn declined(code: &str, message: &str) -> Decline {
    Decline {
        code: code.to_owned(),
        message: message.to_owned(),
    }
}

#[tokio::test]
async fn each_state_of_an_intent_has_its_outcome() {
    let (recorder, stripe) = stripe().await;
    let provider_ref = "pi_1".to_owned();
    let redirect_url = "https://hooks.stripe.com/3d_secure".to_owned();
    let table = [
        (
            r#""requires_capture", "created": 1000"#,
            ChargeOutcome::Authorized {
                provider_ref: provider_ref.clone(),
                expires_at_us: (1_000 + 7 * 86_400) * 1_000_000,
            },
        ),
        (
            r#""requires_capture", "created": 1000, "latest_charge": {"id": "ch_1", "payment_method_details": {"card": {"capture_before": 2000}}}"#,
            ChargeOutcome::Authorized {
                provider_ref: provider_ref.clone(),
                expires_at_us: 2_000_000_000,
            },
        ),
        (
            r#""succeeded", "latest_charge": "ch_1""#,
            ChargeOutcome::Captured {
                provider_ref: provider_ref.clone(),
            },
        ),
        (r#""processing""#, ChargeOutcome::Pending),
        (r#""something_new""#, ChargeOutcome::Pending),
        (r#""canceled", "amount_received": 0"#, ChargeOutcome::Voided),
        (
            r#""canceled", "amount_received": 595"#,
            ChargeOutcome::Captured {
                provider_ref: provider_ref.clone(),
            },
        ),
        (
            r#""succeeded", "latest_charge": {"id": "ch_1", "amount_refunded": 594, "refunded": false}"#,
            ChargeOutcome::Captured { provider_ref },
        ),
        // On the dashboard, perhaps.
        (
            r#""succeeded", "latest_charge": {"id": "ch_1", "amount_refunded": 595, "refunded": true}"#,
            ChargeOutcome::Voided,
        ),
        (
            r#""requires_action", "next_action": {"type": "redirect_to_url", "redirect_to_url": {"url": "https://hooks.stripe.com/3d_secure"}}"#,
            ChargeOutcome::ActionRequired { redirect_url },
        ),
        (
            r#""requires_action", "next_action": {"type": "use_stripe_sdk"}"#,
            ChargeOutcome::Declined(declined(
                "AUTHENTICATION_FAILED",
                "the customer would have to authenticate, and there is no page for it",
            )),
        ),
        (
            r#""requires_payment_method", "last_payment_error": {"type": "card_error", "code": "payment_intent_authentication_failure"}"#,
            ChargeOutcome::Declined(declined(
                "AUTHENTICATION_FAILED",
                "the customer did not authenticate",
            )),
        ),
    ];
    for (status, expected) in table {
        recorder.answer(
            200,
            &format!(r#"{{"id": "pi_1", "object": "payment_intent", "status": {status}}}"#),
        );
        assert_eq!(
            stripe.authorize(&authorize()).await,
            Ok(expected.clone()),
            "{status}"
        );
        recorder.answer(
            200,
            &format!(r#"{{"id": "pi_1", "object": "payment_intent", "status": {status}}}"#),
        );
        assert_eq!(
            stripe.look_up_charge(ATTEMPT).await,
            Ok(Some(expected)),
            "{status}"
        );
    }
}

#[tokio::test]
async fn each_kind_of_error_says_whether_money_may_have_moved() {
    const UNAVAILABLE: &str = "unavailable";
    const UNKNOWN: &str = "unknown";
    const REFUSED: &str = "refused";
    const DECLINED: &str = "declined";
    let table = [
        (
            401,
            r#"{"error": {"type": "invalid_request_error", "message": "Invalid API Key"}}"#,
            UNAVAILABLE,
        ),
        (
            403,
            r#"{"error": {"type": "invalid_request_error", "message": "no permission"}}"#,
            UNAVAILABLE,
        ),
        (
            429,
            r#"{"error": {"type": "invalid_request_error", "code": "rate_limit"}}"#,
            UNAVAILABLE,
        ),
        (
            409,
            r#"{"error": {"type": "idempotency_error", "message": "in progress"}}"#,
            UNKNOWN,
        ),
        (
            400,
            r#"{"error": {"type": "idempotency_error", "message": "other parameters"}}"#,
            UNKNOWN,
        ),
        (
            500,
            r#"{"error": {"type": "api_error", "message": "sorry"}}"#,
            UNKNOWN,
        ),
        (503, "busy", UNKNOWN),
        (404, "<html>not found</html>", UNKNOWN),
        (402, "payment required, says a proxy", UNKNOWN),
        (200, "{", UNKNOWN),
        (
            400,
            r#"{"error": {"type": "invalid_request_error", "code": "parameter_invalid", "message": "no"}}"#,
            REFUSED,
        ),
        (
            402,
            r#"{"error": {"type": "card_error", "code": "card_declined", "decline_code": "stolen_card"}}"#,
            DECLINED,
        ),
    ];
    for (status, body, expected) in table {
        let (recorder, stripe) = stripe().await;
        recorder.answer(status, body);
        let kind = match stripe.authorize(&authorize()).await {
            Err(ProviderError::Unavailable(_)) => UNAVAILABLE,
            Err(ProviderError::Unknown(_)) => UNKNOWN,
            Err(ProviderError::Refused { .. }) => REFUSED,
            Ok(ChargeOutcome::Declined(decline)) => {
                assert_eq!(
                    decline,
                    declined("CARD_DECLINED", "the card was declined"),
                    "nothing of a stolen card"
                );
                DECLINED
            }
            Ok(other) => panic!("{status} {body}: {other:?}"),
        };
        assert_eq!(kind, expected, "{status} {body}");
    }
}

#[tokio::test]
async fn a_declined_charge_is_found_again_by_its_intent() {
    let (recorder, stripe) = stripe().await;
    recorder.answer(
        402,
        r#"{"error": {"type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds",
            "payment_intent": {"id": "pi_7", "status": "requires_payment_method"}}}"#,
    );
    let expected = declined(
        "INSUFFICIENT_FUNDS",
        "there is not enough money, or a limit is reached",
    );
    assert_eq!(
        stripe.authorize(&authorize()).await,
        Ok(ChargeOutcome::Declined(expected))
    );
    recorder.answer(200, r#"{"id": "pi_7", "status": "canceled"}"#);
    stripe.look_up_charge(ATTEMPT).await.unwrap();
    let asked = recorder.take().pop().unwrap().path;
    assert!(asked.starts_with("/v1/payment_intents/pi_7?"), "{asked}");
}

#[tokio::test]
async fn a_charge_whose_answer_was_lost_is_searched_for_by_our_reference() {
    let (recorder, stripe) = stripe().await;
    recorder.answer(
        200,
        r#"{"data": [{"id": "pi_3", "status": "requires_capture", "created": 1}]}"#,
    );
    recorder.answer(
        200,
        r#"{"id": "pi_3", "status": "requires_capture", "created": 1}"#,
    );
    let found = stripe.look_up_charge(ATTEMPT).await.unwrap().unwrap();
    assert!(
        matches!(found, ChargeOutcome::Authorized { .. }),
        "{found:?}"
    );
    let paths: Vec<String> = recorder.take().into_iter().map(|seen| seen.path).collect();
    assert!(
        paths[0].starts_with("/v1/payment_intents/search?query="),
        "{paths:?}"
    );
    // The next question needs no search; and one that is not answered says nothing.
    recorder.answer(500, r#"{"error": {"type": "api_error"}}"#);
    let failed = stripe.look_up_charge(ATTEMPT).await;
    assert!(
        matches!(failed, Err(ProviderError::Unavailable(_))),
        "{failed:?}"
    );
}

#[tokio::test]
async fn a_refund_is_found_among_those_of_its_intent() {
    let (recorder, stripe) = stripe().await;
    recorder.answer(200, r#"{"id": "pi_1", "status": "succeeded"}"#);
    stripe.authorize(&authorize()).await.unwrap();
    recorder.answer(500, r#"{"error": {"type": "api_error"}}"#);
    let lost = stripe.refund(&refund("re_1")).await;
    assert!(matches!(lost, Err(ProviderError::Unknown(_))), "{lost:?}");
    let page =
        |more: bool, refunds: &str| format!(r#"{{"data": [{refunds}], "has_more": {more}}}"#);
    recorder.answer(
        200,
        &page(
            true,
            r#"{"id": "re_x", "status": "succeeded", "metadata": {"reference": "re_9"}}"#,
        ),
    );
    recorder.answer(
        200,
        &page(
            false,
            r#"{"id": "re_y", "status": "pending", "metadata": {"reference": "re_1"}}"#,
        ),
    );
    assert_eq!(
        stripe.look_up_settlement("re_1").await,
        Ok(Some(Settlement::Pending))
    );
    let last = recorder.take().pop().unwrap().path;
    assert!(last.ends_with("&limit=100&starting_after=re_x"), "{last}");
    assert_eq!(
        stripe.look_up_settlement("re_unsent").await,
        Ok(None),
        "it was never sent, which takes no question"
    );

    // All of it is refunded already: by this very refund, whose answer was lost long ago.
    recorder.answer(
        400,
        r#"{"error": {"type": "invalid_request_error", "code": "charge_already_refunded"}}"#,
    );
    recorder.answer(
        200,
        &page(
            false,
            r#"{"id": "re_y", "status": "succeeded", "metadata": {"reference": "re_1"}}"#,
        ),
    );
    let done = Settlement::Done {
        provider_ref: "re_y".to_owned(),
    };
    assert_eq!(stripe.refund(&refund("re_1")).await, Ok(done));
}

#[tokio::test]
async fn a_charge_that_the_search_does_not_find_yet_is_captured_later() {
    let (recorder, stripe) = stripe().await;
    recorder.answer(200, r#"{"data": []}"#);
    let capture = Capture {
        reference: "cap_01h455vb4pex5vsknk084sn02q".to_owned(),
        charge_reference: ATTEMPT.to_owned(),
        amount: usd(595),
        last: true,
    };
    let later = stripe.capture(&capture).await;
    assert!(
        matches!(later, Err(ProviderError::Unavailable(_))),
        "{later:?}"
    );
}

#[tokio::test]
async fn captures_and_voids_go_by_what_the_intent_says() {
    let (recorder, stripe) = stripe().await;
    let capture = Capture {
        reference: "cap_01h455vb4pex5vsknk084sn02q".to_owned(),
        charge_reference: ATTEMPT.to_owned(),
        amount: usd(595),
        last: true,
    };
    let void = Void {
        charge_reference: ATTEMPT.to_owned(),
    };
    let done = Settlement::Done {
        provider_ref: "pi_1".to_owned(),
    };
    let unexpected = |status: &str| {
        format!(
            r#"{{"error": {{"type": "invalid_request_error", "code": "payment_intent_unexpected_state", "payment_intent": {{"id": "pi_1", "status": "{status}"}}}}}}"#
        )
    };
    recorder.answer(
        200,
        r#"{"id": "pi_1", "status": "requires_capture", "created": 1}"#,
    );
    stripe.authorize(&authorize()).await.unwrap();

    recorder.answer(400, &unexpected("succeeded"));
    let captured = stripe.capture(&capture).await;
    assert!(
        matches!(captured, Err(ProviderError::Unknown(_))),
        "to be asked: {captured:?}"
    );
    recorder.answer(200, r#"{"id": "pi_1", "status": "succeeded"}"#);
    assert_eq!(
        stripe.look_up_settlement(&capture.reference).await,
        Ok(Some(done.clone()))
    );
    recorder.answer(200, r#"{"id": "pi_1", "status": "requires_capture"}"#);
    assert_eq!(
        stripe.look_up_settlement(&capture.reference).await,
        Ok(None)
    );
    recorder.answer(400, &unexpected("canceled"));
    assert!(matches!(
        stripe.capture(&capture).await,
        Ok(Settlement::Declined(_))
    ));

    recorder.answer(400, &unexpected("canceled"));
    assert_eq!(stripe.void(&void).await, Ok(done), "it is canceled already");
    recorder.answer(400, &unexpected("succeeded"));
    assert!(
        matches!(stripe.void(&void).await, Ok(Settlement::Declined(_))),
        "only a refund helps"
    );
}

#[tokio::test]
async fn transactions_are_customers_money_only() {
    let (recorder, stripe) = stripe().await;
    recorder.answer(
        200,
        r#"{"has_more": true, "data": [
            {"id": "txn_3", "type": "refund", "amount": -595, "currency": "usd", "created": 3, "source": {"metadata": {"reference": "re_1"}}},
            {"id": "txn_2", "type": "stripe_fee", "amount": -30, "currency": "usd", "created": 2, "source": null},
            {"id": "txn_1", "type": "charge", "amount": 1190, "currency": "usd", "created": 1, "source": {"metadata": {"reference": "att_1", "order_ref": "O-1"}}}]}"#,
    );
    let page = stripe.transactions(None).await.unwrap();
    let told: Vec<_> = page
        .transactions
        .iter()
        .map(|t| (t.kind, t.reference.as_str(), t.amount))
        .collect();
    assert_eq!(
        told,
        [
            (TransactionKind::Refund, "re_1", usd(595)),
            (TransactionKind::Capture, "att_1", usd(1_190))
        ]
    );
    assert_eq!(page.next.as_deref(), Some("txn_1"));
}

#[tokio::test]
async fn fees_and_payouts_are_read_from_the_balance() {
    let (recorder, stripe) = stripe().await;
    recorder.answer(
        200,
        r#"{"has_more": true, "data": [
            {"id": "txn_6", "type": "payout_failure", "amount": 500, "fee": 0, "currency": "usd", "created": 86406, "source": {"id": "po_0", "arrival_date": 86400, "metadata": {}}},
            {"id": "txn_5", "type": "payout", "amount": -1126, "fee": 0, "currency": "usd", "created": 86405, "source": {"id": "po_1", "arrival_date": 172800, "metadata": {}}},
            {"id": "txn_8", "type": "stripe_fx_fee", "amount": -7, "fee": 0, "currency": "usd", "created": 5, "source": null},
            {"id": "txn_7", "type": "tax_fee", "amount": -19, "fee": 0, "currency": "usd", "created": 5, "source": null},
            {"id": "txn_4", "type": "stripe_fee", "amount": -30, "fee": 0, "currency": "usd", "created": 4, "source": null},
            {"id": "txn_3", "type": "refund", "amount": -595, "fee": -10, "currency": "usd", "created": 3, "source": {"id": "re_1", "metadata": {"reference": "re_x"}}},
            {"id": "txn_1", "type": "charge", "amount": 1190, "fee": 64, "currency": "usd", "created": 1, "source": {"id": "ch_1", "metadata": {"reference": "att_1"}}}]}"#,
    );
    let since = stripe.since(1_000_000);
    let page = stripe.settlements(Some(&since)).await.unwrap();
    let told: Vec<_> = page
        .lines
        .iter()
        .map(|line| {
            let (kind, amount) = (line.kind, line.amount.amount_minor());
            let (reference, payout) = (line.reference.as_str(), line.payout.as_str());
            (
                line.id.as_str(),
                kind,
                amount,
                reference,
                payout,
                line.arrival_day.as_str(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (
                "txn_6",
                SettlementKind::Payout,
                -500,
                "",
                "po_0",
                "1970-01-02"
            ),
            (
                "txn_5",
                SettlementKind::Payout,
                1_126,
                "",
                "po_1",
                "1970-01-03"
            ),
            ("txn_8", SettlementKind::Fee, 7, "", "", ""),
            ("txn_7", SettlementKind::Fee, 19, "", "", ""),
            ("txn_4", SettlementKind::Fee, 30, "", "", ""),
            ("txn_3", SettlementKind::Fee, -10, "re_x", "", ""),
            ("txn_1", SettlementKind::Fee, 64, "att_1", "", ""),
        ]
    );
    recorder.answer(200, r#"{"has_more": false, "data": []}"#);
    let rest = stripe.settlements(page.next.as_deref()).await.unwrap();
    assert_eq!((rest.lines.len(), rest.next), (0, None));
    recorder.answer(200, r#"{"has_more": false, "data": []}"#);
    stripe.transactions(Some(&since)).await.unwrap();
    let asked: Vec<String> = recorder.take().into_iter().map(|seen| seen.path).collect();
    let list = "/v1/balance_transactions?limit=100&created%5Bgte%5D=1";
    assert_eq!(
        asked,
        [
            format!("{list}&expand%5B0%5D=data.source"),
            format!("{list}&starting_after=txn_1&expand%5B0%5D=data.source"),
            format!("{list}&expand%5B0%5D=data.source"),
        ]
    );
}

#[tokio::test]
async fn a_missing_key_is_named() {
    let without = StripeConfig::default();
    let error = Stripe::new(without, Arc::new(Notes::default()))
        .err()
        .unwrap()
        .to_string();
    assert_eq!(
        error,
        "stripe.secret_key: is needed, or stripe.secret_key_file: provider \"stripe\" is configured"
    );
    let half = StripeConfig {
        secret_key: Secret::new("sk_1"),
        ..StripeConfig::default()
    };
    let error = Stripe::new(half, Arc::new(Notes::default()))
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.starts_with("stripe.webhook_secrets: is needed"),
        "{error}"
    );
}
