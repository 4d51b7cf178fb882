//! What payment needs from the product service: a port, and its implementation over the mesh.
//!
//! Every command derives its request id from the attempt, capture or refund that it serves, so that
//! repeating it is safe, whoever repeats it. All are made in the name of this service: product
//! scopes request ids to the caller, and the worker that resumes has no caller.

use crate::failure::{Failure, FailureCode};
use crate::payment::Item;
use crate::record::{Report, ReserveAnswer, StockAnswer};
use crate::step::StockCall;
use async_trait::async_trait;
use kernel::{Currency, PaymentId};
use mesh::{CallContext, Client, Mesh, Principal};
use proto::commerce::product::v1 as pb;
use proto::commerce::product::v1::product_service_client::ProductServiceClient;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Why there is no quote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuoteError {
    /// A SKU that does not exist, is not sold, or has no price in the currency.
    NotSold {
        /// Its place among those asked for.
        index: usize,
        /// Why, for people.
        reason: String,
    },
    /// No answer.
    Unavailable,
}

/// What payment asks of the product service. Shared as `Arc<dyn Catalogue>`.
#[async_trait]
pub trait Catalogue: Send + Sync {
    /// The items as they are at this moment; nothing is held.
    async fn quote(
        &self,
        lines: &[(String, i32)],
        currency: Currency,
    ) -> Result<Vec<Item>, QuoteError>;

    /// Holds all lines or none, for `hold_us` microseconds.
    async fn reserve(
        &self,
        request_id: &str,
        reference: &str,
        lines: &[(String, i32)],
        currency: Currency,
        hold_us: i64,
    ) -> ReserveAnswer;

    /// Holds for `hold_us` microseconds from now.
    async fn extend(&self, request_id: &str, reservation: &str, hold_us: i64) -> StockAnswer;

    /// Takes lines out of stock; none: all that is still held.
    async fn commit(
        &self,
        request_id: &str,
        reservation: &str,
        lines: &[(String, i32)],
    ) -> StockAnswer;

    /// Makes free what is still held.
    async fn release(&self, request_id: &str, reservation: &str) -> StockAnswer;

    /// Puts committed units back.
    async fn restock(
        &self,
        request_id: &str,
        reservation: &str,
        lines: &[(String, i32)],
    ) -> StockAnswer;
}

/// Makes a call to the product service. Each derives its request id from what it serves, so that
/// whoever repeats it repeats the same command.
pub async fn ask_catalogue(
    stock: &dyn Catalogue,
    payment: PaymentId,
    call: &StockCall,
    now_us: i64,
) -> Report {
    match call {
        StockCall::Reserve {
            attempt,
            lines,
            currency,
            hold_us,
        } => {
            let (key, reference) = (format!("{attempt}:reserve"), payment.to_string());
            let answer = stock
                .reserve(&key, &reference, lines, *currency, *hold_us)
                .await;
            Report::Reserve(*attempt, answer)
        }
        StockCall::Extend {
            attempt,
            reservation,
            hold_us,
        } => {
            // Each extension is a command of its own; making one twice only holds for longer.
            let key = format!("{attempt}:extend:{now_us}:{hold_us}");
            Report::Extend(*attempt, stock.extend(&key, reservation, *hold_us).await)
        }
        StockCall::Commit {
            attempt,
            reservation,
        } => {
            let key = format!("{attempt}:commit");
            Report::Commit(*attempt, stock.commit(&key, reservation, &[]).await)
        }
        StockCall::CommitCapture {
            capture,
            reservation,
            lines,
        } => {
            let key = format!("{capture}:commit");
            Report::CommitCapture(*capture, stock.commit(&key, reservation, lines).await)
        }
        StockCall::Release {
            attempt,
            reservation,
        } => {
            let key = format!("{attempt}:release");
            Report::Release(*attempt, stock.release(&key, reservation).await)
        }
        StockCall::Restock {
            attempt,
            reservation,
            lines,
        } => {
            let key = format!("{attempt}:restock");
            Report::Restock(*attempt, stock.restock(&key, reservation, lines).await)
        }
        StockCall::RestockRefund {
            refund,
            reservation,
            lines,
        } => {
            let key = format!("{refund}:restock");
            Report::RestockRefund(*refund, stock.restock(&key, reservation, lines).await)
        }
    }
}

/// The product service, over the mesh.
#[derive(Clone)]
pub struct ProductCatalogue {
    client: ProductServiceClient<Client>,
    principal: Principal,
}

impl ProductCatalogue {
    /// Over `mesh`, at its destination `product`.
    pub fn new(mesh: &Mesh) -> Self {
        Self {
            client: ProductServiceClient::new(mesh.client("product")),
            principal: Principal::new("payment", Vec::<String>::new()),
        }
    }

    async fn as_payment<F: Future>(&self, call: F) -> F::Output {
        CallContext::current()
            .with_principal(self.principal.clone())
            .scope(call)
            .await
    }
}

#[async_trait]
impl Catalogue for ProductCatalogue {
    async fn quote(
        &self,
        lines: &[(String, i32)],
        currency: Currency,
    ) -> Result<Vec<Item>, QuoteError> {
        let skus: Vec<String> = lines.iter().map(|(sku, _)| sku.clone()).collect();
        let request = pb::BatchGetProductsRequest {
            ids: Vec::new(),
            skus: skus.clone(),
        };
        let mut client = self.client.clone();
        let products = match self.as_payment(client.batch_get_products(request)).await {
            Ok(answer) => answer.into_inner().products,
            Err(status) if status.code() == Code::NotFound => {
                return Err(not_found(&status, &skus));
            }
            Err(status) => {
                tracing::warn!(code = ?status.code(), "no quote: {}", status.message());
                return Err(QuoteError::Unavailable);
            }
        };
        if products.len() != lines.len() {
            return Err(QuoteError::Unavailable);
        }
        let quoted = lines.iter().zip(&products).enumerate();
        quoted
            .map(|(index, ((sku, quantity), product))| {
                item_of(product, sku, *quantity, currency)
                    .map_err(|reason| QuoteError::NotSold { index, reason })
            })
            .collect()
    }

    async fn reserve(
        &self,
        request_id: &str,
        reference: &str,
        lines: &[(String, i32)],
        currency: Currency,
        hold_us: i64,
    ) -> ReserveAnswer {
        let request = pb::ReserveStockRequest {
            reference: reference.to_owned(),
            lines: lines
                .iter()
                .map(|(sku, quantity)| pb::reserve_stock_request::Line {
                    sku: sku.clone(),
                    quantity: *quantity,
                })
                .collect(),
            currency_code: currency.code().to_owned(),
            ttl: Some(duration(hold_us)),
            request_id: request_id.to_owned(),
        };
        let mut client = self.client.clone();
        match self.as_payment(client.reserve_stock(request)).await {
            Ok(answer) => answer
                .into_inner()
                .reservation
                .and_then(|reservation| held(reservation, currency))
                .unwrap_or(ReserveAnswer::Unavailable),
            Err(status) => not_reserved(&status),
        }
    }

    async fn extend(&self, request_id: &str, reservation: &str, hold_us: i64) -> StockAnswer {
        let request = pb::ExtendReservationRequest {
            id: reservation.to_owned(),
            ttl: Some(duration(hold_us)),
            request_id: request_id.to_owned(),
        };
        let mut client = self.client.clone();
        let answer = self.as_payment(client.extend_reservation(request)).await;
        stock_answer(answer.map(|answer| answer.into_inner().reservation))
    }

    async fn commit(
        &self,
        request_id: &str,
        reservation: &str,
        lines: &[(String, i32)],
    ) -> StockAnswer {
        let request = pb::CommitReservationRequest {
            id: reservation.to_owned(),
            lines: quantities(lines),
            release_rest: false,
            request_id: request_id.to_owned(),
        };
        let mut client = self.client.clone();
        let answer = self.as_payment(client.commit_reservation(request)).await;
        stock_answer(answer.map(|answer| answer.into_inner().reservation))
    }

    async fn release(&self, request_id: &str, reservation: &str) -> StockAnswer {
        let request = pb::ReleaseReservationRequest {
            id: reservation.to_owned(),
            request_id: request_id.to_owned(),
        };
        let mut client = self.client.clone();
        let answer = self.as_payment(client.release_reservation(request)).await;
        stock_answer(answer.map(|answer| answer.into_inner().reservation))
    }

    async fn restock(
        &self,
        request_id: &str,
        reservation: &str,
        lines: &[(String, i32)],
    ) -> StockAnswer {
        let request = pb::RestockReservationRequest {
            id: reservation.to_owned(),
            lines: quantities(lines),
            request_id: request_id.to_owned(),
        };
        let mut client = self.client.clone();
        let answer = self.as_payment(client.restock_reservation(request)).await;
        stock_answer(answer.map(|answer| answer.into_inner().reservation))
    }
}

fn item_of(
    product: &pb::Product,
    sku: &str,
    quantity: i32,
    currency: Currency,
) -> Result<Item, String> {
    if product.delete_time.is_some() || product.status() != pb::product::Status::Active {
        return Err(format!("{sku} is not sold"));
    }
    let variant = product.variants.iter().find(|variant| variant.sku == sku);
    let variant = variant.ok_or_else(|| format!("{sku} does not exist"))?;
    let price = variant
        .prices
        .iter()
        .find(|price| price.currency_code == currency.code());
    let price = price.ok_or_else(|| format!("{sku} has no price in {currency}"))?;
    Ok(Item {
        sku: sku.to_owned(),
        quantity,
        product_id: product.id.clone(),
        title: product.title.clone(),
        category: product.category.clone(),
        unit_price_minor: price.amount_minor,
    })
}

/// Which of the SKUs asked for is missing: product names all of them, divided by commas.
fn not_found(status: &Status, skus: &[String]) -> QuoteError {
    let details = status.get_error_details();
    let missing = details
        .resource_info()
        .map(|info| info.resource_name.clone());
    let missing = missing.unwrap_or_default();
    let named = |sku: &String| missing.split(',').any(|name| name == sku);
    let index = skus.iter().position(named).unwrap_or(0);
    let sku = skus.get(index).map_or("", String::as_str);
    QuoteError::NotSold {
        index,
        reason: format!("{sku} does not exist"),
    }
}

fn held(reservation: pb::Reservation, currency: Currency) -> Option<ReserveAnswer> {
    let items = reservation.lines.iter().map(|line| {
        let price = line.unit_price.as_ref()?;
        (price.currency_code == currency.code()).then(|| Item {
            sku: line.sku.clone(),
            quantity: line.quantity,
            product_id: line.product_id.clone(),
            title: line.title.clone(),
            category: line.category.clone(),
            unit_price_minor: price.amount_minor,
        })
    });
    Some(ReserveAnswer::Held {
        items: items.collect::<Option<Vec<_>>>()?,
        expires_at_us: expiry(&reservation)?,
        reservation: reservation.id,
    })
}

fn not_reserved(status: &Status) -> ReserveAnswer {
    let details = status.get_error_details();
    let info = details.error_info();
    // Of what is short the first is in the metadata; of what is not sold it is the subject.
    let violations = details
        .precondition_failure()
        .map(|failure| &failure.violations);
    let subject = violations
        .and_then(|violations| violations.first())
        .map(|v| &v.subject);
    let sku = info.and_then(|info| info.metadata.get("sku")).or(subject);
    let sku = sku.cloned().unwrap_or_default();
    let code = match status.code() {
        Code::FailedPrecondition if info.is_some_and(|info| info.reason == "OUT_OF_STOCK") => {
            FailureCode::OutOfStock
        }
        Code::FailedPrecondition | Code::NotFound | Code::InvalidArgument => {
            FailureCode::ProductUnavailable
        }
        _ => {
            tracing::warn!(code = ?status.code(), "not reserved: {}", status.message());
            return ReserveAnswer::Unavailable;
        }
    };
    ReserveAnswer::Refused(Failure::new(code, status.message()).of_item(sku))
}

fn stock_answer(answer: Result<Option<pb::Reservation>, Status>) -> StockAnswer {
    match answer {
        Ok(reservation) => StockAnswer::Done {
            expires_at_us: reservation.as_ref().and_then(expiry),
        },
        Err(status) => match status.code() {
            Code::FailedPrecondition | Code::NotFound | Code::InvalidArgument => {
                tracing::warn!(code = ?status.code(), "stock refused: {}", status.message());
                StockAnswer::Refused
            }
            code => {
                tracing::warn!(?code, "stock step not done: {}", status.message());
                StockAnswer::Unavailable
            }
        },
    }
}

fn quantities(lines: &[(String, i32)]) -> Vec<pb::ReservationLineQuantity> {
    let of_line = |(sku, quantity): &(String, i32)| pb::ReservationLineQuantity {
        sku: sku.clone(),
        quantity: *quantity,
    };
    lines.iter().map(of_line).collect()
}

fn expiry(reservation: &pb::Reservation) -> Option<i64> {
    let time = reservation.expire_time.as_ref()?;
    kernel::day::from_seconds_nanos("expire_time", time.seconds, time.nanos).ok()
}

fn duration(us: i64) -> prost_types::Duration {
    let nanos = i32::try_from(us % 1_000_000 * 1000).expect("below 10^9");
    prost_types::Duration {
        seconds: us / 1_000_000,
        nanos,
    }
}
