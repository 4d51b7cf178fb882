//! Webhooks of the simulator: how they are signed and checked, and how they are delivered.
//!
//! A webhook carries the header `simulator-signature: t=SECONDS,v1=HEX`, where HEX is the
//! HMAC-SHA256 of `SECONDS.BODY` under the shared secret (the scheme that Stripe made common).
//! Unless `simulator.webhooks_of_all` says so, what is answered at once has no webhook: only charges that
//! were pending, or that waited for the customer, are announced.

use super::entry::{Entry, Operation};
use super::fault::WebhookFault;
use crate::dispute;
use crate::provider::{WebhookError, WebhookEvent};
use async_trait::async_trait;
use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use http::{HeaderMap, HeaderName, HeaderValue};
use kernel::{Invalid, day, text};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// The header that carries the signature.
pub const SIGNATURE_HEADER: HeaderName = HeaderName::from_static("simulator-signature");

/// How far the time in a signature may be from now, either way.
pub const SIGNATURE_AGE_MAX_US: i64 = 300_000_000;
/// The largest body that is read.
pub const BODY_BYTES_MAX: usize = 65_536;
/// How many signatures of one header are tried: more than one while a secret is being changed.
const SIGNATURES_MAX: usize = 8;
const ID_CHARACTERS_MAX: usize = 64;
/// What events about disputes are of.
const DISPUTE: &str = "dispute";

/// A signed webhook, ready to be posted to `/v1/webhooks/simulator`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Content type and signature.
    pub headers: HeaderMap,
    /// JSON.
    pub body: Bytes,
}

/// Where the simulator's webhooks go.
#[async_trait]
pub trait WebhookSender: Send + Sync {
    /// Delivers a webhook. On an error it is sent again later.
    async fn send(&self, webhook: Webhook) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// A webhook that waits for delivery.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) sequence: i64,
    pub(super) body: Vec<u8>,
    pub(super) failures: u32,
    /// It is signed by somebody else, and nobody takes it.
    pub(super) forged: bool,
}

/// A webhook that is put into the queue.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) event_id: String,
    pub(super) body: Vec<u8>,
    pub(super) due_at_us: i64,
    /// What is done to it on purpose.
    pub(super) fault: Option<WebhookFault>,
}

/// What became of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivered {
    Accepted,
    Refused,
}

#[derive(Serialize, Deserialize)]
struct Event {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    reference: String,
    created_at: String,
}

/// The body of an event about an entry; `outcome` as in the journal.
pub(super) fn body(event_id: &str, outcome: &str, entry: &Entry) -> Vec<u8> {
    let subject = match entry.operation {
        Operation::Authorize | Operation::Void => "charge",
        Operation::Capture => "capture",
        Operation::Refund => "refund",
        Operation::Dispute | Operation::Evidence => DISPUTE,
    };
    let reference = if subject == DISPUTE {
        entry.charge_reference.clone()
    } else {
        entry.reference.clone()
    };
    let event = Event {
        id: event_id.to_owned(),
        kind: format!("{subject}.{outcome}"),
        reference,
        created_at: day::to_rfc3339(entry.recorded_at_us),
    };
    serde_json::to_vec(&event).expect("a struct of strings is JSON")
}

/// Signs a body.
pub(super) fn sign(secret: &[u8], body: Vec<u8>, now_us: i64) -> Webhook {
    let seconds = now_us.div_euclid(1_000_000);
    let signature = hex::encode(
        mac(secret, &seconds.to_string(), &body)
            .finalize()
            .into_bytes(),
    );
    let signature = HeaderValue::try_from(format!("t={seconds},v1={signature}"))
        .expect("digits and hexadecimal letters are a header value");
    let json = HeaderValue::from_static("application/json");
    let headers = HeaderMap::from_iter([
        (SIGNATURE_HEADER, signature),
        (http::header::CONTENT_TYPE, json),
    ]);
    Webhook {
        headers,
        body: body.into(),
    }
}

/// Checks a signature and reads the event.
pub(super) fn verify(
    secret: &[u8],
    headers: &HeaderMap,
    body: &[u8],
    now_us: i64,
) -> Result<WebhookEvent, WebhookError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(unreadable(format!(
            "must have at most {BODY_BYTES_MAX} bytes"
        )));
    }
    let header = headers
        .get(SIGNATURE_HEADER)
        .ok_or(WebhookError::Signature(
            "the header simulator-signature is missing",
        ))?;
    let malformed = WebhookError::Signature("the header simulator-signature is malformed");
    let Ok(header) = header.to_str() else {
        return Err(malformed);
    };
    let parts = || {
        header
            .split(',')
            .filter_map(|part| part.trim().split_once('='))
    };
    let Some(seconds_text) = parts().find_map(|(name, value)| (name == "t").then_some(value))
    else {
        return Err(malformed);
    };
    let Ok(seconds) = seconds_text.parse::<i64>() else {
        return Err(malformed);
    };
    let signed = parts()
        .filter(|(name, _)| *name == "v1")
        .take(SIGNATURES_MAX)
        .any(|(_, hex)| {
            hex::decode(hex).is_ok_and(|given| {
                mac(secret, seconds_text, body).verify_slice(&given).is_ok() // In constant time.
            })
        });
    if !signed {
        return Err(WebhookError::Signature("the signature does not match"));
    }
    let age_us = seconds
        .checked_mul(1_000_000)
        .map(|signed_us| signed_us.abs_diff(now_us));
    if age_us.is_none_or(|age_us| age_us > SIGNATURE_AGE_MAX_US.unsigned_abs()) {
        return Err(WebhookError::Signature(
            "the signature is too old, or a clock is wrong",
        ));
    }
    let event: Event =
        serde_json::from_slice(body).map_err(|error| unreadable(error.to_string()))?;
    text::bounded("body.id", &event.id, 1, ID_CHARACTERS_MAX).map_err(WebhookError::Body)?;
    text::bounded("body.reference", &event.reference, 1, ID_CHARACTERS_MAX)
        .map_err(WebhookError::Body)?;
    let of_dispute = event
        .kind
        .split_once('.')
        .is_some_and(|(of, _)| of == DISPUTE);
    Ok(WebhookEvent {
        event_id: event.id,
        reference: if of_dispute {
            dispute::reference_of(&event.reference)
        } else {
            event.reference
        },
        disputed_charge: None,
        signed: true,
    })
}

fn unreadable(reason: String) -> WebhookError {
    WebhookError::Body(Invalid::new("body", reason))
}

fn mac(secret: &[u8], seconds: &str, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(seconds.as_bytes());
    mac.update(b".");
    mac.update(body);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_US: i64 = 1_700_000_000_000_000;
    const SECRET: &[u8] = b"secret";

    fn webhook() -> Webhook {
        let body =
            br#"{"id":"evt_1","type":"charge.captured","reference":"att_1","created_at":""}"#;
        sign(SECRET, body.to_vec(), NOW_US)
    }

    fn header(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(SIGNATURE_HEADER, HeaderValue::from_str(value).unwrap())])
    }

    fn signature(webhook: &Webhook) -> &str {
        webhook.headers[SIGNATURE_HEADER].to_str().unwrap()
    }

    #[test]
    fn a_signed_webhook_is_read() {
        let webhook = webhook();
        let event = verify(SECRET, &webhook.headers, &webhook.body, NOW_US).unwrap();
        assert_eq!(
            event,
            WebhookEvent {
                event_id: "evt_1".into(),
                reference: "att_1".into(),
                disputed_charge: None,
                signed: true,
            }
        );
    }

    #[test]
    fn one_about_a_dispute_names_the_disputes_of_its_charge() {
        let body = br#"{"id":"evt_1","type":"dispute.won","reference":"att_1","created_at":""}"#;
        let webhook = sign(SECRET, body.to_vec(), NOW_US);
        let event = verify(SECRET, &webhook.headers, &webhook.body, NOW_US).unwrap();
        assert_eq!(event.reference, "att_1-disputes");
    }

    #[test]
    fn the_signature_is_the_documented_one() {
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac secret
        let webhook = sign(SECRET, b"{}".to_vec(), NOW_US);
        assert_eq!(
            signature(&webhook),
            "t=1700000000,v1=b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163"
        );
    }

    #[test]
    fn one_of_several_signatures_is_enough() {
        let webhook = webhook();
        let (seconds, right) = signature(&webhook).split_once(',').unwrap();
        let several = header(&format!("{seconds},v1=00,v1=zz,{right}"));
        assert!(verify(SECRET, &several, &webhook.body, NOW_US).is_ok());
        let too_many = header(&format!(
            "{seconds},{}{right}",
            "v1=00,".repeat(SIGNATURES_MAX)
        ));
        assert!(verify(SECRET, &too_many, &webhook.body, NOW_US).is_err());
    }

    #[test]
    fn anything_unsigned_is_refused() {
        let webhook = webhook();
        let refused = |secret: &[u8], headers: &HeaderMap, body: &[u8], now_us: i64| {
            let error = verify(secret, headers, body, now_us).unwrap_err();
            assert!(matches!(error, WebhookError::Signature(_)), "{error}");
        };
        refused(b"other", &webhook.headers, &webhook.body, NOW_US);
        refused(SECRET, &HeaderMap::new(), &webhook.body, NOW_US);
        refused(SECRET, &webhook.headers, b"{}", NOW_US);
        for at_us in [
            NOW_US - 301_000_000,
            NOW_US + 301_000_000,
            i64::MIN,
            i64::MAX,
        ] {
            refused(SECRET, &webhook.headers, &webhook.body, at_us);
        }
        let (_, right) = signature(&webhook).split_once(',').unwrap();
        for value in [
            "",
            "t=",
            "v1=00",
            "t=x,v1=00",
            "t=1700000000",
            &format!("t=1,{right}"),
        ] {
            refused(SECRET, &header(value), &webhook.body, NOW_US);
        }
    }

    #[test]
    fn a_signed_body_that_cannot_be_read_is_named() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"id":"","type":"t","reference":"r","created_at":""}"#,
            r#"{"id":"e","type":"t","reference":"a\u0000b","created_at":""}"#,
            "\u{1}",
        ] {
            let webhook = sign(SECRET, body.as_bytes().to_vec(), NOW_US);
            let error = verify(SECRET, &webhook.headers, &webhook.body, NOW_US).unwrap_err();
            let WebhookError::Body(invalid) = error else {
                panic!("{body}: {error}")
            };
            assert!(invalid.field.starts_with("body"), "{invalid}");
        }
        let webhook = sign(SECRET, vec![b' '; BODY_BYTES_MAX + 1], NOW_US);
        let error = verify(SECRET, &webhook.headers, &webhook.body, NOW_US).unwrap_err();
        assert!(matches!(error, WebhookError::Body(_)));
    }
}
