//! Events as protobuf: the kind, whether somebody must take it, and the body.

use super::{disputes, minor, money, payment as whole, timestamp};
use crate::fact::{Fact, Reversed};
use crate::failure::Failure;
use crate::ledger::Split;
use crate::payment::Payment;
use crate::sales::SaleLine;
use kernel::{Money, RefundId};
use prost::Message as _;
use proto::commerce::money::v1 as pbm;
use proto::commerce::payment::v1 as pb;

/// An event's kind (its routing key), whether somebody must consume it, and its body.
pub fn event(payment: &Payment, fact: &Fact) -> (&'static str, bool, Vec<u8>) {
    let payment_id = payment.id.to_string();
    match fact {
        Fact::Created => {
            let body = pb::PaymentCreated {
                payment: Some(whole(payment)),
            };
            ("payment.PaymentCreated.v1", false, body.encode_to_vec())
        }
        Fact::Authorized => {
            let amount = minor(payment.order.currency, payment.amount_minor);
            let body = pb::PaymentAuthorized { payment_id, amount };
            ("payment.PaymentAuthorized.v1", false, body.encode_to_vec())
        }
        Fact::Captured {
            capture,
            amount,
            split,
            sold_at_us,
            lines,
        } => {
            let (tax_amount, shipping_amount) = split_beside(split);
            let body = pb::PaymentCaptured {
                payment_id,
                tax_amount,
                shipping_amount,
                capture_id: capture.to_string(),
                lines: lines.iter().map(sale_line).collect(),
                amount: Some(money(*amount)),
                sold_at: Some(timestamp(*sold_at_us)),
            };
            ("payment.PaymentCaptured.v1", true, body.encode_to_vec())
        }
        Fact::Succeeded => {
            let body = pb::PaymentSucceeded {
                payment: Some(whole(payment)),
            };
            ("payment.PaymentSucceeded.v1", false, body.encode_to_vec())
        }
        Fact::Declined(failure) => {
            let failure = Some(super::failure(failure));
            let body = pb::PaymentDeclined {
                payment_id,
                failure,
            };
            ("payment.PaymentDeclined.v1", false, body.encode_to_vec())
        }
        Fact::Canceled(reason) => {
            let body = pb::PaymentCanceled {
                payment_id,
                reason: reason.name().to_owned(),
            };
            ("payment.PaymentCanceled.v1", false, body.encode_to_vec())
        }
        Fact::Refunded {
            refund,
            amount,
            split,
            refunded_at_us,
            lines,
        } => {
            let (tax_amount, shipping_amount) = split_beside(split);
            let body = pb::RefundSucceeded {
                payment_id,
                tax_amount,
                shipping_amount,
                refund_id: refund.to_string(),
                lines: lines.iter().map(sale_line).collect(),
                amount: Some(money(*amount)),
                refunded_at: Some(timestamp(*refunded_at_us)),
            };
            ("payment.RefundSucceeded.v1", true, body.encode_to_vec())
        }
        Fact::RefundFailed {
            refund,
            failure,
            reversed,
        } => {
            let body = refund_failed(payment_id, *refund, failure, reversed.as_ref());
            let mandatory = body.reversed; // Somebody has added up what is taken back.
            ("payment.RefundFailed.v1", mandatory, body.encode_to_vec())
        }
        Fact::DisputeOpened(of) => {
            let dispute = Some(disputes::of(payment, of));
            let body = pb::DisputeOpened { dispute };
            ("payment.DisputeOpened.v1", false, body.encode_to_vec())
        }
        Fact::DisputeUpdated(of) => {
            let dispute = Some(disputes::of(payment, of));
            let body = pb::DisputeUpdated { dispute };
            ("payment.DisputeUpdated.v1", false, body.encode_to_vec())
        }
        Fact::DisputeClosed(of) => {
            let dispute = Some(disputes::of(payment, of));
            let body = pb::DisputeClosed { dispute };
            ("payment.DisputeClosed.v1", false, body.encode_to_vec())
        }
    }
}

fn refund_failed(
    payment_id: String,
    refund: RefundId,
    failure: &Failure,
    reversed: Option<&Reversed>,
) -> pb::RefundFailed {
    let failed = pb::RefundFailed {
        payment_id,
        refund_id: refund.to_string(),
        failure: Some(super::failure(failure)),
        ..pb::RefundFailed::default()
    };
    let Some(reversed) = reversed else {
        return failed;
    };
    let (tax_amount, shipping_amount) = split_beside(&reversed.split);
    pb::RefundFailed {
        reversed: true,
        lines: reversed.lines.iter().map(sale_line).collect(),
        amount: Some(money(reversed.amount)),
        tax_amount,
        shipping_amount,
        restocked: reversed.restocked,
        reversed_at: Some(timestamp(reversed.reversed_at_us)),
        ..failed
    }
}

fn sale_line(line: &SaleLine) -> pb::SaleLine {
    pb::SaleLine {
        product_id: line.product_id.clone(),
        sku: line.sku.clone(),
        category: line.category.clone(),
        quantity: line.quantity,
        amount: minor(line.currency, line.amount_minor),
    }
}

/// How much of an event's amount is tax, and how much shipping; absent: none.
fn split_beside(split: &Split) -> (Option<pbm::Money>, Option<pbm::Money>) {
    let some = |amount: Money| Some(amount).filter(|amount| !amount.is_zero()).map(money);
    (some(split.tax), some(split.shipping))
}
