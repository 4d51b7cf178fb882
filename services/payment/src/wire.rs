//! The domain as protobuf: for answers, stored answers, the log of changes and the bodies of events.
//! Deliberately one-way; requests are read in `grpc.rs`.

pub mod disputes;
mod events;

pub use events::event;

use crate::audit::Sealed;
use crate::capture::{Capture, CaptureState, Line, tax_of};
use crate::charges::{ChargeLine, Part, Size};
use crate::failure::Failure;
use crate::ledger::Source;
use crate::payment::{CaptureMethod, Item, Payment};
use crate::refund::{Refund, RefundState};
use crate::sales::SalesRow;
use crate::state::State;
use crate::store::{Begun, LedgerAccount, LedgerEntry, StoredWebhook};
use crate::unresolved::{CallKind, Unresolved};
use kernel::{Currency, Money};
use prost::Message as _;
use proto::commerce::money::v1 as pbm;
use proto::commerce::payment::v1 as pb;

/// Full method paths, as they stand in idempotency records.
pub mod method {
    /// CreatePayment.
    pub const CREATE_PAYMENT: &str = "/commerce.payment.v1.PaymentService/CreatePayment";
    /// ConfirmPayment.
    pub const CONFIRM_PAYMENT: &str = "/commerce.payment.v1.PaymentService/ConfirmPayment";
    /// CapturePayment.
    pub const CAPTURE_PAYMENT: &str = "/commerce.payment.v1.PaymentService/CapturePayment";
    /// CancelPayment.
    pub const CANCEL_PAYMENT: &str = "/commerce.payment.v1.PaymentService/CancelPayment";
    /// CreateRefund.
    pub const CREATE_REFUND: &str = "/commerce.payment.v1.PaymentService/CreateRefund";
    /// SubmitDisputeEvidence.
    pub const SUBMIT_DISPUTE_EVIDENCE: &str =
        "/commerce.payment.v1.PaymentService/SubmitDisputeEvidence";
    /// AcceptDispute.
    pub const ACCEPT_DISPUTE: &str = "/commerce.payment.v1.PaymentService/AcceptDispute";
    /// ReceiveWebhook.
    pub const RECEIVE_WEBHOOK: &str = "/commerce.payment.v1.PaymentService/ReceiveWebhook";
    /// ReplayWebhook.
    pub const REPLAY_WEBHOOK: &str = "/commerce.payment.v1.PaymentService/ReplayWebhook";
    /// LookUpPayment.
    pub const LOOK_UP_PAYMENT: &str = "/commerce.payment.v1.PaymentService/LookUpPayment";
    /// StartReconciliation.
    pub const START_RECONCILIATION: &str =
        "/commerce.payment.v1.PaymentService/StartReconciliation";
    /// ResolveDiscrepancy.
    pub const RESOLVE_DISCREPANCY: &str = "/commerce.payment.v1.PaymentService/ResolveDiscrepancy";
    /// ClosePeriod.
    pub const CLOSE_PERIOD: &str = "/commerce.payment.v1.PaymentService/ClosePeriod";
}

/// The answer to a command as it is stored: the bytes of the method's response.
/// `begun` is what a command began that is answered for itself.
pub fn answer(method: &str, payment: &Payment, begun: Option<Begun>) -> Vec<u8> {
    let body = Some(self::payment(payment));
    match method {
        method::CREATE_PAYMENT => pb::CreatePaymentResponse { payment: body }.encode_to_vec(),
        method::CONFIRM_PAYMENT => pb::ConfirmPaymentResponse { payment: body }.encode_to_vec(),
        method::CAPTURE_PAYMENT => pb::CapturePaymentResponse { payment: body }.encode_to_vec(),
        method::CANCEL_PAYMENT => pb::CancelPaymentResponse { payment: body }.encode_to_vec(),
        method::REPLAY_WEBHOOK => pb::ReplayWebhookResponse { payment: body }.encode_to_vec(),
        method::LOOK_UP_PAYMENT => pb::LookUpPaymentResponse { payment: body }.encode_to_vec(),
        method::SUBMIT_DISPUTE_EVIDENCE => {
            let dispute = disputes::begun(payment, begun);
            pb::SubmitDisputeEvidenceResponse { dispute }.encode_to_vec()
        }
        method::ACCEPT_DISPUTE => {
            let dispute = disputes::begun(payment, begun);
            pb::AcceptDisputeResponse { dispute }.encode_to_vec()
        }
        _ => {
            let refund = payment
                .refunds
                .iter()
                .find(|candidate| Some(Begun::Refund(candidate.id)) == begun);
            let refund = refund.map(|refund| self::refund(payment, refund));
            pb::CreateRefundResponse { refund }.encode_to_vec()
        }
    }
}

/// A payment as clients see it.
pub fn payment(payment: &Payment) -> pb::Payment {
    let order = &payment.order;
    let charges = &order.charges;
    let priced = |lines: &[ChargeLine]| -> Vec<pb::ChargeLine> {
        lines
            .iter()
            .map(|line| charge(order.currency, line))
            .collect()
    };
    let waits = payment.state == State::RequiresAction;
    pb::Payment {
        id: payment.id.to_string(),
        order_ref: order.order_ref.clone(),
        customer_ref: order.customer_ref.clone(),
        state: state(payment.state).into(),
        amount: minor(order.currency, payment.amount_minor),
        captured_amount: minor(order.currency, payment.captured_minor()),
        refunded_amount: minor(order.currency, payment.refunded_minor()),
        items: items(payment),
        discounts: priced(&charges.discounts),
        shipping: charges.shipping.as_ref().map(|shipping| pb::ShippingLine {
            title: shipping.title.clone(),
            amount: minor(order.currency, shipping.amount_minor),
        }),
        taxes: priced(&charges.taxes),
        payment_method: order.payment_method.clone(),
        capture_method: match order.capture_method {
            CaptureMethod::Automatic => pb::payment::CaptureMethod::Automatic,
            CaptureMethod::Manual => pb::payment::CaptureMethod::Manual,
        }
        .into(),
        last_error: payment.last_error.as_ref().map(failure),
        next_action: payment
            .redirect_url
            .clone()
            .filter(|_| waits)
            .map(|redirect_url| pb::NextAction { redirect_url }),
        captures: payment
            .captures
            .iter()
            .map(|of| capture(payment, of))
            .collect(),
        provider: order.provider.clone(),
        cancel_requested: payment.cancel_requested(),
        cancellation_reason: payment
            .closing
            .filter(|_| payment.state == State::Canceled)
            .map_or_else(String::new, |reason| reason.name().to_owned()),
        late_success: payment.late_success,
        version: payment.version,
        ordered_at: order.ordered_at_us.map(timestamp),
        create_time: Some(timestamp(payment.created_at_us)),
        update_time: Some(timestamp(payment.updated_at_us)),
        expire_time: payment.expires_at_us.map(timestamp),
        disputes: payment
            .disputes
            .iter()
            .map(|of| disputes::dispute(payment.id, &order.provider, of))
            .collect(),
    }
}

/// A webhook as operators see it.
pub fn webhook(webhook: StoredWebhook) -> pb::Webhook {
    pb::Webhook {
        provider: webhook.provider,
        event_id: webhook.event_id,
        reference: webhook.reference,
        receive_time: Some(timestamp(webhook.received_at_us)),
    }
}

/// Who did what, as operators see it.
pub fn audit_record(sealed: Sealed) -> pb::AuditRecord {
    pb::AuditRecord {
        number: sealed.number,
        time: Some(timestamp(sealed.record.at_us)),
        principal: sealed.record.principal,
        method: sealed.record.method,
        payment_id: sealed.record.object,
        outcome: sealed.record.outcome,
        hash: hex::encode(sealed.hash),
    }
}

/// A call whose outcome is not known, as operators see it.
pub fn unresolved(payment: &Payment, call: &Unresolved) -> pb::UnresolvedCall {
    pb::UnresolvedCall {
        payment_id: payment.id.to_string(),
        order_ref: payment.order.order_ref.clone(),
        provider: match call.kind {
            CallKind::Stock => "product".to_owned(),
            _ => payment.order.provider.clone(),
        },
        reference: call.reference.clone(),
        kind: match call.kind {
            CallKind::Charge => pb::unresolved_call::Kind::Charge,
            CallKind::Reversal => pb::unresolved_call::Kind::Reversal,
            CallKind::Capture => pb::unresolved_call::Kind::Capture,
            CallKind::Refund => pb::unresolved_call::Kind::Refund,
            CallKind::Stock => pb::unresolved_call::Kind::Stock,
            CallKind::Response => pb::unresolved_call::Kind::DisputeResponse,
        }
        .into(),
        amount: minor(payment.order.currency, call.amount_minor),
        create_time: Some(timestamp(call.begun_at_us)),
        tries: call.progress.tries.into(),
        next_try_time: Some(timestamp(call.progress.due_at_us)),
        next_step: call.kind.next_step().to_owned(),
    }
}

fn items(payment: &Payment) -> Vec<pb::Item> {
    let order = &payment.order;
    if order.charges.is_empty() {
        return order
            .items
            .iter()
            .map(|of| item(payment, of, None))
            .collect();
    }
    let items = order.items.iter().zip(payment.shares().items);
    items
        .map(|(of, part)| item(payment, of, Some(part)))
        .collect()
}

fn charge(currency: Currency, line: &ChargeLine) -> pb::ChargeLine {
    pb::ChargeLine {
        title: line.title.clone(),
        size: Some(match line.size {
            Size::RatePpm(rate_ppm) => pb::charge_line::Size::RatePpm(rate_ppm),
            Size::AmountMinor(_) => pb::charge_line::Size::AmountMinor(line.came_to_minor),
        }),
        amount: minor(currency, line.came_to_minor),
    }
}

fn item(payment: &Payment, item: &Item, part: Option<Part>) -> pb::Item {
    let currency = payment.order.currency;
    let cost_minor = item.unit_price_minor * i64::from(item.quantity);
    let discount = part.and_then(|part| minor(currency, cost_minor - part.net_minor));
    let tax = part.and_then(|part| minor(currency, part.tax_minor));
    pb::Item {
        discount_amount: discount,
        tax_amount: tax,
        sku: item.sku.clone(),
        quantity: item.quantity,
        product_id: item.product_id.clone(),
        title: item.title.clone(),
        category: item.category.clone(),
        unit_price: minor(payment.order.currency, item.unit_price_minor),
        captured_quantity: payment.captured_quantity(&item.sku),
        refunded_quantity: payment.refunded_quantity(&item.sku),
    }
}

fn capture(payment: &Payment, capture: &Capture) -> pb::Capture {
    let lines = capture.lines.iter();
    let (tax_amount, shipping_amount) = beside(payment, &capture.lines, capture.shipping);
    pb::Capture {
        tax_amount,
        shipping_amount,
        id: capture.id.to_string(),
        state: match capture.state {
            CaptureState::Pending => pb::capture::State::Pending,
            CaptureState::Succeeded => pb::capture::State::Succeeded,
            CaptureState::Failed => pb::capture::State::Failed,
        }
        .into(),
        amount: minor(payment.order.currency, capture.amount_minor),
        lines: lines
            .map(|line| pb::LineQuantity {
                sku: line.sku.clone(),
                quantity: line.quantity,
            })
            .collect(),
        create_time: Some(timestamp(capture.created_at_us)),
    }
}

/// A refund as clients see it.
pub fn refund(payment: &Payment, refund: &Refund) -> pb::Refund {
    let currency = payment.order.currency;
    let lines = refund.lines.iter();
    let (tax_amount, shipping_amount) = beside(payment, &refund.lines, refund.shipping);
    let charged = !payment.order.charges.is_empty();
    pb::Refund {
        tax_amount,
        shipping_amount,
        id: refund.id.to_string(),
        payment_id: payment.id.to_string(),
        state: match refund.state {
            RefundState::Pending => pb::refund::State::Pending,
            RefundState::Succeeded => pb::refund::State::Succeeded,
            RefundState::Failed => pb::refund::State::Failed,
            RefundState::Canceled => pb::refund::State::Canceled,
        }
        .into(),
        amount: minor(currency, refund.amount_minor),
        lines: lines
            .map(|line| pb::RefundLine {
                sku: line.sku.clone(),
                quantity: line.quantity,
                amount: minor(currency, line.amount_minor),
                tax_amount: minor(currency, line.tax_minor).filter(|_| charged),
            })
            .collect(),
        restock: refund.restock,
        reason: refund.reason.clone(),
        last_error: refund.failure.as_ref().map(failure),
        create_time: Some(timestamp(refund.created_at_us)),
        update_time: Some(timestamp(refund.updated_at_us)),
        reverse_time: refund.reversed_at_us.map(timestamp),
    }
}

/// How much of an amount is tax, and how much shipping; absent where the payment has neither.
fn beside(
    payment: &Payment,
    lines: &[Line],
    shipping: Part,
) -> (Option<pbm::Money>, Option<pbm::Money>) {
    if payment.order.charges.is_empty() {
        return (None, None);
    }
    let currency = payment.order.currency;
    let tax = minor(currency, tax_of(lines, shipping));
    (tax, minor(currency, shipping.net_minor))
}

fn failure(failure: &Failure) -> pb::Failure {
    pb::Failure {
        code: failure.code.name().to_owned(),
        message: failure.message.clone(),
        sku: failure.sku.clone(),
    }
}

/// A row of a sales summary.
pub fn sales_row(row: SalesRow) -> pb::SalesRow {
    pb::SalesRow {
        product_id: row.product_id,
        category: row.category,
        day: row.day,
        amount: minor(row.currency, row.amount_minor),
        quantity: row.quantity,
        payments: row.payments,
    }
}

/// An account with its balance.
pub fn ledger_account(account: LedgerAccount) -> pb::LedgerAccount {
    pb::LedgerAccount {
        id: account.account,
        balance: minor(account.currency, account.balance_minor),
    }
}

/// An entry of the ledger.
pub fn ledger_entry(entry: LedgerEntry) -> pb::LedgerTransaction {
    use pb::ledger_transaction::Kind;
    let postings = entry.postings.into_iter();
    pb::LedgerTransaction {
        id: entry.id,
        kind: match entry.source {
            Source::Capture(_) => Kind::Capture,
            Source::Refund(_) => Kind::Refund,
            Source::RefundReversal(_) => Kind::RefundReversal,
            Source::Dispute(_) => Kind::Dispute,
            Source::DisputeReversal(_) => Kind::DisputeReversal,
            Source::Fee(_) => Kind::Fee,
            Source::Payout(_) => Kind::Payout,
        }
        .into(),
        payment_id: entry.payment_id.unwrap_or_default(),
        source_id: entry.source.to_string(),
        postings: postings
            .map(|(account_id, currency, amount_minor)| pb::Posting {
                account_id,
                amount: minor(currency, amount_minor),
            })
            .collect(),
        create_time: Some(timestamp(entry.recorded_at_us)),
    }
}

fn state(state: State) -> pb::payment::State {
    match state {
        State::RequiresConfirmation => pb::payment::State::RequiresConfirmation,
        State::Processing => pb::payment::State::Processing,
        State::RequiresAction => pb::payment::State::RequiresAction,
        State::RequiresCapture => pb::payment::State::RequiresCapture,
        State::PartiallyCaptured => pb::payment::State::PartiallyCaptured,
        State::Succeeded => pb::payment::State::Succeeded,
        State::Canceled => pb::payment::State::Canceled,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "message fields are options")]
pub(crate) fn minor(currency: Currency, amount_minor: i64) -> Option<pbm::Money> {
    Some(pbm::Money {
        currency_code: currency.code().to_owned(),
        amount_minor,
    })
}

pub(crate) fn money(money: Money) -> pbm::Money {
    pbm::Money {
        currency_code: money.currency().code().to_owned(),
        amount_minor: money.amount_minor(),
    }
}

pub(crate) fn timestamp(at_us: i64) -> prost_types::Timestamp {
    let (seconds, nanos) = kernel::day::to_seconds_nanos(at_us);
    prost_types::Timestamp { seconds, nanos }
}
