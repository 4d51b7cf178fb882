//! What the Stripe adapter sends is what Stripe's own client sends: path, query, body and headers, as recorded by
//! `tests/verify/stripe/record_requests.py` from PyPI's `stripe`.
//!
//! Different are only: the headers that name a client and its connection (the recording leaves them out), the random
//! boundary of an upload, and that a cancellation carries no idempotency key, where the client makes up a random one.

use crate::notes::Notes;
use crate::recorder::{Recorder, Seen};
use kernel::{Currency, Money};
use mesh_runtime::config::Secret;
use payment::dispute::{ContentType, Evidence, EvidenceFile, FileKind, TextKind};
use payment::provider::stripe::{NAME, Stripe, StripeConfig};
use payment::provider::{
    AcceptDispute, Authorize, Capture, Provider as _, References, Refund, SubmitEvidence, Void,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

const GOLDEN: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/verify/stripe/requests.json"
));
const OF_A_CLIENT: [&str; 4] = ["accept-encoding", "content-length", "host", "user-agent"];
const ATTEMPT: &str = "att_01h455vb4pex5vsknk084sn02q";
const CAPTURE: &str = "cap_01h455vb4pex5vsknk084sn02q";
const REFUND: &str = "re_01h455vb4pex5vsknk084sn02q";
const INTENT: &str = r#"{"id": "pi_1", "status": "requires_capture", "created": 1}"#;
const RESPONSE: &str = "dsp_01h455vb4pex5vsknk084sn02q-response-1";
const DISPUTE: &str =
    r#"{"id": "dp_1", "status": "under_review", "amount": 595, "currency": "usd"}"#;
const NOTHING: &str = r#"{"data": [], "has_more": false}"#;

fn golden(operation: &str) -> Seen {
    let all: Value = serde_json::from_str(GOLDEN).unwrap();
    let request = &all[operation];
    let text = |field: &str| request[field].as_str().unwrap().to_owned();
    let headers: BTreeMap<String, String> =
        serde_json::from_value(request["headers"].clone()).unwrap();
    Seen {
        method: text("method"),
        path: text("path"),
        headers,
        body: text("body"),
    }
}

fn without_client(mut seen: Seen) -> Seen {
    seen.headers
        .retain(|name, _| !OF_A_CLIENT.contains(&name.as_str()));
    let content_type = seen.headers.get_mut("content-type");
    let boundary = content_type.and_then(|kind| {
        let (_, boundary) = kind.split_once("boundary=")?;
        let boundary = boundary.to_owned();
        *kind = kind.replace(&boundary, "(boundary)");
        Some(boundary)
    });
    if let Some(boundary) = boundary {
        seen.body = seen.body.replace(&boundary, "(boundary)");
    }
    seen
}

fn usd(amount_minor: i64) -> Money {
    Money::new(Currency::parse("USD").unwrap(), amount_minor).unwrap()
}

fn config(url: &str) -> StripeConfig {
    StripeConfig {
        url: url.to_owned(),
        files_url: url.to_owned(),
        secret_key: Secret::new("sk_test_golden"),
        webhook_secrets: vec![Secret::new("whsec_1")],
        ..StripeConfig::default()
    }
}

fn authorize() -> Authorize {
    Authorize {
        reference: ATTEMPT.to_owned(),
        payment_reference: "pay_01h455vb4pex5vsknk084sn02q".to_owned(),
        amount: usd(1_190),
        payment_method: "pm_card_visa".to_owned(),
        order_ref: "ORDER 1 & 차".to_owned(),
        capture: false,
    }
}

#[tokio::test]
async fn requests_are_those_of_stripes_own_client() {
    let (recorder, url) = Recorder::start().await;
    let notes = Arc::new(Notes::default());
    let simple = Stripe::new(config(&url), notes.clone()).unwrap();
    let in_parts = StripeConfig {
        return_url: "https://shop.example/back?order=1".to_owned(),
        multicapture: true,
        ..config(&url)
    };
    let in_parts = Stripe::new(in_parts, notes.clone()).unwrap();
    let same = |operation: &str| {
        let mut expected = golden(operation);
        if operation == "cancel" {
            expected.headers.remove("idempotency-key");
        }
        let seen: Vec<Seen> = recorder.take().into_iter().map(without_client).collect();
        assert_eq!(seen.last(), Some(&expected), "{operation}");
    };
    let capture = Capture {
        reference: CAPTURE.to_owned(),
        charge_reference: ATTEMPT.to_owned(),
        amount: usd(595),
        last: false,
    };

    recorder.answer(200, NOTHING);
    assert_eq!(simple.look_up_charge(ATTEMPT).await, Ok(None));
    same("search");
    recorder.answer(200, INTENT);
    simple.authorize(&authorize()).await.unwrap();
    same("create");
    recorder.answer(200, INTENT);
    in_parts.authorize(&authorize()).await.unwrap();
    same("create with redirect and multicapture");
    recorder.answer(200, INTENT);
    simple.capture(&capture).await.unwrap();
    same("capture");
    recorder.answer(200, INTENT);
    in_parts.capture(&capture).await.unwrap();
    same("capture a part");
    recorder.answer(200, INTENT);
    let charge_reference = ATTEMPT.to_owned();
    simple.void(&Void { charge_reference }).await.unwrap();
    same("cancel");
    recorder.answer(200, r#"{"id": "re_1", "status": "succeeded"}"#);
    let refund = Refund {
        reference: REFUND.to_owned(),
        charge_reference: ATTEMPT.to_owned(),
        amount: usd(595),
    };
    simple.refund(&refund).await.unwrap();
    same("refund");
    recorder.answer(200, INTENT);
    simple.look_up_charge(ATTEMPT).await.unwrap().unwrap();
    same("retrieve");
    recorder.answer(200, NOTHING);
    assert_eq!(simple.look_up_settlement(REFUND).await, Ok(None));
    same("list refunds");
    recorder.answer(200, NOTHING);
    simple.transactions(Some("txn_1")).await.unwrap();
    same("list transactions");
    recorder.answer(200, NOTHING);
    assert_eq!(simple.look_up_disputes(ATTEMPT).await, Ok(Vec::new()));
    same("list disputes");
    recorder.answer(200, DISPUTE);
    let accept = AcceptDispute {
        reference: RESPONSE.to_owned(),
        dispute_ref: "dp_1".to_owned(),
    };
    simple.accept_dispute(&accept).await.unwrap();
    same("close a dispute");
    assert_eq!(notes.find(NAME, ATTEMPT).await, Ok(Some("pi_1".to_owned())));
}

#[tokio::test]
async fn evidence_is_handed_in_as_stripes_own_client_does_it() {
    let (recorder, url) = Recorder::start().await;
    let stripe = Stripe::new(config(&url), Arc::new(Notes::default())).unwrap();
    let text = |kind, text: &str| (kind, text.to_owned());
    let request = SubmitEvidence {
        reference: RESPONSE.to_owned(),
        dispute_ref: "dp_1".to_owned(),
        evidence: Evidence {
            texts: vec![
                text(TextKind::Explanation, "sent & signed for"),
                text(TextKind::CustomerEmail, "ann@shop.example"),
            ],
            files: vec![EvidenceFile {
                kind: FileKind::Receipt,
                content_type: ContentType::Pdf,
                description: String::new(),
                bytes: b"%PDF-1.7 receipt".to_vec(),
            }],
        },
    };
    recorder.answer(200, r#"{"id": "file_1", "object": "file"}"#);
    recorder.answer(200, DISPUTE);
    stripe.submit_evidence(&request).await.unwrap();
    let seen: Vec<Seen> = recorder.take().into_iter().map(without_client).collect();
    assert_eq!(seen, [golden("upload evidence"), golden("submit evidence")]);
}
