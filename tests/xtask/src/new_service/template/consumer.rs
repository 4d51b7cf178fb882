//! Events in: the titles of products, so that no call to the product service is needed to show one.
//!
//! A copy that replaces itself: events may come late, twice and in any order, and an older version changes nothing.

use std::sync::Arc;

use async_trait::async_trait;
use mesh_events::{Event, Handler, HandlerError};
use mesh_runtime::Clock;
use prost::Message as _;
use proto::commerce::product::v1 as product;

use crate::{store::Store, widget::Title};

const CREATED: &str = "product.ProductCreated.v1";
const UPDATED: &str = "product.ProductUpdated.v1";
/// The kinds of event that it takes.
pub const KINDS: [&str; 2] = [CREATED, UPDATED];

/// Keeps titles.
pub struct Titles {
    store: Arc<dyn Store>,
    clock: Clock,
}

impl Titles {
    /// A handler that keeps them in this store.
    pub fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        Self { store, clock }
    }
}

#[async_trait]
impl Handler for Titles {
    async fn handle(&self, event: &Event) -> Result<(), HandlerError> {
        let title = title(event)?;
        let now_us = self.clock.now_us();
        let kept = self.store.keep_title(event.message_id, &title, now_us);
        let first = kept.await.map_err(HandlerError::transient)?;
        tracing::debug!(message.id = %event.message_id, first, "title kept");
        Ok(())
    }
}

fn title(event: &Event) -> Result<Title, HandlerError> {
    let poison = |error: prost::DecodeError| HandlerError::Poison(error.to_string());
    let body = &*event.body;
    let product = match &*event.kind {
        CREATED => product::ProductCreated::decode(body).map_err(poison)?.product,
        UPDATED => product::ProductUpdated::decode(body).map_err(poison)?.product,
        kind => return Err(HandlerError::Poison(format!("{kind} is not consumed here"))),
    };
    let product = product.ok_or_else(|| HandlerError::Poison("no product".to_owned()))?;
    Ok(Title {
        product_id: product.id,
        title: product.title,
        version: event.aggregate_version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_read_with_the_version_of_its_product() {
        let product = Some(product::Product {
            id: "prd_1".to_owned(),
            title: "Tea".to_owned(),
            ..product::Product::default()
        });
        let body = product::ProductUpdated { product }.encode_to_vec();
        let title = title(&Event::new(UPDATED, "prd_1", 3, 1, body)).unwrap();
        assert_eq!((&*title.title, title.version), ("Tea", 3));
    }

    #[test]
    fn what_is_no_title_is_poison() {
        for (kind, body) in [(UPDATED, ""), (UPDATED, "\u{7f}"), ("a.B.v1", "")] {
            let read = title(&Event::new(kind, "prd_1", 1, 1, body));
            assert!(matches!(read, Err(HandlerError::Poison(_))), "{kind}");
        }
    }
}
