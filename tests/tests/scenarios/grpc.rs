//! The services over real gRPC, past the edge: what other services of the house see.

use proto::commerce::money::v1::Money;
use proto::commerce::payment::v1 as payment;
use proto::commerce::product::v1 as product;
use tests::eventually;
use tests::orders::put_on_sale;
use tests::shop::Shop;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_types::StatusExt;

const SERVICES: [&str; 2] = [
    "commerce.product.v1.ProductService",
    "commerce.payment.v1.PaymentService",
];

#[tokio::test(flavor = "multi_thread")]
async fn health_answers_for_the_server_and_for_its_service() {
    let shop = Shop::start().await;
    for (channel, service) in [shop.product_channel(), shop.payment_channel()]
        .into_iter()
        .zip(SERVICES)
    {
        for service in ["", service] {
            // Calls are taken before the first look at what the server stands on has passed.
            eventually(&format!("{service:?} is well"), || async {
                let request = HealthCheckRequest {
                    service: service.to_owned(),
                };
                let mut client = HealthClient::new(channel.clone());
                let health = client.check(request).await.unwrap().into_inner();
                health.status() == ServingStatus::Serving
            })
            .await;
        }
        let request = HealthCheckRequest {
            service: "commerce.nothing.v1.Nothing".to_owned(),
        };
        let unknown = HealthClient::new(channel).check(request).await.unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound);
    }
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_and_describes_the_service() {
    let shop = Shop::start().await;
    for (channel, service) in [shop.product_channel(), shop.payment_channel()]
        .into_iter()
        .zip(SERVICES)
    {
        let listed = reflect(channel.clone(), MessageRequest::ListServices(String::new())).await;
        let MessageResponse::ListServicesResponse(listed) = listed else {
            panic!("{listed:?}")
        };
        let names: Vec<_> = listed
            .service
            .iter()
            .map(|service| service.name.as_str())
            .collect();
        assert!(names.contains(&service), "{names:?}");
        let symbol = MessageRequest::FileContainingSymbol(service.to_owned());
        let described = reflect(channel, symbol).await;
        assert!(
            matches!(described, MessageResponse::FileDescriptorResponse(_)),
            "{described:?}"
        );
    }
    shop.close().await;
}

async fn reflect(channel: Channel, request: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(request),
    };
    let requests = futures_util::stream::iter([request]);
    let mut client = ServerReflectionClient::new(channel);
    let mut answers = client
        .server_reflection_info(requests)
        .await
        .unwrap()
        .into_inner();
    answers
        .message()
        .await
        .unwrap()
        .unwrap()
        .message_response
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_is_all_or_nothing_and_answers_the_same_again() {
    let shop = Shop::start().await;
    put_on_sale(shop.rest(), "MUG-1", 1250, 10).await;
    put_on_sale(shop.rest(), "POT-1", 3000, 1).await;
    let mut products = shop.product_client();
    let reserve = |request_id: &str, pots: i32| product::ReserveStockRequest {
        reference: "test".to_owned(),
        lines: [("MUG-1", 2), ("POT-1", pots)]
            .map(|(sku, quantity)| product::reserve_stock_request::Line {
                sku: sku.to_owned(),
                quantity,
            })
            .to_vec(),
        currency_code: "USD".to_owned(),
        ttl: None,
        request_id: request_id.to_owned(),
    };
    let short = products
        .reserve_stock(reserve("too-many", 2))
        .await
        .unwrap_err();
    assert_eq!(short.code(), Code::FailedPrecondition);
    let reason = short.get_details_error_info().unwrap();
    assert_eq!(
        (reason.reason.as_str(), reason.domain.as_str()),
        ("OUT_OF_STOCK", "product.commerce")
    );
    assert_eq!(
        tests::orders::stock(shop.rest(), "MUG-1").await,
        (10, 0, 10),
        "not even one line"
    );

    let first = products.reserve_stock(reserve("one", 1)).await.unwrap();
    assert!(first.metadata().get("idempotency-replayed").is_none());
    let again = products.reserve_stock(reserve("one", 1)).await.unwrap();
    assert_eq!(
        again.metadata().get("idempotency-replayed").unwrap(),
        "true"
    );
    let reservation = first.into_inner().reservation.unwrap();
    assert_eq!(again.into_inner().reservation.unwrap(), reservation);
    let price = Money {
        currency_code: "USD".to_owned(),
        amount_minor: 3000,
    };
    assert_eq!(reservation.lines[1].unit_price, Some(price));

    let release = product::ReleaseReservationRequest {
        id: reservation.id.clone(),
        request_id: "release".to_owned(),
    };
    products.release_reservation(release).await.unwrap();
    let commit = product::CommitReservationRequest {
        id: reservation.id,
        lines: Vec::new(),
        release_rest: false,
        request_id: "commit".to_owned(),
    };
    let released = products.commit_reservation(commit).await.unwrap_err();
    assert_eq!(released.code(), Code::FailedPrecondition);
    assert_eq!(
        tests::orders::stock(shop.rest(), "MUG-1").await,
        (10, 0, 10)
    );
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_carry_details() {
    let shop = Shop::start().await;
    let mut payments = shop.payment_client();
    let invalid = payment::CreatePaymentRequest {
        currency_code: "usd".to_owned(),
        request_id: "one".to_owned(),
        ..payment::CreatePaymentRequest::default()
    };
    let refused = payments.create_payment(invalid).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let fields = refused.get_details_bad_request().unwrap().field_violations;
    let fields: Vec<_> = fields
        .iter()
        .map(|violation| violation.field.as_str())
        .collect();
    assert!(
        fields.contains(&"currency_code") || fields.contains(&"order_ref"),
        "{fields:?}"
    );
    assert_eq!(
        refused.get_details_error_info().unwrap().domain,
        "payment.commerce"
    );
    shop.close().await;
}
