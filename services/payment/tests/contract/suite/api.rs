//! The service as its callers see it: answers, errors, who sees what. One call after the other over one world, so that
//! all of the interface stands in one file.

use crate::suite::world::{Buy, Process, SECOND_US, VISA, World};
use futures_util::StreamExt as _;
use mesh::{CallContext, Principal};
use payment::grpc::watch::Limits;
use payment::grpc::{Grpc, Operators};
use proto::commerce::money::v1 as pbm;
use proto::commerce::payment::v1 as pb;
use proto::commerce::payment::v1::payment::State;
use proto::commerce::payment::v1::payment_service_server::PaymentService as _;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

pub(crate) fn api(process: &Process) -> Grpc {
    let limits = Limits {
        poll: Duration::from_millis(10),
        batch_max: 2,
        stopping: CancellationToken::new(),
    };
    let operators = Operators {
        desk: process.desk.clone(),
        audit: process.audit.clone(),
        reconciliations: process.reconciliations.clone(),
        books: process.books.clone(),
        escalate_us: 3_600 * SECOND_US,
    };
    Grpc::new(
        process.store.clone(),
        process.commands.clone(),
        operators,
        limits,
    )
}

pub(crate) async fn as_client<F: Future>(name: &str, call: F) -> F::Output {
    CallContext::root(Principal::new(name, Vec::<String>::new()))
        .scope(call)
        .await
}

pub(crate) async fn as_operator<F: Future>(call: F) -> F::Output {
    CallContext::root(Principal::new("boss", ["operator"]))
        .scope(call)
        .await
}

pub(crate) fn order(order_ref: &str, key: &str) -> Request<pb::CreatePaymentRequest> {
    Request::new(pb::CreatePaymentRequest {
        order_ref: order_ref.into(),
        currency_code: "USD".into(),
        items: vec![pb::LineQuantity {
            sku: "A".into(),
            quantity: 2,
        }],
        payment_method: VISA.into(),
        confirm: true,
        request_id: key.into(),
        ..Default::default()
    })
}

pub(crate) fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().expect("every error says its reason");
    assert_eq!(info.domain, "payment.commerce");
    info.reason.clone()
}

#[tokio::test]
async fn answers_are_replayed_and_marked() {
    let world = World::new().await;
    let api = api(&world.process());
    as_client("shop", async {
        let first = api.create_payment(order("1", "k")).await.unwrap();
        assert!(first.metadata().get("idempotency-replayed").is_none());
        let again = api.create_payment(order("1", "k")).await.unwrap();
        assert_eq!(
            again.metadata().get("idempotency-replayed").unwrap(),
            "true"
        );
        assert_eq!(first.into_inner(), again.into_inner());
        let reused = api.create_payment(order("2", "k")).await.unwrap_err();
        assert_eq!(reused.code(), Code::InvalidArgument);
        assert_eq!(reason(&reused), "IDEMPOTENCY_KEY_REUSED");
        let taken = api.create_payment(order("1", "k2")).await.unwrap_err();
        assert_eq!(
            (taken.code(), reason(&taken).as_str()),
            (Code::AlreadyExists, "ORDER_REF_TAKEN")
        );
        let details = taken.get_error_details();
        assert!(
            details
                .resource_info()
                .unwrap()
                .resource_name
                .starts_with("pay_")
        );
    })
    .await;
}

#[tokio::test]
async fn clients_see_their_own_payments_and_operators_all() {
    let world = World::new().await;
    let api = api(&world.process());
    let mine = as_client("shop", api.create_payment(order("1", "k")))
        .await
        .unwrap();
    let mine = mine.into_inner().payment.unwrap().id;
    as_client("other", api.create_payment(order("1", "k")))
        .await
        .unwrap();
    let get = || Request::new(pb::GetPaymentRequest { id: mine.clone() });
    let listed = |answer: pb::ListPaymentsResponse| answer.payments.len();
    let list = || Request::new(pb::ListPaymentsRequest::default());
    as_client("other", async {
        let hidden = api.get_payment(get()).await.unwrap_err();
        assert_eq!(
            (hidden.code(), reason(&hidden).as_str()),
            (Code::NotFound, "PAYMENT_NOT_FOUND")
        );
        let cancel = pb::CancelPaymentRequest {
            id: mine.clone(),
            ..Default::default()
        };
        let hidden = api.cancel_payment(Request::new(cancel)).await.unwrap_err();
        assert_eq!(hidden.code(), Code::NotFound);
        let refunds = pb::ListRefundsRequest {
            payment_id: mine.clone(),
            ..Default::default()
        };
        let hidden = api.list_refunds(Request::new(refunds)).await.unwrap_err();
        assert_eq!(hidden.code(), Code::NotFound);
        assert_eq!(
            listed(api.list_payments(list()).await.unwrap().into_inner()),
            1
        );
    })
    .await;
    as_operator(async {
        assert!(api.get_payment(get()).await.is_ok());
        assert_eq!(
            listed(api.list_payments(list()).await.unwrap().into_inner()),
            2
        );
    })
    .await;
}

#[tokio::test]
async fn errors_have_their_codes_and_reasons() {
    let world = World::new().await;
    let process = world.process();
    let api = api(&process);
    let held = process.create(&world, Buy::manual()).await.unwrap();
    as_client("shop", async {
        let confirm = pb::ConfirmPaymentRequest {
            id: held.id.clone(),
            ..Default::default()
        };
        let state = api
            .confirm_payment(Request::new(confirm))
            .await
            .unwrap_err();
        assert_eq!(
            (state.code(), reason(&state).as_str()),
            (Code::FailedPrecondition, "INVALID_STATE")
        );
        assert!(state.get_error_details().precondition_failure().is_some());

        let lines = vec![pb::LineQuantity {
            sku: "A".into(),
            quantity: 3,
        }];
        let capture = pb::CapturePaymentRequest {
            id: held.id.clone(),
            lines,
            ..Default::default()
        };
        let over = api
            .capture_payment(Request::new(capture))
            .await
            .unwrap_err();
        assert_eq!(reason(&over), "QUANTITY_EXCEEDED");

        let refund = pb::CreateRefundRequest {
            payment_id: held.id.clone(),
            ..Default::default()
        };
        let nothing = api.create_refund(Request::new(refund)).await.unwrap_err();
        assert_eq!(reason(&nothing), "NOTHING_CAPTURED");

        let get = pb::GetPaymentRequest { id: "prd_1".into() };
        let malformed = api.get_payment(Request::new(get)).await.unwrap_err();
        assert_eq!(malformed.code(), Code::InvalidArgument);
        let details = malformed.get_error_details();
        assert_eq!(
            details.bad_request().unwrap().field_violations[0].field,
            "id"
        );

        let mut dear = order("dear", "");
        let amount = pbm::Money {
            currency_code: "USD".into(),
            amount_minor: 1,
        };
        dear.get_mut().expected_amount = Some(amount);
        let changed = api.create_payment(dear).await.unwrap_err();
        assert_eq!(reason(&changed), "PRICE_CHANGED");

        let mut unknown = order("unknown", "");
        unknown.get_mut().items[0].sku = "NONE".into();
        let missing = api.create_payment(unknown).await.unwrap_err();
        assert_eq!(
            (missing.code(), reason(&missing).as_str()),
            (Code::NotFound, "SKU_NOT_FOUND")
        );

        world.catalogue.set_down(true);
        let down = api.create_payment(order("down", "")).await.unwrap_err();
        assert_eq!(
            (down.code(), reason(&down).as_str()),
            (Code::Unavailable, "PRODUCT_UNAVAILABLE")
        );
        assert!(down.get_error_details().retry_info().is_some());
    })
    .await;
}

#[tokio::test]
async fn pages_join_up() {
    let world = World::new().await;
    let process = world.process();
    let api = api(&process);
    for _ in 0..5 {
        world.clock.advance(1);
        process.create(&world, Buy::some()).await.unwrap();
    }
    as_client("shop", async {
        for order_by in ["", "create_time"] {
            let mut request = pb::ListPaymentsRequest {
                page_size: 2,
                order_by: order_by.into(),
                filter: "state = SUCCEEDED AND amount_minor > 1 AND currency_code = USD".into(),
                ..Default::default()
            };
            let mut times = Vec::new();
            loop {
                let page = api
                    .list_payments(Request::new(request.clone()))
                    .await
                    .unwrap();
                let page = page.into_inner();
                times.extend(page.payments.iter().map(|p| p.create_time.unwrap().nanos));
                if page.next_page_token.is_empty() {
                    break;
                }
                request.page_token = page.next_page_token;
            }
            let mut expected: Vec<i32> = (1..=5).map(|us| us * 1_000).collect();
            if order_by.is_empty() {
                expected.reverse();
            }
            assert_eq!(times, expected);
        }
    })
    .await;
    as_operator(async {
        let mut request = pb::ListLedgerTransactionsRequest {
            page_size: 3,
            ..Default::default()
        };
        let first = api
            .list_ledger_transactions(Request::new(request.clone()))
            .await
            .unwrap();
        let first = first.into_inner();
        assert_eq!(first.transactions.len(), 3);
        assert_eq!(first.transactions[0].postings.len(), 2);
        request.page_token = first.next_page_token;
        let second = api
            .list_ledger_transactions(Request::new(request))
            .await
            .unwrap();
        let second = second.into_inner();
        assert_eq!(
            (second.transactions.len(), second.next_page_token.as_str()),
            (2, "")
        );
        let accounts = pb::ListLedgerAccountsRequest::default();
        let accounts = api
            .list_ledger_accounts(Request::new(accounts))
            .await
            .unwrap()
            .into_inner();
        let balances: Vec<(String, i64)> = accounts
            .accounts
            .into_iter()
            .map(|account| (account.id, account.balance.unwrap().amount_minor))
            .collect();
        assert_eq!(
            balances,
            [
                ("assets:provider:simulator".to_owned(), 2_250),
                ("income:sales".to_owned(), -2_250)
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn refunds_are_found_and_listed() {
    let world = World::new().await;
    let process = world.process();
    let api = api(&process);
    let paid = process.create(&world, Buy::some()).await.unwrap();
    as_client("shop", async {
        let mut ids = Vec::new();
        for sku in ["A", "B"] {
            let lines = vec![pb::LineQuantity {
                sku: sku.into(),
                quantity: 1,
            }];
            let request = pb::CreateRefundRequest {
                payment_id: paid.id.clone(),
                lines,
                ..Default::default()
            };
            let refund = api
                .create_refund(Request::new(request))
                .await
                .unwrap()
                .into_inner();
            ids.push(refund.refund.unwrap().id);
        }
        let get = pb::GetRefundRequest { id: ids[1].clone() };
        let found = api
            .get_refund(Request::new(get))
            .await
            .unwrap()
            .into_inner()
            .refund
            .unwrap();
        assert_eq!(
            (found.id.as_str(), found.payment_id.as_str()),
            (ids[1].as_str(), paid.id.as_str())
        );
        let mut list = pb::ListRefundsRequest {
            payment_id: paid.id.clone(),
            page_size: 1,
            ..Default::default()
        };
        let first = api
            .list_refunds(Request::new(list.clone()))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(first.refunds[0].id, ids[0]);
        list.page_token = first.next_page_token;
        let second = api
            .list_refunds(Request::new(list))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            (
                second.refunds[0].id.as_str(),
                second.next_page_token.as_str()
            ),
            (ids[1].as_str(), "")
        );
        let get = pb::GetRefundRequest {
            id: kernel::RefundId::generate(1).to_string(),
        };
        let missing = api.get_refund(Request::new(get)).await.unwrap_err();
        assert_eq!(reason(&missing), "REFUND_NOT_FOUND");
    })
    .await;
}

#[tokio::test]
async fn a_watch_resumes_where_it_was_cut_off() {
    let world = World::new().await;
    let process = world.process();
    let api = api(&process);
    let watch = |resume_revision| Request::new(pb::WatchPaymentsRequest { resume_revision });
    as_client("shop", async {
        let mut from_now = api.watch_payments(watch(None)).await.unwrap().into_inner();
        let payment = api
            .create_payment(order("1", "k"))
            .await
            .unwrap()
            .into_inner()
            .payment;
        let mut seen = Vec::new();
        while seen
            .last()
            .is_none_or(|(_, state)| *state != State::Succeeded)
        {
            let change = from_now.next().await.unwrap().unwrap();
            let changed = change.payment.unwrap();
            assert_eq!(changed.id, payment.as_ref().unwrap().id);
            seen.push((change.revision, changed.state()));
        }
        assert_eq!(seen[0].1, State::Processing);
        let mut resumed = api
            .watch_payments(watch(Some(seen[0].0)))
            .await
            .unwrap()
            .into_inner();
        let next = resumed.next().await.unwrap().unwrap();
        assert_eq!(next.revision, seen[1].0);
        let future = api
            .watch_payments(watch(Some(i64::MAX)))
            .await
            .err()
            .unwrap();
        assert_eq!(
            (future.code(), reason(&future).as_str()),
            (Code::OutOfRange, "REVISION_OUT_OF_RANGE")
        );
        let before = api.watch_payments(watch(Some(-1))).await.err().unwrap();
        assert_eq!(before.code(), Code::OutOfRange);
    })
    .await;
    as_client("other", async {
        let mut foreign = api
            .watch_payments(watch(Some(0)))
            .await
            .unwrap()
            .into_inner();
        let nothing = tokio::time::timeout(Duration::from_millis(100), foreign.next()).await;
        assert!(nothing.is_err(), "saw {nothing:?}");
    })
    .await;
}

#[tokio::test]
async fn sales_are_grouped_and_net() {
    use pb::summarize_sales_request::GroupBy;
    let world = World::new().await;
    let process = world.process();
    let api = api(&process);
    let paid = process.create(&world, Buy::some()).await.unwrap();
    process.create(&world, Buy::some()).await.unwrap();
    world.clock.advance(86_400 * crate::suite::world::SECOND_US);
    let units = payment::refund::Wanted::Lines(crate::suite::world::owned(&[("B", 1)]));
    process.refund(&world, &paid.id, units, true).await.unwrap();
    let sum = async |group_by: &[GroupBy], from: &str| {
        let group_by = group_by.iter().map(|group| i32::from(*group)).collect();
        let request = pb::SummarizeSalesRequest {
            group_by,
            from: from.into(),
            to: String::new(),
        };
        let rows = api
            .summarize_sales(Request::new(request))
            .await
            .unwrap()
            .into_inner()
            .rows;
        rows.into_iter()
            .map(|row| {
                let amount = row.amount.unwrap().amount_minor;
                (
                    row.day,
                    row.category,
                    row.product_id,
                    amount,
                    row.quantity,
                    row.payments,
                )
            })
            .collect::<Vec<_>>()
    };
    let row = |day: &str, category: &str, product: &str, amount, quantity, payments| {
        (
            day.to_owned(),
            category.to_owned(),
            product.to_owned(),
            amount,
            quantity,
            payments,
        )
    };
    as_operator(async {
        assert_eq!(sum(&[], "").await, [row("", "", "", 650, 5, 2)]);
        assert_eq!(
            sum(&[GroupBy::Category, GroupBy::Day], "").await,
            [
                row("2023-11-14", "Category of A", "", 400, 4, 2),
                row("2023-11-14", "Category of B", "", 500, 2, 2),
                row("2023-11-15", "Category of B", "", -250, -1, 0),
            ]
        );
        assert_eq!(
            sum(&[GroupBy::Product], "2023-11-15").await,
            [row("", "", "prd_B", -250, -1, 0)]
        );
    })
    .await;
}
