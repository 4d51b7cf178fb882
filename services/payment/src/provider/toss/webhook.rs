//! Toss Payments' webhooks about payments, which are not signed: no more than a hint that something may have
//! changed. What has is asked of Toss, so a forged one costs a question at most, and only about a payment that
//! its sender can name.

use super::messages::Webhook;
use crate::provider::{WebhookError, WebhookEvent};
use kernel::{Invalid, text};

const ORDER_ID_CHARACTERS_MAX: usize = 64;

/// Hints about one order within so many microseconds are one: Toss gives its webhooks no id, and whoever can send one could
/// choose any other, so that each would be kept, and asked about.
const HINT_US: i64 = 10_000_000;

/// Reads `PAYMENT_STATUS_CHANGED` and `DEPOSIT_CALLBACK`; other events are about nothing of ours.
pub(super) fn read(body: &[u8], now_us: i64) -> Result<WebhookEvent, WebhookError> {
    let webhook: Webhook = serde_json::from_slice(body)
        .map_err(|error| WebhookError::Body(Invalid::new("body", error.to_string())))?;
    let order_id = webhook
        .data
        .and_then(|data| data.order_id)
        .or(webhook.order_id);
    let reference = order_id.unwrap_or_default();
    text::bounded("body.orderId", &reference, 0, ORDER_ID_CHARACTERS_MAX)
        .map_err(WebhookError::Body)?;
    Ok(WebhookEvent {
        event_id: format!("hint_{reference}_{}", now_us / HINT_US),
        reference,
        disputed_charge: None,
        signed: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_name_their_order_and_others_name_none() {
        for body in [
            r#"{"eventType":"PAYMENT_STATUS_CHANGED","createdAt":"2026-01-01T00:00:00.000","data":{"orderId":"pay_1","status":"DONE"}}"#,
            r#"{"createdAt":"2026-01-01T00:00:00.000","secret":"s","status":"DONE","transactionKey":"t","orderId":"pay_1"}"#,
        ] {
            let event = read(body.as_bytes(), 1).unwrap();
            assert_eq!((event.reference.as_str(), event.signed), ("pay_1", false));
            assert_eq!(
                event,
                read(format!("{body} ").as_bytes(), HINT_US - 1).unwrap(),
                "one hint about an order at a time"
            );
            assert_ne!(event, read(body.as_bytes(), HINT_US).unwrap());
        }
        let other = read(
            br#"{"eventType":"METHOD_UPDATED","data":{"customerKey":"c"}}"#,
            1,
        )
        .unwrap();
        assert_eq!(other.reference, "");
    }

    #[test]
    fn what_is_no_event_is_named() {
        let long = format!(r#"{{"orderId":"{}"}}"#, "x".repeat(65));
        for body in ["", "[]", "1", r#"{"orderId":1}"#, &long] {
            assert!(
                matches!(read(body.as_bytes(), 1), Err(WebhookError::Body(_))),
                "{body}"
            );
        }
    }
}
