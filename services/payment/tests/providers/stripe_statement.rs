//! What moved customers' money at Stripe: what banks did, and what was sold in a currency that is not the balance's.

use crate::stripe::{ATTEMPT, authorize, stripe, usd};
use payment::provider::{Provider as _, TransactionKind};

#[tokio::test]
async fn what_banks_did_is_listed_by_stripes_own_names() {
    let (recorder, stripe) = stripe().await;
    recorder.answer(200, r#"{"id": "pi_1", "status": "succeeded"}"#);
    stripe.authorize(&authorize()).await.unwrap();
    recorder.answer(
        200,
        r#"{"has_more": false, "data": [
            {"id": "txn_6", "type": "adjustment", "amount": 5, "currency": "usd", "created": 6, "source": {"id": "xx_1", "object": "other"}},
            {"id": "txn_5", "type": "adjustment", "amount": 595, "currency": "usd", "created": 5, "source": {"id": "dp_1", "object": "dispute", "amount": 595, "currency": "usd", "payment_intent": "pi_1", "metadata": {"reference": "its own"}}},
            {"id": "txn_4", "type": "adjustment", "amount": -595, "fee": 1500, "currency": "usd", "created": 4, "source": {"id": "dp_1", "object": "dispute", "amount": 595, "currency": "usd", "payment_intent": {"id": "pi_1"}, "metadata": {}}},
            {"id": "txn_3", "type": "adjustment", "amount": -10, "currency": "usd", "created": 3, "source": {"id": "dp_2", "object": "dispute", "amount": 10, "currency": "usd", "payment_intent": "pi_9"}},
            {"id": "txn_2", "type": "refund_failure", "amount": 100, "currency": "usd", "created": 2, "source": {"id": "re_1", "object": "refund", "amount": 100, "currency": "usd", "metadata": {"reference": "re_x"}}}]}"#,
    );
    recorder.answer(200, r#"{"id": "pi_9", "status": "succeeded"}"#);
    let page = stripe.transactions(None).await.unwrap();
    let told: Vec<_> = page
        .transactions
        .iter()
        .map(|line| {
            let (reference, charge) = (line.reference.as_str(), line.charge_reference.as_str());
            (line.id.as_str(), line.kind, reference, charge, line.amount)
        })
        .collect();
    let (taken, won) = (TransactionKind::Dispute, TransactionKind::DisputeReversal);
    assert_eq!(
        told,
        [
            ("txn_5", won, "dp_1", ATTEMPT, usd(595)),
            ("txn_4", taken, "dp_1", ATTEMPT, usd(595)),
            ("txn_3", taken, "dp_2", "", usd(10)),
            (
                "txn_2",
                TransactionKind::RefundReversal,
                "re_x",
                "",
                usd(100)
            ),
        ]
    );
}

#[tokio::test]
async fn what_was_sold_in_another_currency_is_listed_in_it() {
    let (recorder, stripe) = stripe().await;
    recorder.answer(
        200,
        r#"{"has_more": false, "data": [
            {"id": "txn_3", "type": "refund", "amount": -460, "currency": "eur", "created": 3, "source": {"id": "re_1", "object": "refund", "amount": 500, "currency": "usd", "metadata": {"reference": "re_x"}}},
            {"id": "txn_2", "type": "charge", "amount": 920, "currency": "eur", "created": 2, "source": {"id": "ch_1", "object": "charge", "amount": 1200, "amount_captured": 1000, "currency": "usd", "metadata": {"reference": "att_1"}}},
            {"id": "txn_1", "type": "charge", "amount": 700, "currency": "usd", "created": 1, "source": {"id": "ch_0", "object": "charge", "amount": 1000, "amount_captured": 1000, "currency": "usd", "metadata": {"reference": "att_0"}}}]}"#,
    );
    let page = stripe.transactions(None).await.unwrap();
    let told: Vec<_> = page
        .transactions
        .iter()
        .map(|line| (line.id.as_str(), line.amount))
        .collect();
    let expected = [
        ("txn_3", usd(500)),
        ("txn_2", usd(1_000)),
        ("txn_1", usd(700)), // One of several captures: what moved, not their sum.
    ];
    assert_eq!(told, expected);
}
