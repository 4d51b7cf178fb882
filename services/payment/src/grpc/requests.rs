//! Requests read and checked once: what comes out of here is valid. Errors name the field in the
//! contract's spelling.
//!
//! All requests of the service in one file, for they share how a field is read and how its error is worded.

use crate::charges::{ChargeLine, Charges, PPM, Shipping, Size};
use crate::commands::NewPayment;
use crate::error::Error;
use crate::payment::CaptureMethod;
use crate::refund::Wanted;
use crate::sales::{Grouping, SalesQuery};
use crate::store::{PaymentsQuery, Viewer};
use kernel::cursor::{self, Key, KeyKind};
use kernel::filter::{self, Field, Kind, Limits, Operator};
use kernel::{Currency, Invalid, Money, PaymentId, day, order_by, text};
use proto::commerce::money::v1 as pbm;
use proto::commerce::payment::v1 as pb;
use std::collections::BTreeSet;

const REF_CHARACTERS_MAX: usize = 100;
const PAYMENT_METHOD_CHARACTERS_MAX: usize = 100;
const REASON_CHARACTERS_MAX: usize = 500;
const LINES_MAX: usize = 100;
const CHARGES_MAX: usize = 10;
const TITLE_CHARACTERS_MAX: usize = 100;
const QUANTITY_MAX: i32 = 1_000_000;
const PAGE_DEFAULT: i32 = 50;
const PAGE_MAX: i32 = 1_000;
/// The largest webhook body.
pub(crate) const WEBHOOK_BYTES_MAX: usize = 256 * 1024;

/// A new payment.
pub(crate) fn new_payment(
    request: pb::CreatePaymentRequest,
    now_us: i64,
) -> Result<NewPayment, Error> {
    free_text("order_ref", &request.order_ref, 1, REF_CHARACTERS_MAX)?;
    free_text("customer_ref", &request.customer_ref, 0, REF_CHARACTERS_MAX)?;
    let currency = currency("currency_code", &request.currency_code)?;
    let lines = lines("items", &request.items)?;
    if lines.is_empty() {
        return Err(Invalid::new("items", "must not be empty").into());
    }
    let smallest = usize::from(request.confirm);
    payment_method(&request.payment_method, smallest)?;
    let capture_method = match pb::payment::CaptureMethod::try_from(request.capture_method) {
        Ok(pb::payment::CaptureMethod::Manual) => CaptureMethod::Manual,
        Ok(pb::payment::CaptureMethod::Automatic | pb::payment::CaptureMethod::Unspecified) => {
            CaptureMethod::Automatic
        }
        Err(_) => return Err(Invalid::new("capture_method", "must be AUTOMATIC or MANUAL").into()),
    };
    let charges = Charges {
        discounts: charge_lines("discounts", &request.discounts)?,
        shipping: request
            .shipping
            .as_ref()
            .map(|of| shipping(of, currency))
            .transpose()?,
        taxes: charge_lines("taxes", &request.taxes)?,
    };
    let expected = request
        .expected_amount
        .map(|of| money("expected_amount", &of))
        .transpose()?;
    if expected.is_some_and(|expected| expected.currency() != currency) {
        let reason = format!("must be {currency}, as the payment");
        return Err(Invalid::new("expected_amount.currency_code", reason).into());
    }
    let ordered_at = request
        .ordered_at
        .map(|of| time("ordered_at", &of))
        .transpose()?;
    if ordered_at.is_some_and(|ordered_at_us| ordered_at_us > now_us) {
        return Err(Invalid::new("ordered_at", "must not be in the future").into());
    }
    Ok(NewPayment {
        order_ref: request.order_ref,
        customer_ref: request.customer_ref,
        currency,
        lines,
        charges,
        payment_method: request.payment_method,
        capture_method,
        confirm: request.confirm,
        expected,
        ordered_at_us: ordered_at,
    })
}

/// Discounts or taxes.
fn charge_lines(field: &str, lines: &[pb::ChargeLine]) -> Result<Vec<ChargeLine>, Error> {
    if lines.len() > CHARGES_MAX {
        return Err(Invalid::new(field, format!("must have at most {CHARGES_MAX} entries")).into());
    }
    let read = |(index, line): (usize, &pb::ChargeLine)| -> Result<ChargeLine, Error> {
        let of = |name: &str| format!("{field}[{index}].{name}");
        free_text(&of("title"), &line.title, 1, TITLE_CHARACTERS_MAX)?;
        if line.amount.is_some() {
            return Err(Invalid::new(of("amount"), "is given by the service").into());
        }
        let size = match line.size {
            Some(pb::charge_line::Size::RatePpm(rate_ppm)) if (1..=PPM).contains(&rate_ppm) => {
                Size::RatePpm(rate_ppm)
            }
            Some(pb::charge_line::Size::RatePpm(_)) => {
                return Err(
                    Invalid::new(of("rate_ppm"), format!("must be between 1 and {PPM}")).into(),
                );
            }
            Some(pb::charge_line::Size::AmountMinor(minor))
                if (1..=kernel::AMOUNT_MINOR_MAX).contains(&minor) =>
            {
                Size::AmountMinor(minor)
            }
            Some(pb::charge_line::Size::AmountMinor(_)) => {
                let reason = format!("must be between 1 and {}", kernel::AMOUNT_MINOR_MAX);
                return Err(Invalid::new(of("amount_minor"), reason).into());
            }
            None => {
                return Err(Invalid::new(of("rate_ppm"), "or amount_minor must be given").into());
            }
        };
        Ok(ChargeLine {
            title: line.title.clone(),
            size,
            came_to_minor: 0,
        })
    };
    lines.iter().enumerate().map(read).collect()
}

fn shipping(line: &pb::ShippingLine, currency: Currency) -> Result<Shipping, Error> {
    free_text("shipping.title", &line.title, 1, TITLE_CHARACTERS_MAX)?;
    let amount = line.amount.as_ref();
    let amount = amount.ok_or_else(|| Invalid::new("shipping.amount", "must be given"))?;
    let amount = money("shipping.amount", amount)?;
    if amount.currency() != currency {
        let reason = format!("must be {currency}, as the payment");
        return Err(Invalid::new("shipping.amount.currency_code", reason).into());
    }
    if amount.is_zero() {
        return Err(Invalid::new("shipping.amount.amount_minor", "must be above zero").into());
    }
    Ok(Shipping {
        title: line.title.clone(),
        amount_minor: amount.amount_minor(),
    })
}

/// What a refund gives back.
pub(crate) fn wanted(request: &pb::CreateRefundRequest) -> Result<Wanted, Error> {
    if request.reason.chars().count() > REASON_CHARACTERS_MAX {
        let reason = format!("must have at most {REASON_CHARACTERS_MAX} characters");
        return Err(Invalid::new("reason", reason).into());
    }
    text::bounded_lines("reason", &request.reason, 0, REASON_CHARACTERS_MAX)?;
    text::refuse_card_number("reason", &request.reason)?;
    let lines = lines("lines", &request.lines)?;
    match &request.amount {
        Some(_) if !lines.is_empty() => {
            Err(Invalid::new("amount", "must be left out where lines are given").into())
        }
        Some(_) if request.shipping => {
            Err(Invalid::new("shipping", "must be left out where an amount is given").into())
        }
        Some(_) if request.restock => {
            let reason = "needs lines, or a refund of all that is left";
            Err(Invalid::new("restock", reason).into())
        }
        Some(amount) => {
            let amount = money("amount", amount)?;
            if amount.amount_minor() <= 0 {
                return Err(Invalid::new("amount.amount_minor", "must be above zero").into());
            }
            Ok(Wanted::Amount(amount))
        }
        None if request.shipping => Ok(Wanted::WithShipping(lines)),
        None if lines.is_empty() => Ok(Wanted::Everything),
        None => Ok(Wanted::Lines(lines)),
    }
}

/// Another payment method; empty: none is given.
pub(crate) fn other_method(method: String) -> Result<Option<String>, Error> {
    payment_method(&method, 0)?;
    Ok((!method.is_empty()).then_some(method))
}

/// SKUs and units, each SKU once.
pub(crate) fn lines(field: &str, lines: &[pb::LineQuantity]) -> Result<Vec<(String, i32)>, Error> {
    if lines.len() > LINES_MAX {
        return Err(Invalid::new(field, format!("must have at most {LINES_MAX} entries")).into());
    }
    let mut seen = BTreeSet::new();
    lines
        .iter()
        .enumerate()
        .map(|(index, line)| {
            let sku = format!("{field}[{index}].sku");
            text::sku(&sku, &line.sku)?;
            if !seen.insert(&line.sku) {
                return Err(Invalid::new(sku, "is there twice").into());
            }
            if !(1..=QUANTITY_MAX).contains(&line.quantity) {
                let reason = format!("must be between 1 and {QUANTITY_MAX}");
                return Err(Invalid::new(format!("{field}[{index}].quantity"), reason).into());
            }
            Ok((line.sku.clone(), line.quantity))
        })
        .collect()
}

/// A payment's id.
pub(crate) fn payment_id(field: &str, value: &str) -> Result<PaymentId, Error> {
    Ok(PaymentId::parse(value).map_err(|error| error.at(field))?)
}

/// How many rows a page has.
pub(crate) fn page_size(value: i32) -> Result<i64, Error> {
    match value {
        0 => Ok(PAGE_DEFAULT.into()),
        1..=PAGE_MAX => Ok(value.into()),
        _ => Err(Invalid::new("page_size", format!("must be between 1 and {PAGE_MAX}")).into()),
    }
}

const STATES: [&str; 7] = [
    "REQUIRES_CONFIRMATION",
    "PROCESSING",
    "REQUIRES_ACTION",
    "REQUIRES_CAPTURE",
    "PARTIALLY_CAPTURED",
    "SUCCEEDED",
    "CANCELED",
];
const ORDER: &[Operator] = &[
    Operator::Equal,
    Operator::Less,
    Operator::LessOrEqual,
    Operator::Greater,
    Operator::GreaterOrEqual,
];
const FIELDS: [Field; 6] = [
    Field {
        name: "state",
        kind: Kind::Enum(&STATES),
        operators: Operator::EQUALITY,
    },
    Field {
        name: "order_ref",
        kind: Kind::Text,
        operators: Operator::EQUALITY,
    },
    Field {
        name: "customer_ref",
        kind: Kind::Text,
        operators: Operator::EQUALITY,
    },
    Field {
        name: "currency_code",
        kind: Kind::Text,
        operators: Operator::EQUALITY,
    },
    Field {
        name: "create_time",
        kind: Kind::Time,
        operators: ORDER,
    },
    Field {
        name: "amount_minor",
        kind: Kind::Number,
        operators: ORDER,
    },
];
const LIMITS: Limits = Limits {
    characters_max: 1_000,
    comparisons_max: 10,
    depth_max: 1,
    and_only: true,
};

/// Which payments are listed; one more than the page, to know whether another follows.
pub(crate) fn payments(
    request: &pb::ListPaymentsRequest,
    viewer: Viewer,
) -> Result<PaymentsQuery, Error> {
    let filter = filter::parse(&request.filter, &FIELDS, LIMITS)?;
    let order = order_by::parse(&request.order_by, &["create_time"])?;
    let after = after(&request.page_token, &[&request.filter, &request.order_by])?;
    Ok(PaymentsQuery {
        viewer,
        filter,
        descending: order.first().is_none_or(|order| order.descending),
        after,
        limit: page_size(request.page_size)? + 1,
    })
}

/// The time and id after which a page begins.
pub(crate) fn after(token: &str, arguments: &[&str]) -> Result<Option<(i64, String)>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let keys = cursor::decode(token, arguments, &[KeyKind::Integer, KeyKind::Text])?;
    match <[Key; 2]>::try_from(keys) {
        Ok([Key::Integer(at_us), Key::Text(id)]) => Ok(Some((at_us, id))),
        _ => Err(Invalid::new("page_token", "is not one that was given out").into()),
    }
}

/// The number beyond which a page begins.
pub(crate) fn number(token: &str, arguments: &[&str]) -> Result<Option<i64>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    match cursor::decode(token, arguments, &[KeyKind::Integer])?.as_slice() {
        [Key::Integer(number)] => Ok(Some(*number)),
        _ => Err(Invalid::new("page_token", "is not one that was given out").into()),
    }
}

/// The token of the page that begins beyond a number.
pub(crate) fn number_token(arguments: &[&str], number: i64) -> String {
    cursor::encode(arguments, &[Key::Integer(number)])
}

/// The place of the first row of a page of what is only ever added to.
pub(crate) fn place(token: &str, arguments: &[&str]) -> Result<usize, Error> {
    let place = number(token, arguments)?.unwrap_or(0);
    Ok(usize::try_from(place).unwrap_or(usize::MAX))
}

/// The token of the page that begins at a place.
pub(crate) fn place_token(arguments: &[&str], place: usize) -> String {
    number_token(arguments, i64::try_from(place).unwrap_or(i64::MAX))
}

/// The token of the page after a row.
pub(crate) fn token(arguments: &[&str], at_us: i64, id: String) -> String {
    cursor::encode(arguments, &[Key::Integer(at_us), Key::Text(id)])
}

/// Which sales are summed up.
pub(crate) fn sales(request: &pb::SummarizeSalesRequest) -> Result<SalesQuery, Error> {
    let mut by = Grouping::default();
    for (index, group) in request.group_by.iter().enumerate() {
        let field = || format!("group_by[{index}]");
        let flag = match pb::summarize_sales_request::GroupBy::try_from(*group) {
            Ok(pb::summarize_sales_request::GroupBy::Product) => &mut by.product,
            Ok(pb::summarize_sales_request::GroupBy::Category) => &mut by.category,
            Ok(pb::summarize_sales_request::GroupBy::Day) => &mut by.day,
            Ok(pb::summarize_sales_request::GroupBy::Unspecified) | Err(_) => {
                return Err(Invalid::new(field(), "must be PRODUCT, CATEGORY or DAY").into());
            }
        };
        if std::mem::replace(flag, true) {
            return Err(Invalid::new(field(), "is there twice").into());
        }
    }
    let from_us = start_of_day("from", &request.from)?;
    let to_us = start_of_day("to", &request.to)?;
    if let (Some(from_us), Some(to_us)) = (from_us, to_us)
        && to_us < from_us
    {
        return Err(Invalid::new("to", "must not be before `from`").into());
    }
    Ok(SalesQuery {
        by,
        from_day: from_us.map(day::of),
        to_day: to_us.map(day::of),
    })
}

/// Some days as times, the end no part of them; to the end of time where none is given.
pub(crate) fn days(from: &str, to: &str) -> Result<(i64, i64), Error> {
    let from_us = start_of_day("from", from)?.unwrap_or(0);
    let to_us = start_of_day("to", to)?.unwrap_or(i64::MAX);
    if to_us < from_us {
        return Err(Invalid::new("to", "must not be before `from`").into());
    }
    Ok((from_us, to_us))
}

/// What a person says of something.
pub(crate) fn note(field: &str, value: &str) -> Result<(), Error> {
    free_text(field, value, 1, REASON_CHARACTERS_MAX)
}

/// A currency, where one is given.
pub(crate) fn optional_currency(code: &str) -> Result<Option<Currency>, Error> {
    if code.is_empty() {
        Ok(None)
    } else {
        currency("currency_code", code).map(Some)
    }
}

fn start_of_day(field: &str, value: &str) -> Result<Option<i64>, Error> {
    if value.is_empty() {
        Ok(None)
    } else {
        Ok(Some(day::parse_start(field, value)?))
    }
}

fn currency(field: &str, code: &str) -> Result<Currency, Error> {
    Ok(Currency::parse(code).map_err(|error| error.at(field))?)
}

fn money(field: &str, value: &pbm::Money) -> Result<Money, Error> {
    let currency = currency(&format!("{field}.currency_code"), &value.currency_code)?;
    let money = Money::new(currency, value.amount_minor)
        .map_err(|error| error.at(format!("{field}.amount_minor")))?;
    if value.amount_minor < 0 {
        let reason = "must not be negative";
        return Err(Invalid::new(format!("{field}.amount_minor"), reason).into());
    }
    Ok(money)
}

fn time(field: &str, value: &prost_types::Timestamp) -> Result<i64, Error> {
    Ok(day::from_seconds_nanos(field, value.seconds, value.nanos)?)
}

fn payment_method(value: &str, min: usize) -> Result<(), Error> {
    if value.is_empty() && min > 0 {
        let reason = "is needed to carry the payment out";
        return Err(Invalid::new("payment_method", reason).into());
    }
    free_text("payment_method", value, min, PAYMENT_METHOD_CHARACTERS_MAX)
}

/// Text of the caller's own: bounded, printable, and without a card number.
fn free_text(field: &str, value: &str, min: usize, max: usize) -> Result<(), Error> {
    text::bounded(field, value, min, max)?;
    Ok(text::refuse_card_number(field, value)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::State;

    const NOW_US: i64 = 1_700_000_000_000_000;

    type Spoil = Box<dyn Fn(&mut pb::CreatePaymentRequest)>;

    fn create() -> pb::CreatePaymentRequest {
        pb::CreatePaymentRequest {
            order_ref: "INV-1".into(),
            customer_ref: "CUST-1".into(),
            currency_code: "USD".into(),
            items: vec![pb::LineQuantity {
                sku: "TRACK-1".into(),
                quantity: 2,
            }],
            payment_method: "pm_card_visa".into(),
            confirm: true,
            ..Default::default()
        }
    }

    /// The field that an error is about.
    fn field<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
        match result {
            Err(Error::Invalid(fields)) => fields[0].field.clone(),
            other => panic!("not an invalid field: {other:?}"),
        }
    }

    #[test]
    fn a_good_order_is_read() {
        let new = new_payment(create(), NOW_US).unwrap();
        assert_eq!(new.lines, [("TRACK-1".to_owned(), 2)]);
        assert_eq!(new.capture_method, CaptureMethod::Automatic);
    }

    #[test]
    fn every_bad_field_is_named() {
        let line = |sku: &str, quantity| pb::LineQuantity {
            sku: sku.into(),
            quantity,
        };
        let usd = |amount_minor| {
            Some(pbm::Money {
                currency_code: "USD".into(),
                amount_minor,
            })
        };
        let cases: Vec<(&str, Spoil)> = vec![
            ("order_ref", Box::new(|r| r.order_ref.clear())),
            ("order_ref", Box::new(|r| r.order_ref = "x".repeat(101))),
            (
                "order_ref",
                Box::new(|r| r.order_ref = "4111111111111111".into()),
            ),
            ("order_ref", Box::new(|r| r.order_ref = "a\nb".into())),
            (
                "customer_ref",
                Box::new(|r| r.customer_ref = "4111 1111 1111 1111".into()),
            ),
            (
                "currency_code",
                Box::new(|r| r.currency_code = "usd".into()),
            ),
            ("currency_code", Box::new(|r| r.currency_code.clear())),
            ("items", Box::new(|r| r.items.clear())),
            (
                "items",
                Box::new(move |r| r.items = vec![line("A", 1); 101]),
            ),
            (
                "items[0].sku",
                Box::new(move |r| r.items = vec![line("../A", 1)]),
            ),
            (
                "items[1].sku",
                Box::new(move |r| r.items = vec![line("A", 1), line("A", 2)]),
            ),
            (
                "items[0].quantity",
                Box::new(move |r| r.items = vec![line("A", 0)]),
            ),
            (
                "items[0].quantity",
                Box::new(move |r| r.items = vec![line("A", -1)]),
            ),
            (
                "items[0].quantity",
                Box::new(move |r| r.items = vec![line("A", 1_000_001)]),
            ),
            ("payment_method", Box::new(|r| r.payment_method.clear())),
            (
                "payment_method",
                Box::new(|r| r.payment_method = "5555555555554444".into()),
            ),
            ("capture_method", Box::new(|r| r.capture_method = 9)),
            (
                "expected_amount.amount_minor",
                Box::new(move |r| r.expected_amount = usd(-1)),
            ),
            (
                "expected_amount.amount_minor",
                Box::new(move |r| r.expected_amount = usd(i64::MAX)),
            ),
            (
                "expected_amount.currency_code",
                Box::new(|r| {
                    let currency_code = "KRW".into();
                    r.expected_amount = Some(pbm::Money {
                        currency_code,
                        amount_minor: 1,
                    });
                }),
            ),
            (
                "ordered_at",
                Box::new(|r| {
                    let seconds = NOW_US / 1_000_000 + 1;
                    r.ordered_at = Some(prost_types::Timestamp { seconds, nanos: 0 });
                }),
            ),
            (
                "ordered_at",
                Box::new(|r| {
                    r.ordered_at = Some(prost_types::Timestamp {
                        seconds: i64::MAX,
                        nanos: 0,
                    });
                }),
            ),
        ];
        for (name, spoil) in cases {
            let mut request = create();
            spoil(&mut request);
            assert_eq!(field(new_payment(request, NOW_US)), name);
        }
    }

    #[test]
    fn refunds_name_lines_or_an_amount() {
        let amount = |amount_minor| {
            Some(pbm::Money {
                currency_code: "USD".into(),
                amount_minor,
            })
        };
        let line = pb::LineQuantity {
            sku: "A".into(),
            quantity: 1,
        };
        let request = pb::CreateRefundRequest::default;
        assert_eq!(wanted(&request()).unwrap(), Wanted::Everything);
        let lines = pb::CreateRefundRequest {
            lines: vec![line.clone()],
            ..request()
        };
        assert_eq!(
            wanted(&lines).unwrap(),
            Wanted::Lines(vec![("A".into(), 1)])
        );
        let both = pb::CreateRefundRequest {
            amount: amount(1),
            ..lines
        };
        assert_eq!(field(wanted(&both)), "amount");
        let zero = pb::CreateRefundRequest {
            amount: amount(0),
            ..request()
        };
        assert_eq!(field(wanted(&zero)), "amount.amount_minor");
        let restock = pb::CreateRefundRequest {
            amount: amount(1),
            restock: true,
            ..request()
        };
        assert_eq!(field(wanted(&restock)), "restock");
        let long = pb::CreateRefundRequest {
            reason: "x".repeat(501),
            ..request()
        };
        assert_eq!(field(wanted(&long)), "reason");
        let card = pb::CreateRefundRequest {
            reason: "4111111111111111".into(),
            ..request()
        };
        assert_eq!(field(wanted(&card)), "reason");
    }

    #[test]
    fn pages_filters_and_days_are_checked() {
        assert_eq!(
            (page_size(0).unwrap(), page_size(1_000).unwrap()),
            (50, 1_000)
        );
        assert_eq!(field(page_size(-1)), "page_size");
        assert_eq!(field(page_size(1_001)), "page_size");
        let list = |filter: &str, order_by: &str, page_token: &str| pb::ListPaymentsRequest {
            filter: filter.into(),
            order_by: order_by.into(),
            page_token: page_token.into(),
            page_size: 0,
        };
        let read = |request: &pb::ListPaymentsRequest| payments(request, Viewer::Operator);
        assert!(
            read(&list("state = SUCCEEDED AND amount_minor >= 5", "", ""))
                .unwrap()
                .descending
        );
        assert!(!read(&list("", "create_time", "")).unwrap().descending);
        assert_eq!(field(read(&list("state = BOUGHT", "", ""))), "filter");
        assert_eq!(field(read(&list("principal = x", "", ""))), "filter");
        assert_eq!(
            field(read(&list("state = SUCCEEDED OR state = CANCELED", "", ""))),
            "filter"
        );
        assert_eq!(field(read(&list("", "amount", ""))), "order_by");
        assert_eq!(field(read(&list("", "", "nonsense"))), "page_token");
        let token = token(&["a", ""], 5, "pay_1".into());
        assert_eq!(
            after(&token, &["a", ""]).unwrap(),
            Some((5, "pay_1".into()))
        );
        assert_eq!(field(after(&token, &["b", ""])), "page_token");
        let sum = |group_by: Vec<i32>, from: &str, to: &str| {
            sales(&pb::SummarizeSalesRequest {
                group_by,
                from: from.into(),
                to: to.into(),
            })
        };
        let query = sum(vec![2, 3], "2021-01-01", "2021-02-01T05:00:00Z").unwrap();
        assert!(query.by.category && query.by.day && !query.by.product);
        assert_eq!(query.to_day.as_deref(), Some("2021-02-01"));
        assert_eq!(field(sum(vec![1, 1], "", "")), "group_by[1]");
        assert_eq!(field(sum(vec![0], "", "")), "group_by[0]");
        assert_eq!(field(sum(vec![], "2021-13-01", "")), "from");
        assert_eq!(field(sum(vec![], "2021-02-01", "2021-01-01")), "to");
    }

    #[test]
    fn states_of_the_filter_are_those_of_the_domain() {
        assert_eq!(STATES, State::ALL.map(State::name));
    }
}
