//! Events in: what payments say was sold and given back, and what of that came back.
//!
//! Additive, so each message id is applied once and none is dropped, in whatever order they come. A
//! product that is not known here is counted all the same: it may have been removed, or come later.

use std::sync::Arc;

use async_trait::async_trait;
use mesh_events::{Event, Handler, HandlerError, Subscription};
use mesh_runtime::Clock;
use prost::Message as _;
use proto::commerce::payment::v1 as payment;

use crate::store::{SalesEntry, SalesEvent, Store};

/// The name of the consumer: of its queue and in the inbox.
pub const NAME: &str = "product";
const CAPTURED: &str = "payment.PaymentCaptured.v1";
const REFUNDED: &str = "payment.RefundSucceeded.v1";
const REFUND_FAILED: &str = "payment.RefundFailed.v1";
/// The kinds of event that it takes.
pub const KINDS: [&str; 3] = [CAPTURED, REFUNDED, REFUND_FAILED];

/// What it asks of a bus, up to `concurrency_max` events at a time.
pub fn subscription(concurrency_max: usize) -> Subscription {
    Subscription {
        consumer: NAME.to_owned(),
        kinds: KINDS.map(str::to_owned).to_vec(),
        prefetch: concurrency_max,
    }
}

/// Adds up sales.
pub struct SalesHandler {
    store: Arc<dyn Store>,
    clock: Clock,
}

impl SalesHandler {
    /// A handler that adds to this store.
    pub fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        Self { store, clock }
    }
}

#[async_trait]
impl Handler for SalesHandler {
    async fn handle(&self, event: &Event) -> Result<(), HandlerError> {
        let sales = SalesEvent {
            consumer: NAME.to_owned(),
            message_id: event.message_id,
            entries: entries(event)?,
        };
        let applied = self.store.add_sales(&sales, self.clock.now_us()).await;
        let first = applied.map_err(HandlerError::transient)?;
        tracing::debug!(message.id = %event.message_id, first, "sales added");
        Ok(())
    }
}

fn entries(event: &Event) -> Result<Vec<SalesEntry>, HandlerError> {
    let poison = |error: prost::DecodeError| HandlerError::Poison(error.to_string());
    let (lines, sign) = match event.kind.as_str() {
        CAPTURED => {
            let captured = payment::PaymentCaptured::decode(event.body.clone()).map_err(poison)?;
            (captured.lines, 1)
        }
        REFUNDED => {
            let refunded = payment::RefundSucceeded::decode(event.body.clone()).map_err(poison)?;
            (refunded.lines, -1)
        }
        // Without lines where nothing had been taken away. Stock is not touched: whether goods came back is not known here.
        REFUND_FAILED => {
            let failed = payment::RefundFailed::decode(event.body.clone()).map_err(poison)?;
            (failed.lines, 1)
        }
        other => return Err(HandlerError::Poison(format!("unexpected kind {other}"))),
    };
    lines.into_iter().map(|line| entry(line, sign)).collect()
}

fn entry(line: payment::SaleLine, sign: i64) -> Result<SalesEntry, HandlerError> {
    let poison = |reason: &str| HandlerError::Poison(format!("line of SKU {}: {reason}", line.sku));
    let amount = line
        .amount
        .as_ref()
        .ok_or_else(|| poison("has no amount"))?;
    if line.product_id.is_empty() {
        return Err(poison("has no product"));
    }
    if kernel::Currency::parse(&amount.currency_code).is_err() {
        return Err(poison("has an unknown currency"));
    }
    if line.quantity < 0
        || amount.amount_minor < 0
        || amount.amount_minor > kernel::AMOUNT_MINOR_MAX
    {
        return Err(poison("has a quantity or an amount out of range"));
    }
    Ok(SalesEntry {
        product_id: line.product_id.clone(),
        currency_code: amount.currency_code.clone(),
        quantity: sign * i64::from(line.quantity),
        amount_minor: sign * amount.amount_minor,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::commerce::money::v1::Money;

    fn line(quantity: i32, amount_minor: i64) -> payment::SaleLine {
        payment::SaleLine {
            product_id: "prd_x".into(),
            sku: "A".into(),
            category: "Tea".into(),
            quantity,
            amount: Some(Money {
                currency_code: "KRW".into(),
                amount_minor,
            }),
        }
    }

    fn event(kind: &str, body: Vec<u8>) -> Event {
        Event::new(kind, "pay_x", 1, 0, body)
    }

    #[test]
    fn captures_add_and_refunds_take_away() {
        let captured = payment::PaymentCaptured {
            lines: vec![line(2, 500)],
            ..Default::default()
        };
        let added = entries(&event(CAPTURED, captured.encode_to_vec())).unwrap();
        assert_eq!((added[0].quantity, added[0].amount_minor), (2, 500));
        let refunded = payment::RefundSucceeded {
            lines: vec![line(0, 200)],
            ..Default::default()
        };
        let taken = entries(&event(REFUNDED, refunded.encode_to_vec())).unwrap();
        assert_eq!((taken[0].quantity, taken[0].amount_minor), (0, -200));
        assert_eq!(taken[0].currency_code, "KRW");
    }

    #[test]
    fn a_refund_that_came_back_adds_what_it_took_away_and_one_that_was_refused_nothing() {
        let reversed = payment::RefundFailed {
            reversed: true,
            lines: vec![line(1, 200)],
            ..Default::default()
        };
        let added = entries(&event(REFUND_FAILED, reversed.encode_to_vec())).unwrap();
        assert_eq!((added[0].quantity, added[0].amount_minor), (1, 200));
        let refused = payment::RefundFailed::default();
        let none = entries(&event(REFUND_FAILED, refused.encode_to_vec())).unwrap();
        assert!(none.is_empty());
    }

    #[test]
    fn what_can_never_be_applied_is_poison() {
        let negative = payment::PaymentCaptured {
            lines: vec![line(-1, 5)],
            ..Default::default()
        };
        for event in [
            event(CAPTURED, vec![0xff]),
            event("payment.Other.v1", vec![]),
            event(CAPTURED, negative.encode_to_vec()),
        ] {
            assert!(
                matches!(entries(&event), Err(HandlerError::Poison(_))),
                "{event:?}"
            );
        }
    }
}
