//! The service as its callers meet it: over real gRPC on a port of its own, events included. One scenario after the other
//! over the same few helpers, hence one file.

#![expect(
    clippy::unwrap_used,
    reason = "a scenario that cannot go on has failed"
)]

use std::{sync::Arc, time::Duration};

use mesh::{CallContext, Contract, Mesh, Principal};
use mesh_events::{Bus as _, Event, InMemoryBus};
use mesh_runtime::Clock;
use product::{Config, Parts, Service};
use prost::Message as _;
use proto::commerce::{
    money::v1::Money,
    payment::v1 as payment,
    product::v1::{self as pb, product_service_client::ProductServiceClient},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_types::StatusExt as _;

const START_US: i64 = 1_767_225_600_000_000;

/// A running service.
struct Running {
    client: ProductServiceClient<mesh::Client>,
    service: Service,
    bus: Arc<InMemoryBus>,
    clock: Clock,
    shutdown: CancellationToken,
    served: JoinHandle<anyhow::Result<()>>,
    folder: tempfile::TempDir,
}

impl Running {
    async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    async fn start_in(folder: tempfile::TempDir) -> Self {
        let mut config = Config::default();
        config.store.path = folder.path().join("product.db");
        config.sweep.interval_ms = 3_600_000; // Tests sweep themselves.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut mesh_config = mesh::Config::default();
        let address = format!("http://{}", listener.local_addr().unwrap());
        mesh_config
            .destinations
            .insert("product".to_owned(), address);
        let contract = Contract::new(proto::FILE_DESCRIPTOR_SET).unwrap();
        let mesh = Mesh::new(mesh_config, contract, &prometheus::Registry::new()).unwrap();
        let bus = Arc::new(InMemoryBus::new());
        let clock = Clock::manual(START_US);
        let parts = Parts {
            clock: clock.clone(),
            bus: bus.clone(),
            mesh: mesh.clone(),
            dead_letters: None,
            event_metrics: mesh_events::Metrics::unregistered().unwrap(),
            fault_points: mesh_events::FaultPoints::default(),
        };
        let service = Service::open(config, parts).await.unwrap();
        let shutdown = CancellationToken::new();
        let served = mesh::spawn(service.clone().run(listener, shutdown.clone()));
        let client = ProductServiceClient::new(mesh.client("product"));
        Self {
            client,
            service,
            bus,
            clock,
            shutdown,
            served,
            folder,
        }
    }

    async fn stop(self) -> tempfile::TempDir {
        self.shutdown.cancel();
        let served = tokio::time::timeout(Duration::from_secs(20), self.served).await;
        served.expect("stops in time").unwrap().unwrap();
        self.folder
    }

    async fn create(&mut self, sku: &str, quantity: i32) -> pb::Product {
        let created = self
            .client
            .create_product(create_request(sku, quantity, ""))
            .await
            .unwrap();
        created.into_inner().product.unwrap()
    }
}

fn create_request(sku: &str, quantity: i32, request_id: &str) -> pb::CreateProductRequest {
    let variant = pb::Variant {
        sku: sku.to_owned(),
        prices: vec![Money {
            currency_code: "USD".to_owned(),
            amount_minor: 199,
        }],
        initial_quantity: Some(quantity),
        ..Default::default()
    };
    let product = pb::Product {
        title: sku.to_owned(),
        variants: vec![variant],
        ..Default::default()
    };
    pb::CreateProductRequest {
        product: Some(product),
        request_id: request_id.to_owned(),
    }
}

fn reserve_request(sku: &str, quantity: i32, request_id: &str) -> pb::ReserveStockRequest {
    pb::ReserveStockRequest {
        reference: "pay_1".to_owned(),
        lines: vec![pb::reserve_stock_request::Line {
            sku: sku.to_owned(),
            quantity,
        }],
        currency_code: "USD".to_owned(),
        ttl: None,
        request_id: request_id.to_owned(),
    }
}

fn reason(status: &tonic::Status) -> String {
    status
        .get_error_details()
        .error_info()
        .expect("always there")
        .reason
        .clone()
}

fn fields(status: &tonic::Status) -> Vec<String> {
    let details = status.get_error_details();
    let violations = &details
        .bad_request()
        .expect("names fields")
        .field_violations;
    violations
        .iter()
        .map(|violation| violation.field.clone())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_takes_stock_and_shows_in_sales() {
    let mut shop = Running::start().await;
    let product = shop.create("TEA", 10).await;
    let reserved = shop
        .client
        .reserve_stock(reserve_request("TEA", 3, "r1"))
        .await
        .unwrap()
        .into_inner();
    let reservation = reserved.reservation.unwrap();
    let line = &reservation.lines[0];
    assert_eq!(
        (line.product_id.as_str(), line.quantity),
        (product.id.as_str(), 3)
    );
    assert_eq!(line.unit_price.as_ref().unwrap().amount_minor, 199);
    let expires = reservation.expire_time.unwrap().seconds;
    assert_eq!(expires, START_US / 1_000_000 + 900, "the service's default");
    let commit = pb::CommitReservationRequest {
        id: reservation.id.clone(),
        lines: Vec::new(),
        release_rest: false,
        request_id: "c1".to_owned(),
    };
    shop.client
        .commit_reservation(commit.clone())
        .await
        .unwrap();
    let again = shop.client.commit_reservation(commit).await.unwrap();
    assert_eq!(
        again.metadata().get("idempotency-replayed").unwrap(),
        "true"
    );
    let stock = shop
        .client
        .get_stock(pb::GetStockRequest {
            sku: "TEA".to_owned(),
        })
        .await
        .unwrap();
    let stock = stock.into_inner().stock.unwrap();
    assert_eq!((stock.on_hand, stock.reserved, stock.available), (7, 0, 7));

    let sold = payment::PaymentCaptured {
        lines: vec![payment::SaleLine {
            product_id: product.id.clone(),
            sku: "TEA".to_owned(),
            quantity: 3,
            amount: Some(Money {
                currency_code: "USD".to_owned(),
                amount_minor: 597,
            }),
            ..Default::default()
        }],
        ..Default::default()
    };
    let event = Event::new(
        "payment.PaymentCaptured.v1",
        "pay_1",
        3,
        START_US,
        sold.encode_to_vec(),
    );
    // The bus confirms once every consumer has acknowledged.
    for _delivery in 0..2 {
        while shop.bus.publish(std::slice::from_ref(&event)).await != [Ok(())] {
            tokio::task::yield_now().await; // The consumer subscribes in its own time.
        }
    }
    let found = shop
        .client
        .get_product(pb::GetProductRequest { id: product.id })
        .await
        .unwrap();
    let found = found.into_inner().product.unwrap();
    assert_eq!(
        (found.sold_quantity, found.revenue[0].amount_minor),
        (3, 597)
    );
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_belong_to_their_principals() {
    let mut shop = Running::start().await;
    let first = shop
        .client
        .create_product(create_request("A", 1, "k"))
        .await
        .unwrap();
    let again = shop
        .client
        .create_product(create_request("A", 1, "k"))
        .await
        .unwrap();
    assert!(first.metadata().get("idempotency-replayed").is_none());
    assert!(again.metadata().get("idempotency-replayed").is_some());
    assert_eq!(
        first.into_inner().encode_to_vec(),
        again.into_inner().encode_to_vec()
    );
    let other = shop
        .client
        .create_product(create_request("B", 1, "k"))
        .await
        .unwrap_err();
    assert_eq!(
        (other.code(), reason(&other).as_str()),
        (Code::InvalidArgument, "IDEMPOTENCY_KEY_REUSED")
    );
    // The same key of somebody else is another key.
    let somebody = CallContext::root(Principal::new("somebody", ["operator"]));
    let mut client = shop.client.clone();
    let theirs = somebody
        .scope(async move { client.create_product(create_request("B", 1, "k")).await })
        .await;
    assert_eq!(theirs.unwrap().into_inner().product.unwrap().title, "B");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_name_their_fields() {
    let mut shop = Running::start().await;
    let product = shop.create("A", 1).await;
    let mut bad = create_request("A/B", -1, "");
    let variant = &mut bad.product.as_mut().unwrap().variants[0];
    variant.prices[0].currency_code = "usd".to_owned();
    let status = shop.client.create_product(bad.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(
        fields(&status),
        ["product.variants[0].prices[0].currency_code"]
    );
    bad.product.as_mut().unwrap().variants[0].prices[0].currency_code = "USD".to_owned();
    let status = shop.client.create_product(bad).await.unwrap_err();
    assert_eq!(
        fields(&status),
        [
            "product.variants[0].sku",
            "product.variants[0].initial_quantity"
        ]
    );
    let status = shop
        .client
        .create_product(pb::CreateProductRequest::default())
        .await
        .unwrap_err();
    assert_eq!(fields(&status), ["product"]);
    let status = shop
        .client
        .get_product(pb::GetProductRequest { id: "x".to_owned() })
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), fields(&status)),
        (Code::InvalidArgument, vec!["id".to_owned()])
    );
    let mut wrong = reserve_request("A", 0, "");
    let status = shop.client.reserve_stock(wrong.clone()).await.unwrap_err();
    assert_eq!(fields(&status), ["request_id"]);
    wrong.request_id = "r".to_owned();
    wrong.currency_code = "XXX".to_owned();
    wrong.reference = "4111 1111 1111 1111".to_owned();
    wrong.ttl = Some(prost_types::Duration {
        seconds: i64::MAX,
        nanos: 0,
    });
    let status = shop.client.reserve_stock(wrong).await.unwrap_err();
    assert_eq!(
        fields(&status),
        ["reference", "lines[0].quantity", "currency_code", "ttl"]
    );
    let adjust = pb::AdjustStockRequest {
        sku: "A".to_owned(),
        ..Default::default()
    };
    let status = shop.client.adjust_stock(adjust).await.unwrap_err();
    assert_eq!(fields(&status), ["delta", "reason"]);
    let status = shop
        .client
        .batch_get_products(pb::BatchGetProductsRequest::default())
        .await;
    assert_eq!(fields(&status.unwrap_err()), ["ids"]);
    let ids = vec![product.id, "prd_x".to_owned()];
    let request = pb::BatchGetProductsRequest {
        ids,
        skus: vec!["..".to_owned()],
    };
    let status = shop.client.batch_get_products(request).await.unwrap_err();
    assert_eq!(fields(&status), ["ids[1]", "skus[0]"]);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_without_a_mask_changes_what_is_set() {
    let mut shop = Running::start().await;
    let before = shop.create("A", 1).await;
    let request = pb::UpdateProductRequest {
        product: Some(pb::Product {
            id: before.id.clone(),
            vendor: "Maker".to_owned(),
            etag: before.etag.clone(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let after = shop
        .client
        .update_product(request.clone())
        .await
        .unwrap()
        .into_inner();
    let after = after.product.unwrap();
    assert_eq!(
        (after.vendor.as_str(), after.title.as_str()),
        ("Maker", "A")
    );
    let mut cleared = request.clone();
    cleared.product.as_mut().unwrap().vendor.clear();
    cleared.product.as_mut().unwrap().etag.clear();
    cleared.update_mask = Some(prost_types::FieldMask {
        paths: vec!["vendor".to_owned()],
    });
    let after = shop
        .client
        .update_product(cleared)
        .await
        .unwrap()
        .into_inner()
        .product
        .unwrap();
    assert_eq!(after.vendor, "");
    let stale = shop.client.update_product(request).await.unwrap_err();
    assert_eq!(
        (stale.code(), reason(&stale).as_str()),
        (Code::Aborted, "ETAG_MISMATCH")
    );
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_stream_in_and_out() {
    let mut shop = Running::start().await;
    let file = "Handle,Title,Variant SKU,Variant Price,Note\na,A,A,1.00,x\nb,B,B!,1,\nc,C,C,2.50,\"y\nz\"\n";
    let messages =
        file.as_bytes()
            .chunks(7)
            .enumerate()
            .map(|(index, piece)| pb::ImportProductsRequest {
                currency_code: if index == 0 {
                    "USD".to_owned()
                } else {
                    String::new()
                },
                file: Some(mesh_proto::google_api::HttpBody {
                    content_type: "text/csv".to_owned(),
                    data: piece.to_vec(),
                    extensions: Vec::new(),
                }),
            });
    let messages: Vec<_> = messages.collect();
    let report = shop
        .client
        .import_products(futures_util::stream::iter(messages))
        .await
        .unwrap();
    let report = report.into_inner();
    assert_eq!((report.created, report.refused_count), (2, 1));
    assert_eq!(
        (report.refused[0].line, report.refused[0].column.as_str()),
        (3, "Variant SKU")
    );
    let request = pb::ExportProductsRequest {
        currency_code: "USD".to_owned(),
        drop_other_prices: false,
    };
    let mut pieces = shop
        .client
        .export_products(request)
        .await
        .unwrap()
        .into_inner();
    let mut exported = Vec::new();
    while let Some(piece) = pieces.message().await.unwrap() {
        exported.extend(piece.body.unwrap().data);
    }
    let exported = String::from_utf8(exported).unwrap();
    assert!(exported.contains("\"y\nz\""), "{exported}");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_are_told_and_do_not_hold_up_the_end() {
    let mut shop = Running::start().await;
    let request = pb::WatchProductsRequest {
        resume_revision: None,
    };
    let mut watching = shop
        .client
        .watch_products(request)
        .await
        .unwrap()
        .into_inner();
    let product = shop.create("A", 1).await;
    let change = watching.message().await.unwrap().unwrap();
    assert_eq!(
        (change.revision, change.product.unwrap().id),
        (1, product.id)
    );
    let request = pb::WatchProductsRequest {
        resume_revision: Some(7),
    };
    let status = shop.client.watch_products(request).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::OutOfRange, "REVISION_OUT_OF_RANGE")
    );
    shop.stop().await;
    assert_eq!(
        watching.message().await.unwrap_err().code(),
        Code::Unavailable
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let mut shop = Running::start().await;
    let product = shop.create("A", 5).await;
    let reserved = shop
        .client
        .reserve_stock(reserve_request("A", 2, "r1"))
        .await
        .unwrap()
        .into_inner();
    let mut shop = Running::start_in(shop.stop().await).await;
    let again = shop
        .client
        .reserve_stock(reserve_request("A", 2, "r1"))
        .await
        .unwrap();
    assert!(again.metadata().get("idempotency-replayed").is_some());
    assert_eq!(again.into_inner(), reserved);
    let found = shop
        .client
        .get_product(pb::GetProductRequest { id: product.id })
        .await
        .unwrap();
    assert_eq!(
        found.into_inner().product.unwrap().variants[0].available_quantity,
        3
    );
    // An hour later the hold has run out, and the sweeper notes it.
    shop.clock.advance(3_600_000_000);
    assert_eq!(shop.service.sweep().await.unwrap().expired, 1);
    let id = reserved.reservation.unwrap().id;
    let found = shop
        .client
        .get_reservation(pb::GetReservationRequest { id })
        .await
        .unwrap();
    let state = found.into_inner().reservation.unwrap().state();
    assert_eq!(state, pb::reservation::State::Expired);
    shop.stop().await;
}
