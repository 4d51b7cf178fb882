//! Reads of products and reservations of one hot SKU, through gRPC.

use std::sync::Arc;

use anyhow::{Result, ensure};
use proto::commerce::product::v1::{
    GetProductRequest, ReserveStockRequest, product_service_client::ProductServiceClient,
    reserve_stock_request::Line,
};
use tonic::transport::Channel;

use crate::{
    load::{Caller, fresh_key},
    seed,
};

/// How long the hot SKU is held: longer than a run, so that no hold expires within it.
const HOLD_SECONDS: i64 = 24 * 3_600;

/// Reads one product after another.
pub(crate) struct Reader {
    client: ProductServiceClient<Channel>,
    ids: Arc<[String]>,
}

impl Reader {
    /// So many of them, who read any of these products.
    pub(crate) fn many(clients: usize, channels: &[Channel], ids: &Arc<[String]>) -> Vec<Reader> {
        let reader = |channel: &Channel| Reader {
            client: ProductServiceClient::new(channel.clone()),
            ids: ids.clone(),
        };
        channels.iter().cycle().take(clients).map(reader).collect()
    }
}

impl Caller for Reader {
    async fn call(&mut self) -> Result<()> {
        let id = &self.ids[rand::random_range(0..self.ids.len())];
        let request = GetProductRequest { id: id.clone() };
        let answer = self.client.get_product(request).await?.into_inner();
        let product = answer.product.unwrap_or_default();
        ensure!(product.id == *id, "{id}: product {:?} came", product.id);
        ensure!(!product.variants.is_empty(), "{id} came without variants");
        Ok(())
    }
}

/// Holds a unit of the hot SKU each time.
pub(crate) struct Reserver {
    client: ProductServiceClient<Channel>,
}

impl Reserver {
    /// So many of them.
    pub(crate) fn many(clients: usize, channels: &[Channel]) -> Vec<Reserver> {
        let reserver = |channel: &Channel| Reserver {
            client: ProductServiceClient::new(channel.clone()),
        };
        channels
            .iter()
            .cycle()
            .take(clients)
            .map(reserver)
            .collect()
    }
}

impl Caller for Reserver {
    async fn call(&mut self) -> Result<()> {
        let request = ReserveStockRequest {
            reference: "bench".to_owned(),
            lines: vec![Line {
                sku: seed::HOT_SKU.to_owned(),
                quantity: 1,
            }],
            currency_code: "USD".to_owned(),
            ttl: Some(prost_types::Duration {
                seconds: HOLD_SECONDS,
                nanos: 0,
            }),
            request_id: fresh_key(),
        };
        let answer = self.client.reserve_stock(request).await?.into_inner();
        let lines = answer.reservation.unwrap_or_default().lines;
        ensure!(lines.len() == 1, "a reservation without its line");
        Ok(())
    }
}
