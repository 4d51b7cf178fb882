//! Discounts, shipping and taxes, from the request to the books: what is taken and given back of each.

use crate::suite::api::{api, as_client, as_operator, reason};
use crate::suite::world::{Buy, Process, VISA, World, owned};
use kernel::{Currency, Money, PaymentId};
use payment::charges::{ChargeLine, Charges, Shipping, Size};
use payment::refund::Wanted;
use proto::commerce::money::v1 as pbm;
use proto::commerce::payment::v1 as pb;
use proto::commerce::payment::v1::payment_service_server::PaymentService as _;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

fn line(size: Size) -> ChargeLine {
    ChargeLine {
        title: "line".into(),
        size,
        came_to_minor: 0,
    }
}

/// 450 less 10 %, 100 for shipping, 19 % on 505: 45 off, 95.95 of tax, which is 96. 601 in all.
fn some() -> Charges {
    Charges {
        discounts: vec![line(Size::RatePpm(100_000))],
        shipping: Some(Shipping {
            title: "parcel".into(),
            amount_minor: 100,
        }),
        taxes: vec![line(Size::RatePpm(190_000))],
    }
}

fn minor(money: Option<&pbm::Money>) -> i64 {
    money.expect("it is there").amount_minor
}

async fn accounts(world: &World) -> Vec<(String, i64)> {
    let accounts = world.storage.store().accounts(None).await.unwrap();
    let balance = |account: payment::store::LedgerAccount| (account.account, account.balance_minor);
    accounts.into_iter().map(balance).collect()
}

async fn refund(process: &Process, world: &World, id: &str, wanted: Wanted) -> pb::Refund {
    process.refund(world, id, wanted, false).await.unwrap()
}

#[tokio::test]
async fn a_purchase_is_taken_with_all_that_belongs_to_it_and_booked_by_what_it_is_for() {
    let world = World::new().await;
    let process = world.process();
    let buy = Buy {
        charges: some(),
        ..Buy::some()
    };
    let payment = process.create(&world, buy).await.unwrap();
    assert_eq!(minor(payment.amount.as_ref()), 601);
    assert_eq!(minor(payment.captured_amount.as_ref()), 601);
    assert_eq!(minor(payment.discounts[0].amount.as_ref()), 45);
    assert_eq!(minor(payment.taxes[0].amount.as_ref()), 96);
    let items = payment.items.iter();
    let items = items.map(|item| {
        (
            minor(item.discount_amount.as_ref()),
            minor(item.tax_amount.as_ref()),
        )
    });
    // 180, 225 and 100 of 505: 34.2, 42.8 and 19.0 of 96; the largest remainder is that of the second.
    assert_eq!(items.collect::<Vec<_>>(), [(20, 34), (25, 43)]);
    let capture = &payment.captures[0];
    assert_eq!(
        (
            minor(capture.tax_amount.as_ref()),
            minor(capture.shipping_amount.as_ref())
        ),
        (96, 100)
    );
    let expected = [
        ("assets:provider:simulator", 601),
        ("income:sales", -405),
        ("income:shipping", -100),
        ("liabilities:tax", -96),
    ];
    assert_eq!(
        accounts(&world).await,
        expected.map(|(account, minor)| (account.to_owned(), minor))
    );
    let sales = world
        .storage
        .texts("SELECT CAST(amount_minor AS TEXT) FROM sales_lines ORDER BY sku")
        .await;
    assert_eq!(
        sales,
        ["180", "225"],
        "product revenue has neither shipping nor tax"
    );

    let all = refund(&process, &world, &payment.id, Wanted::Everything).await;
    assert_eq!(minor(all.amount.as_ref()), 601);
    assert_eq!(
        (
            minor(all.tax_amount.as_ref()),
            minor(all.shipping_amount.as_ref())
        ),
        (96, 100)
    );
    let expected = [
        ("assets:provider:simulator", 0),
        ("income:refunds", 505),
        ("income:sales", -405),
        ("income:shipping", -100),
        ("liabilities:tax", 0),
    ];
    assert_eq!(
        accounts(&world).await,
        expected.map(|(account, minor)| (account.to_owned(), minor))
    );
    world.check().await;
}

#[tokio::test]
async fn partial_captures_take_shares_and_the_last_one_the_rest() {
    let world = World::new().await;
    let process = world.process();
    let buy = Buy {
        charges: some(),
        lines: owned(&[("A", 3), ("B", 1)]),
        ..Buy::manual()
    };
    // 550 less 55, 100 for shipping, 19 % of 595: 113.05 is 113. 708 in all.
    let payment = process.create(&world, buy).await.unwrap();
    assert_eq!(minor(payment.amount.as_ref()), 708);
    let first = process
        .capture(&world, &payment.id, &[("A", 1)], false)
        .await
        .unwrap();
    let second = process
        .capture(&world, &payment.id, &[("A", 1)], false)
        .await
        .unwrap();
    let last = process
        .capture(&world, &payment.id, &[], false)
        .await
        .unwrap();
    let taken = |payment: &pb::Payment| {
        let capture = payment.captures.last().unwrap();
        let of = |money: &Option<pbm::Money>| minor(money.as_ref());
        (
            of(&capture.amount),
            of(&capture.tax_amount),
            of(&capture.shipping_amount),
        )
    };
    // Of A: 270 and a tax of 51, a third each time; shipping, with 19, goes first.
    assert_eq!(
        [taken(&first), taken(&second), taken(&last)],
        [(226, 36, 100), (107, 17, 0), (375, 60, 0)]
    );
    assert_eq!(last.state(), pb::payment::State::Succeeded);
    assert_eq!(minor(last.captured_amount.as_ref()), 708);
    world.check().await;
}

#[tokio::test]
async fn refunds_by_units_shipping_and_amount_never_exceed_what_is_left() {
    let world = World::new().await;
    let process = world.process();
    let buy = Buy {
        charges: some(),
        ..Buy::some()
    };
    let id = process.create(&world, buy).await.unwrap().id;
    let unit = refund(&process, &world, &id, Wanted::Lines(owned(&[("A", 1)]))).await;
    assert_eq!(
        (minor(unit.amount.as_ref()), minor(unit.tax_amount.as_ref())),
        (107, 17)
    );
    let shipping = refund(&process, &world, &id, Wanted::WithShipping(Vec::new())).await;
    assert_eq!(
        (
            minor(shipping.amount.as_ref()),
            minor(shipping.shipping_amount.as_ref())
        ),
        (119, 100)
    );
    assert!(shipping.lines.is_empty());
    let again = process
        .refund(&world, &id, Wanted::WithShipping(Vec::new()), false)
        .await;
    assert!(again.is_err(), "nothing is left of it");
    // 107 of A and 268 of B are left.
    let usd = |minor| Wanted::Amount(Money::new(Currency::parse("USD").unwrap(), minor).unwrap());
    let amount = refund(&process, &world, &id, usd(100)).await;
    let lines: Vec<(&str, i64, i64)> = amount
        .lines
        .iter()
        .map(|line| {
            (
                &*line.sku,
                minor(line.amount.as_ref()),
                minor(line.tax_amount.as_ref()),
            )
        })
        .collect();
    assert_eq!(lines, [("A", 29, 5), ("B", 71, 11)]);
    let too_much = process.refund(&world, &id, usd(276), false).await;
    assert!(too_much.is_err());
    let rest = refund(&process, &world, &id, usd(275)).await;
    assert_eq!(minor(rest.amount.as_ref()), 275);
    let stored = process.payment(&id).await;
    assert_eq!(stored.refunded_minor(), stored.captured_minor());
    let nothing = accounts(&world)
        .await
        .into_iter()
        .find(|(account, _)| account == "liabilities:tax");
    assert_eq!(
        nothing,
        Some(("liabilities:tax".to_owned(), 0)),
        "no tax is owed on what was given back"
    );
    world.check().await;
}

#[tokio::test]
async fn what_is_stored_reads_back() {
    let world = World::new().await;
    let process = world.process();
    let buy = Buy {
        charges: some(),
        ..Buy::manual()
    };
    let id = process.create(&world, buy).await.unwrap().id;
    process
        .capture(&world, &id, &[("A", 1)], true)
        .await
        .unwrap();
    refund(&process, &world, &id, Wanted::Everything).await;
    let read = process.payment(&id).await;
    assert_eq!(read.order.charges.discounts[0].came_to_minor, 45);
    assert_eq!(read.order.charges.shipping, some().shipping);
    assert_eq!(read.captures[0].shipping, read.refunds[0].shipping);
    assert_eq!(
        read.captures[0].shipping,
        payment::charges::Part {
            net_minor: 100,
            tax_minor: 19
        }
    );
    assert_eq!(read.captures[0].lines, read.refunds[0].lines);
    let parsed = PaymentId::parse(&id).unwrap();
    let again = world
        .replica()
        .await
        .store
        .payment(parsed)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(again, read);
    world.check().await;
}

/// What is made of a good request.
type Change = fn(&mut pb::CreatePaymentRequest);

fn request(key: &str) -> pb::CreatePaymentRequest {
    let charge = |rate_ppm| pb::ChargeLine {
        title: "line".into(),
        size: Some(pb::charge_line::Size::RatePpm(rate_ppm)),
        amount: None,
    };
    pb::CreatePaymentRequest {
        order_ref: key.into(),
        request_id: key.into(),
        currency_code: "USD".into(),
        items: vec![pb::LineQuantity {
            sku: "A".into(),
            quantity: 1,
        }],
        payment_method: VISA.into(),
        confirm: true,
        discounts: vec![charge(250_000)],
        taxes: vec![charge(100_000)],
        shipping: Some(pb::ShippingLine {
            title: "parcel".into(),
            amount: Some(pbm::Money {
                currency_code: "USD".into(),
                amount_minor: 15,
            }),
        }),
        ..Default::default()
    }
}

#[tokio::test]
async fn what_is_wrong_is_named_and_what_is_expected_is_the_whole() {
    let world = World::new().await;
    let api = api(&world.process());
    let cases: [(&str, Change); 10] = [
        ("discounts[0].title", |request| {
            request.discounts[0].title.clear();
        }),
        ("discounts[0].title", |request| {
            request.discounts[0].title = "4111 1111 1111 1111".into();
        }),
        ("discounts[0].rate_ppm", |request| {
            request.discounts[0].size = None;
        }),
        ("discounts[0].rate_ppm", |request| {
            request.discounts[0].size = Some(pb::charge_line::Size::RatePpm(1_000_001));
        }),
        ("discounts", |request| {
            request.discounts[0].size = Some(pb::charge_line::Size::AmountMinor(101));
        }),
        ("discounts", |request| {
            request.discounts = vec![request.discounts[0].clone(); 11];
        }),
        ("taxes[0].amount_minor", |request| {
            request.taxes[0].size = Some(pb::charge_line::Size::AmountMinor(0));
        }),
        ("taxes[0].amount", |request| {
            request.taxes[0].amount = Some(pbm::Money::default());
        }),
        ("shipping.amount.currency_code", |request| {
            request
                .shipping
                .as_mut()
                .unwrap()
                .amount
                .as_mut()
                .unwrap()
                .currency_code = "EUR".into();
        }),
        ("shipping.amount", |request| {
            request.shipping.as_mut().unwrap().amount = None;
        }),
    ];
    as_client("shop", async {
        for (number, (field, change)) in cases.into_iter().enumerate() {
            let mut wrong = request(&format!("wrong {number}"));
            change(&mut wrong);
            let refused = api.create_payment(Request::new(wrong)).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{number}: {refused}");
            let named = refused
                .get_error_details()
                .bad_request()
                .unwrap()
                .field_violations[0]
                .field
                .clone();
            assert_eq!(named, field, "{number}: {refused}");
        }
        // 100 less 25, 15 for shipping, a tenth of 90 on top.
        let expecting = |key, amount_minor| {
            let mut request = request(key);
            request.expected_amount = Some(pbm::Money {
                currency_code: "USD".into(),
                amount_minor,
            });
            Request::new(request)
        };
        let refused = api.create_payment(expecting("1", 100)).await.unwrap_err();
        assert_eq!(reason(&refused), "PRICE_CHANGED");
        let done = api
            .create_payment(expecting("2", 99))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(done.payment.unwrap().state(), pb::payment::State::Succeeded);
        let mut free = request("3");
        free.discounts[0].size = Some(pb::charge_line::Size::RatePpm(1_000_000));
        (free.shipping, free.taxes) = (None, Vec::new());
        let refused = api.create_payment(Request::new(free)).await.unwrap_err();
        assert_eq!(reason(&refused), "NOTHING_TO_PAY");
    })
    .await;
    let both = pb::CreateRefundRequest {
        payment_id: world.payments().await[0].id.to_string(),
        amount: Some(pbm::Money {
            currency_code: "USD".into(),
            amount_minor: 1,
        }),
        shipping: true,
        ..Default::default()
    };
    let refused = as_operator(api.create_refund(Request::new(both)))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    world.check().await;
}
