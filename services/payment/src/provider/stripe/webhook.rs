//! Stripe's webhooks: verified, and read for nothing but which of our references they are about. What happened to
//! it is then asked, so that late, repeated and reordered deliveries are all the same.

use super::messages::{Event, Named, REFERENCE};
use super::signature;
use crate::provider::{WebhookError, WebhookEvent};
use http::HeaderMap;
use kernel::{Invalid, text};
use mesh_runtime::config::Secret;

const SIGNATURE_HEADER: &str = "stripe-signature";
const ID_CHARACTERS_MAX: usize = 255;
/// What the object of an event about a dispute is.
const DISPUTE: &str = "dispute";

pub(super) fn verify(
    secrets: &[Secret],
    headers: &HeaderMap,
    body: &[u8],
    tolerance_us: i64,
    now_us: i64,
) -> Result<WebhookEvent, WebhookError> {
    let missing = WebhookError::Signature("the header stripe-signature is missing");
    let header = headers.get(SIGNATURE_HEADER).ok_or(missing)?;
    let unreadable = WebhookError::Signature("the header stripe-signature is malformed");
    let header = header.to_str().map_err(|_| unreadable)?;
    signature::verify(header, body, secrets, tolerance_us, now_us)
        .map_err(WebhookError::Signature)?;
    let event: Event = serde_json::from_slice(body)
        .map_err(|error| WebhookError::Body(Invalid::new("body", error.to_string())))?;
    text::bounded("body.id", &event.id, 1, ID_CHARACTERS_MAX).map_err(WebhookError::Body)?;
    let object = event.data.object;
    let mut metadata = object.metadata.unwrap_or_default();
    // A dispute has metadata of its own, which is not that of its charge.
    let of_dispute = object.object == DISPUTE;
    let reference = metadata.remove(REFERENCE).filter(|_| !of_dispute);
    Ok(WebhookEvent {
        event_id: event.id,
        reference: reference.unwrap_or_default(),
        disputed_charge: object.payment_intent.filter(|_| of_dispute).map(Named::id),
        signed: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    const NOW_US: i64 = 1_700_000_000_000_000;

    fn received(body: &str) -> Result<WebhookEvent, WebhookError> {
        let secret = Secret::new("whsec_1");
        let seconds = NOW_US / 1_000_000;
        let signed = signature::sign(&secret, seconds, body.as_bytes());
        let header = format!("t={seconds},v1={signed}").parse().unwrap();
        let headers =
            HeaderMap::from_iter([(http::HeaderName::from_static(SIGNATURE_HEADER), header)]);
        verify(&[secret], &headers, body.as_bytes(), 300_000_000, NOW_US)
    }

    #[test]
    fn an_event_names_what_it_is_about() {
        let body = |metadata: &str| {
            format!(
                r#"{{"id":"evt_1","type":"payment_intent.succeeded","data":{{"object":{{"id":"pi_1"{metadata}}}}}}}"#
            )
        };
        let event = received(&body(r#","metadata":{"reference":"att_1"}"#)).unwrap();
        assert_eq!(
            (event.event_id.as_str(), event.reference.as_str()),
            ("evt_1", "att_1")
        );
        for others in [
            "",
            r#","metadata":null"#,
            r#","metadata":{"reference_of":"x"}"#,
        ] {
            assert_eq!(received(&body(others)).unwrap().reference, "", "{others}");
        }
    }

    #[test]
    fn one_about_a_dispute_names_the_intent_of_its_charge() {
        let body = |intent: &str| {
            format!(
                r#"{{"id":"evt_1","type":"charge.dispute.created","data":{{"object":{{"id":"dp_1","object":"dispute","metadata":{{"reference":"att_1"}}{intent}}}}}}}"#
            )
        };
        for intent in [
            r#","payment_intent":"pi_1""#,
            r#","payment_intent":{"id":"pi_1","object":"payment_intent"}"#,
        ] {
            let event = received(&body(intent)).unwrap();
            assert_eq!(event.disputed_charge.as_deref(), Some("pi_1"), "{intent}");
            assert_eq!(event.reference, "");
        }
        for intent in ["", r#","payment_intent":null"#] {
            assert_eq!(received(&body(intent)).unwrap().disputed_charge, None);
        }
        let refund = r#"{"id":"evt_1","data":{"object":{"id":"re_1","object":"refund","payment_intent":"pi_1","metadata":{"reference":"re_x"}}}}"#;
        let event = received(refund).unwrap();
        assert_eq!(
            (event.reference.as_str(), event.disputed_charge),
            ("re_x", None)
        );
    }

    #[test]
    fn a_signed_body_that_is_no_event_is_named() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"id":"","data":{"object":{}}}"#,
            r#"{"id":"e"}"#,
        ] {
            let error = received(body).unwrap_err();
            assert!(matches!(error, WebhookError::Body(_)), "{body}: {error}");
        }
    }

    #[test]
    fn without_a_header_nothing_is_read() {
        let error = verify(&[], &HeaderMap::new(), b"{}", 1, NOW_US).unwrap_err();
        assert!(matches!(error, WebhookError::Signature(_)), "{error}");
    }

    /// A webhook as `tests/verify/stripe/judge_webhooks.py` made it, and what PyPI's `stripe` makes of it.
    #[derive(serde::Deserialize)]
    struct Case {
        header: String,
        body: String,
        accepted: bool,
    }

    #[test]
    fn a_thousand_webhooks_are_judged_as_stripes_own_library_judges_them() {
        const CASES: &str = include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/verify/stripe/webhooks.jsonl"
        ));
        let secrets = ["whsec_new", "whsec_old"].map(Secret::new);
        let mut judged = 0;
        for line in CASES.lines() {
            let case: Case = serde_json::from_str(line).unwrap();
            let body = STANDARD.decode(&case.body).unwrap();
            let header = case.header.parse().unwrap();
            let name = http::HeaderName::from_static(SIGNATURE_HEADER);
            let headers = HeaderMap::from_iter([(name, header)]);
            let verdict = verify(&secrets, &headers, &body, 300_000_000, NOW_US);
            assert_eq!(verdict.is_ok(), case.accepted, "{line}: {verdict:?}");
            judged += 1;
        }
        assert_eq!(judged, 1_000);
    }

    #[test]
    fn what_is_signed_here_is_what_stripes_own_library_signs() {
        // stripe.WebhookSignature.generate_signature_header('{"id":"evt_1"}', "whsec_1", 1700000000)
        let signed = signature::sign(&Secret::new("whsec_1"), 1_700_000_000, br#"{"id":"evt_1"}"#);
        assert_eq!(
            signed,
            "86d9cb9088d7cce050b0134e2d515d0fc05e8c00073612d3451480c6291f4dcd"
        );
    }
}
