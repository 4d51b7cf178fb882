//! The contract's messages and the domain's values: reads requests, asks the store, answers. No
//! decisions.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt as _, stream};
use kernel::{Currency, Invalid, ProductId, ReservationId, text};
use mesh_proto::google_api::HttpBody;
use mesh_runtime::Clock;
use proto::commerce::product::v1::{self as pb, product_service_server::ProductService};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataValue};

mod read;

use crate::{
    config::{Config, TransferConfig},
    error::Error,
    listing::{BATCH_MAX, ListQuery, SearchQuery, View},
    product::Field,
    reservation::{self, Command},
    store::{Adjustment, Answer, Change, ChangeKind, Origin, Store, Update},
    transfer,
    watch::Watchers,
    wire,
};
use read::Keyed;

/// What serves the RPCs.
pub(crate) struct Api {
    store: Arc<dyn Store>,
    transfer: TransferConfig,
    ttl_default_us: i64,
    watchers: Watchers,
    clock: Clock,
}

impl Api {
    /// Serves a store; watchers are let go when it is `draining`.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        config: &Config,
        clock: Clock,
        draining: CancellationToken,
    ) -> Self {
        Self {
            watchers: Watchers::new(store.clone(), config.watch.clone(), draining),
            transfer: config.transfer.clone(),
            ttl_default_us: i64::from(config.reservation_ttl_default_ms) * 1_000,
            store,
            clock,
        }
    }

    /// Where a mutation comes from.
    fn origin<R: Keyed>(&self, request: &R) -> Result<Origin, Error> {
        let context = mesh::CallContext::current();
        Ok(Origin {
            key: read::key(request, context.principal().name())?,
            now_us: self.clock.now_us(),
            traceparent: context.traceparent(),
        })
    }

    async fn command<R: Keyed>(
        &self,
        request: &R,
        id: &str,
        command: Result<Command, Vec<Invalid>>,
    ) -> Result<Answer<pb::Reservation>, Error> {
        let id = read::parsed("id", ReservationId::parse(id));
        let (id, command) = read::both(id, command)?;
        self.store
            .command(&self.origin(request)?, id, &command)
            .await
    }
}

/// An answer with the metadata that says whether it is a repetition.
fn answer<M, T>(answer: Answer<M>, response: impl FnOnce(Option<M>) -> T) -> Response<T> {
    let mut wrapped = Response::new(response(Some(answer.resource)));
    if answer.replayed {
        let metadata = wrapped.metadata_mut();
        metadata.insert("idempotency-replayed", MetadataValue::from_static("true"));
    }
    wrapped
}

fn products(views: &[View]) -> Vec<pb::Product> {
    views.iter().map(wire::product).collect()
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ProductService for Api {
    async fn get_product(
        &self,
        request: Request<pb::GetProductRequest>,
    ) -> Result<Response<pb::GetProductResponse>, Status> {
        let id =
            read::parsed("id", ProductId::parse(&request.get_ref().id)).map_err(Error::from)?;
        let view = self.store.get(id, self.clock.now_us()).await?;
        Ok(Response::new(pb::GetProductResponse {
            product: Some(wire::product(&view)),
        }))
    }

    async fn batch_get_products(
        &self,
        request: Request<pb::BatchGetProductsRequest>,
    ) -> Result<Response<pb::BatchGetProductsResponse>, Status> {
        let request = request.into_inner();
        let asked = request.ids.len() + request.skus.len();
        if asked == 0 || asked > BATCH_MAX {
            let reason = format!("must be 1 to {BATCH_MAX} together with skus, and are {asked}");
            return Err(Error::invalid("ids", reason).into());
        }
        let ids = read::each("ids", &request.ids, |field, id| {
            read::parsed(field, ProductId::parse(id))
        });
        let skus = read::each("skus", &request.skus, |field, sku| {
            text::sku(field, sku).map_err(|invalid| vec![invalid])
        });
        let (ids, _) = read::both(ids, skus)?;
        let views = self
            .store
            .batch_get(&ids, &request.skus, self.clock.now_us())
            .await?;
        Ok(Response::new(pb::BatchGetProductsResponse {
            products: products(&views),
        }))
    }

    async fn list_products(
        &self,
        request: Request<pb::ListProductsRequest>,
    ) -> Result<Response<pb::ListProductsResponse>, Status> {
        let pb::ListProductsRequest {
            page_size,
            page_token,
            filter,
            order_by,
            show_deleted,
        } = request.into_inner();
        let query = ListQuery::parse(page_size, &page_token, &filter, &order_by, show_deleted)
            .map_err(Error::Invalid)?;
        let page = self.store.list(&query, self.clock.now_us()).await?;
        Ok(Response::new(pb::ListProductsResponse {
            products: products(&page.views),
            next_page_token: page.next_page_token,
            revision: page.revision,
        }))
    }

    async fn search_products(
        &self,
        request: Request<pb::SearchProductsRequest>,
    ) -> Result<Response<pb::SearchProductsResponse>, Status> {
        let pb::SearchProductsRequest {
            query,
            page_size,
            page_token,
        } = request.into_inner();
        let query = SearchQuery::parse(&query, page_size, &page_token).map_err(Error::Invalid)?;
        let page = self.store.search(&query, self.clock.now_us()).await?;
        Ok(Response::new(pb::SearchProductsResponse {
            products: products(&page.views),
            next_page_token: page.next_page_token,
        }))
    }

    async fn create_product(
        &self,
        request: Request<pb::CreateProductRequest>,
    ) -> Result<Response<pb::CreateProductResponse>, Status> {
        let request = request.into_inner();
        let draft = read::draft(request.product.as_ref())?;
        let created = self.store.create(&self.origin(&request)?, &draft).await?;
        Ok(answer(created, |product| pb::CreateProductResponse {
            product,
        }))
    }

    async fn update_product(
        &self,
        request: Request<pb::UpdateProductRequest>,
    ) -> Result<Response<pb::UpdateProductResponse>, Status> {
        let request = request.into_inner();
        let given = request.product.as_ref();
        let id = given.map_or("", |product| product.id.as_str());
        let id = read::parsed("product.id", ProductId::parse(id)).map_err(Error::from)?;
        let fields = match &request.update_mask {
            Some(mask) if !mask.paths.is_empty() => Field::parse_mask(&mask.paths)?,
            _ => given.map(read::fields_set).unwrap_or_default(),
        };
        let update = Update {
            id,
            fields,
            draft: read::draft(given)?,
            etag: given
                .map(|product| product.etag.clone())
                .unwrap_or_default(),
        };
        let updated = self.store.update(&self.origin(&request)?, &update).await?;
        Ok(answer(updated, |product| pb::UpdateProductResponse {
            product,
        }))
    }

    async fn delete_product(
        &self,
        request: Request<pb::DeleteProductRequest>,
    ) -> Result<Response<pb::DeleteProductResponse>, Status> {
        let request = request.into_inner();
        let id = read::parsed("id", ProductId::parse(&request.id)).map_err(Error::from)?;
        let deleted = self
            .store
            .delete(&self.origin(&request)?, id, &request.etag)
            .await?;
        Ok(answer(deleted, |product| pb::DeleteProductResponse {
            product,
        }))
    }

    async fn undelete_product(
        &self,
        request: Request<pb::UndeleteProductRequest>,
    ) -> Result<Response<pb::UndeleteProductResponse>, Status> {
        let request = request.into_inner();
        let id = read::parsed("id", ProductId::parse(&request.id)).map_err(Error::from)?;
        let undeleted = self.store.undelete(&self.origin(&request)?, id).await?;
        Ok(answer(undeleted, |product| pb::UndeleteProductResponse {
            product,
        }))
    }

    async fn import_products(
        &self,
        request: Request<Streaming<pb::ImportProductsRequest>>,
    ) -> Result<Response<pb::ImportProductsResponse>, Status> {
        let mut messages = request.into_inner();
        let first = messages.message().await?.unwrap_or_default();
        let currency = read::currency("currency_code", &first.currency_code)?;
        let pieces = stream::once(async move { read::piece(first, currency) }).chain(
            messages.map(move |message| read::piece(message.map_err(read::broken_off)?, currency)),
        );
        let origin = Origin {
            key: None,
            now_us: self.clock.now_us(),
            traceparent: mesh::CallContext::current().traceparent(),
        };
        let report =
            transfer::import(&*self.store, &self.transfer, &origin, currency, pieces).await?;
        Ok(Response::new(read::report(report)))
    }

    type ExportProductsStream = Answers<pb::ExportProductsResponse>;

    async fn export_products(
        &self,
        request: Request<pb::ExportProductsRequest>,
    ) -> Result<Response<Self::ExportProductsStream>, Status> {
        let request = request.into_inner();
        let currency = read::currency("currency_code", &request.currency_code)?;
        let store = self.store.clone();
        let pieces =
            transfer::export(store, &self.transfer, currency, request.drop_other_prices).await?;
        let messages = pieces.map(|piece| {
            let body = HttpBody {
                content_type: "text/csv; charset=utf-8".to_owned(),
                data: piece?.into(),
                extensions: Vec::new(),
            };
            Ok(pb::ExportProductsResponse { body: Some(body) })
        });
        Ok(Response::new(Box::pin(messages)))
    }

    type WatchProductsStream = Answers<pb::WatchProductsResponse>;

    async fn watch_products(
        &self,
        request: Request<pb::WatchProductsRequest>,
    ) -> Result<Response<Self::WatchProductsStream>, Status> {
        let changes = self
            .watchers
            .watch(request.into_inner().resume_revision)
            .await?;
        Ok(Response::new(Box::pin(
            changes.map(|change| Ok(watched(change?))),
        )))
    }

    async fn get_stock(
        &self,
        request: Request<pb::GetStockRequest>,
    ) -> Result<Response<pb::GetStockResponse>, Status> {
        let sku = request.into_inner().sku;
        text::sku("sku", &sku).map_err(Error::from)?;
        let stock = self.store.stock(&sku, self.clock.now_us()).await?;
        Ok(Response::new(pb::GetStockResponse {
            stock: Some(wire::stock(&stock)),
        }))
    }

    async fn adjust_stock(
        &self,
        request: Request<pb::AdjustStockRequest>,
    ) -> Result<Response<pb::AdjustStockResponse>, Status> {
        let request = request.into_inner();
        read::check_adjustment(&request)?;
        let adjustment = Adjustment {
            sku: request.sku.clone(),
            delta: request.delta,
            reason: request.reason.clone(),
        };
        let adjusted = self
            .store
            .adjust(&self.origin(&request)?, &adjustment)
            .await?;
        Ok(answer(adjusted, |stock| pb::AdjustStockResponse { stock }))
    }

    async fn reserve_stock(
        &self,
        request: Request<pb::ReserveStockRequest>,
    ) -> Result<Response<pb::ReserveStockResponse>, Status> {
        let request = request.into_inner();
        let origin = self.origin(&request)?;
        let wish = read::wish(&request, self.ttl_default_us, origin.now_us)?;
        let reserved = self.store.reserve(&origin, &wish).await?;
        Ok(answer(reserved, |reservation| pb::ReserveStockResponse {
            reservation,
        }))
    }

    async fn extend_reservation(
        &self,
        request: Request<pb::ExtendReservationRequest>,
    ) -> Result<Response<pb::ExtendReservationResponse>, Status> {
        let request = request.into_inner();
        let command = read::ttl_us(request.ttl.as_ref())
            .and_then(|ttl_us| reservation::expiry("ttl", ttl_us, self.clock.now_us()))
            .map(|expires_at_us| Command::Extend { expires_at_us })
            .map_err(|invalid| vec![invalid]);
        let extended = self.command(&request, &request.id, command).await?;
        Ok(answer(extended, |reservation| {
            pb::ExtendReservationResponse { reservation }
        }))
    }

    async fn commit_reservation(
        &self,
        request: Request<pb::CommitReservationRequest>,
    ) -> Result<Response<pb::CommitReservationResponse>, Status> {
        let request = request.into_inner();
        let release_rest = request.release_rest;
        let command = read::parts(&request.lines).map(|parts| Command::Commit {
            parts,
            release_rest,
        });
        let committed = self.command(&request, &request.id, command).await?;
        Ok(answer(committed, |reservation| {
            pb::CommitReservationResponse { reservation }
        }))
    }

    async fn release_reservation(
        &self,
        request: Request<pb::ReleaseReservationRequest>,
    ) -> Result<Response<pb::ReleaseReservationResponse>, Status> {
        let request = request.into_inner();
        let released = self
            .command(&request, &request.id, Ok(Command::Release))
            .await?;
        Ok(answer(released, |reservation| {
            pb::ReleaseReservationResponse { reservation }
        }))
    }

    async fn restock_reservation(
        &self,
        request: Request<pb::RestockReservationRequest>,
    ) -> Result<Response<pb::RestockReservationResponse>, Status> {
        let request = request.into_inner();
        let command = if request.lines.is_empty() {
            Err(vec![Invalid::new("lines", "must be at least one line")])
        } else {
            read::parts(&request.lines).map(|parts| Command::Restock { parts })
        };
        let restocked = self.command(&request, &request.id, command).await?;
        Ok(answer(restocked, |reservation| {
            pb::RestockReservationResponse { reservation }
        }))
    }

    async fn get_reservation(
        &self,
        request: Request<pb::GetReservationRequest>,
    ) -> Result<Response<pb::GetReservationResponse>, Status> {
        let id =
            read::parsed("id", ReservationId::parse(&request.get_ref().id)).map_err(Error::from)?;
        let found = self.store.reservation(id, self.clock.now_us()).await?;
        let reservation = Some(wire::reservation(&found));
        Ok(Response::new(pb::GetReservationResponse { reservation }))
    }
}

fn watched(change: Change) -> pb::WatchProductsResponse {
    let kind = match change.kind {
        ChangeKind::Created => pb::watch_products_response::Change::Created,
        ChangeKind::Updated => pb::watch_products_response::Change::Updated,
        ChangeKind::Deleted => pb::watch_products_response::Change::Deleted,
        ChangeKind::Undeleted => pb::watch_products_response::Change::Undeleted,
    };
    pb::WatchProductsResponse {
        revision: change.revision,
        change: kind.into(),
        product: Some(change.product),
    }
}

/// The currency of a file, a price or a wish.
pub(crate) fn currency(field: &str, code: &str) -> Result<Currency, Invalid> {
    Currency::parse(code).map_err(|unknown| unknown.at(field))
}
