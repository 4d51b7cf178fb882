//! How a reservation begins: everything that was wished for is held, or nothing is.

use std::collections::BTreeMap;

use kernel::{Currency, Money, ProductId, ReservationId};

use super::{Decision, Line, Part, Reservation, State, changes};
use crate::{
    error::{Error, Shortage},
    product::Status,
    stock::Stock,
};

/// What the store knows about a variant that somebody wants to reserve.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The product.
    pub product_id: ProductId,
    /// Its title.
    pub title: String,
    /// Its category.
    pub category: String,
    /// Whether it is sold.
    pub status: Status,
    /// Whether it is deleted.
    pub deleted: bool,
    /// The price in the currency asked for.
    pub price: Option<Money>,
    /// The units.
    pub stock: Stock,
}

/// What somebody wants to have held.
#[derive(Debug, Clone)]
pub struct Wish {
    /// What for.
    pub reference: String,
    /// Which units, in the caller's order.
    pub parts: Vec<Part>,
    /// The currency of the prices.
    pub currency: Currency,
    /// When it expires.
    pub expires_at_us: i64,
}

impl Reservation {
    /// Holds all lines of a wish, or none: every line that cannot be held is named.
    pub fn place(
        id: ReservationId,
        wish: &Wish,
        offers: &BTreeMap<String, Offer>,
        now_us: i64,
    ) -> Result<Decision, Error> {
        let mut lines = Vec::with_capacity(wish.parts.len());
        let mut missing = Vec::new();
        let mut short = Vec::new();
        for part in &wish.parts {
            let Some(offer) = offers.get(&part.sku) else {
                missing.push(part.sku.clone());
                continue;
            };
            if offer.deleted {
                missing.push(part.sku.clone());
                continue;
            }
            if offer.status != Status::Active {
                return Err(Error::NotActive {
                    sku: part.sku.clone(),
                    status: offer.status,
                });
            }
            let Some(unit_price) = offer.price else {
                return Err(Error::PriceNotFound {
                    sku: part.sku.clone(),
                    currency: wish.currency,
                });
            };
            if offer.stock.available() < part.quantity {
                short.push(Shortage {
                    sku: part.sku.clone(),
                    wanted: part.quantity,
                    available: offer.stock.available(),
                });
            }
            lines.push(Line {
                sku: part.sku.clone(),
                quantity: part.quantity,
                product_id: offer.product_id,
                title: offer.title.clone(),
                category: offer.category.clone(),
                unit_price,
                committed: 0,
                restocked: 0,
            });
        }
        if !missing.is_empty() {
            return Err(Error::SkusNotFound(missing));
        }
        if !short.is_empty() {
            return Err(Error::OutOfStock(short));
        }
        let after = Self {
            id,
            reference: wish.reference.clone(),
            state: State::Held,
            lines,
            expires_at_us: wish.expires_at_us,
            created_at_us: now_us,
            version: 1,
        };
        let taken = after.lines.iter().map(|line| (&line.sku, 0, line.quantity));
        Ok(Decision {
            stock: changes(taken),
            after,
            happened: None,
        })
    }
}
