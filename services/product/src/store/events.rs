//! The events that changes leave behind, the same from every store. Nobody has to consume them.

use mesh_events::Event;
use prost::Message;
use proto::commerce::product::v1 as pb;

use super::{Adjustment, ChangeKind};
use crate::{
    reservation::{Happened, Reservation},
    wire,
};

/// What there is to tell, without the call that it comes from.
pub(super) struct Told {
    kind: &'static str,
    aggregate_id: String,
    aggregate_version: i64,
    body: Vec<u8>,
}

impl Told {
    fn new(kind: &'static str, id: &str, aggregate_version: i64, body: &impl Message) -> Self {
        Self {
            kind,
            aggregate_id: id.to_owned(),
            aggregate_version,
            body: body.encode_to_vec(),
        }
    }

    /// The event, as a part of a call.
    pub(super) fn event(self, now_us: i64, traceparent: &str) -> Event {
        let kind = format!("product.{}.v1", self.kind);
        Event::new(
            kind,
            self.aggregate_id,
            self.aggregate_version,
            now_us,
            self.body,
        )
        .with_traceparent(traceparent.to_owned())
        .optional()
    }
}

/// A product was changed and is now so.
pub(super) fn changed(kind: ChangeKind, resource: &pb::Product, version: i64) -> Told {
    let id = &resource.id;
    let product = Some(resource.clone());
    match kind {
        ChangeKind::Created => Told::new(
            "ProductCreated",
            id,
            version,
            &pb::ProductCreated { product },
        ),
        ChangeKind::Updated => Told::new(
            "ProductUpdated",
            id,
            version,
            &pb::ProductUpdated { product },
        ),
        ChangeKind::Deleted => {
            let product_id = id.clone();
            Told::new(
                "ProductDeleted",
                id,
                version,
                &pb::ProductDeleted { product_id },
            )
        }
        ChangeKind::Undeleted => {
            let body = pb::ProductUndeleted { product };
            Told::new("ProductUndeleted", id, version, &body)
        }
    }
}

/// Stock was adjusted by hand and is now so.
pub(super) fn adjusted(adjustment: &Adjustment, resource: &pb::Stock, version: i64) -> Told {
    let body = pb::StockAdjusted {
        stock: Some(resource.clone()),
        delta: adjustment.delta,
        reason: adjustment.reason.clone(),
    };
    Told::new("StockAdjusted", &adjustment.sku, version, &body)
}

/// Stock was reserved.
pub(super) fn reserved(after: &Reservation) -> Told {
    let reservation = Some(wire::reservation(after));
    let id = after.id.to_string();
    Told::new(
        "StockReserved",
        &id,
        after.version,
        &pb::StockReserved { reservation },
    )
}

/// Something happened to a reservation; `None`: nothing that anybody has to hear of.
pub(super) fn settled(happened: Happened, after: &Reservation) -> Option<Told> {
    let (id, version) = (&after.id.to_string(), after.version);
    let reservation = Some(wire::reservation(after));
    match happened {
        Happened::Extended => None, // Nobody's stock changes by it.
        Happened::Committed => {
            let body = pb::ReservationCommitted { reservation };
            Some(Told::new("ReservationCommitted", id, version, &body))
        }
        Happened::Released => {
            let body = pb::ReservationReleased { reservation };
            Some(Told::new("ReservationReleased", id, version, &body))
        }
        Happened::Expired => {
            let body = pb::ReservationExpired { reservation };
            Some(Told::new("ReservationExpired", id, version, &body))
        }
        Happened::Restocked => {
            let body = pb::ReservationRestocked { reservation };
            Some(Told::new("ReservationRestocked", id, version, &body))
        }
    }
}
