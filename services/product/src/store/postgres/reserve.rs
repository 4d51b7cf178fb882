//! Reservations, several at a time: each is held as a whole or not at all, and one that can not be held does not
//! keep the others from it.
//!
//! They are placed one after another on the stock as it was read, each on what the ones before it left, and
//! written together.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kernel::{Currency, ProductId, ReservationId};
use mesh_store::Postgres;
use prost::Message as _;
use proto::commerce::product::v1 as pb;
use sqlx::FromRow as _;

use super::{
    attempts::{Attempts, database_error},
    catalogue::money,
    corrupt,
    reservations::expire_for,
    writes::Writes,
};
use crate::{
    error::Error,
    product::Status,
    reservation::{Decision, Offer, Reservation, Wish},
    stock::Stock,
    store::Origin,
    wire,
};

/// A reservation that somebody asks for.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) origin: Origin,
    pub(super) wish: Wish,
}

type Outcome = Result<pb::Reservation, Error>;

/// Holds what is asked for: an outcome each, in their order. A key that was used before is [`Error::InFlight`].
pub(super) async fn reserve_all(
    postgres: &Postgres,
    asked: &[Asked],
    attempts_max: u32,
) -> Vec<Outcome> {
    let error = match together(postgres, asked, attempts_max).await {
        Ok(outcomes) => return outcomes,
        Err(error) if asked.len() == 1 => return vec![Err(error)],
        Err(error) => error,
    };
    let one_is_wrong = match &error {
        Error::InFlight => true,
        Error::Storage(_) => database_error(&error).is_some(),
        _ => false,
    };
    let mut outcomes = Vec::with_capacity(asked.len());
    for one in asked {
        outcomes.push(if one_is_wrong {
            match together(postgres, std::slice::from_ref(one), attempts_max).await {
                Ok(mut outcome) => outcome.pop().expect("one outcome each"),
                Err(error) => Err(error),
            }
        } else {
            Err(error.repeated())
        });
    }
    outcomes
}

/// All in one transaction; an error is about all of them.
async fn together(
    postgres: &Postgres,
    asked: &[Asked],
    attempts_max: u32,
) -> Result<Vec<Outcome>, Error> {
    let mut attempts = Attempts::new(attempts_max);
    loop {
        match attempt(postgres, asked).await {
            Ok(outcomes) => return Ok(outcomes),
            Err(error) => attempts.after(error)?,
        }
    }
}

async fn attempt(postgres: &Postgres, asked: &[Asked]) -> Result<Vec<Outcome>, Error> {
    let mut decisions = place(&offers(postgres, asked).await?, asked);
    if expire_what_is_short(postgres, asked, &decisions).await? {
        decisions = place(&offers(postgres, asked).await?, asked);
    }
    let mut writes = Writes::default();
    let mut outcomes = Vec::with_capacity(asked.len());
    for (Asked { origin, .. }, decision) in asked.iter().zip(decisions) {
        outcomes.push(decision.map(|decision| {
            let resource = wire::reservation(&decision.after);
            writes.reserved(&decision, origin);
            if let Some(key) = &origin.key {
                writes.answer(key, &resource.encode_to_vec(), origin.now_us);
            }
            resource
        }));
    }
    writes.apply(postgres).await?;
    Ok(outcomes)
}

/// Only where something is short does it matter whether some of what is reserved has expired. False: it has not.
async fn expire_what_is_short(
    postgres: &Postgres,
    asked: &[Asked],
    decisions: &[Result<Decision, Error>],
) -> Result<bool, Error> {
    let mut any = false;
    for (Asked { origin, wish }, decision) in asked.iter().zip(decisions) {
        if let (false, Err(Error::OutOfStock(_))) = (any, decision) {
            let skus: Vec<String> = wish.parts.iter().map(|part| part.sku.clone()).collect();
            any = expire_for(postgres, &skus, origin).await?;
        }
    }
    Ok(any)
}

/// What is known of a variant, with its price in one currency.
type Offers = HashMap<(String, Currency), Offer>;

/// Places one after another; what one takes is gone for those after it.
fn place(offers: &Offers, asked: &[Asked]) -> Vec<Result<Decision, Error>> {
    let mut taken: HashMap<String, i32> = HashMap::new();
    let mut decisions = Vec::with_capacity(asked.len());
    for Asked { origin, wish } in asked {
        let mut left = BTreeMap::new();
        for part in &wish.parts {
            if let Some(offer) = offers.get(&(part.sku.clone(), wish.currency)) {
                let mut offer = offer.clone();
                offer.stock.reserved += taken.get(&part.sku).copied().unwrap_or(0);
                left.insert(part.sku.clone(), offer);
            }
        }
        let id = ReservationId::generate(origin.now_us);
        let decision = Reservation::place(id, wish, &left, origin.now_us);
        for change in decision.iter().flat_map(|decision| &decision.stock) {
            *taken.entry(change.sku.clone()).or_default() += change.reserved;
        }
        decisions.push(decision);
    }
    decisions
}

/// What the store knows about the variants of wishes. Holds whose time has run out still count.
async fn offers(postgres: &Postgres, asked: &[Asked]) -> Result<Offers, Error> {
    let pairs = asked.iter().flat_map(|Asked { wish, .. }| {
        let code = wish.currency.code();
        wish.parts.iter().map(move |part| (part.sku.as_str(), code))
    });
    let (skus, codes): (Vec<&str>, Vec<&str>) = pairs.collect::<BTreeSet<_>>().into_iter().unzip();
    let rows = sqlx::query(
        "SELECT asked.currency_code, v.sku, p.id AS product_id, p.title, p.category, p.status, \
             p.deleted_at_us IS NOT NULL AS deleted, price.amount_minor, \
             s.on_hand, s.reserved, s.version \
         FROM unnest($1::text[], $2::text[]) AS asked(sku, currency_code) \
             JOIN variant v ON v.sku = asked.sku JOIN product p ON p.id = v.product_id \
             JOIN stock s ON s.sku = v.sku \
             LEFT JOIN price ON price.sku = v.sku AND price.currency_code = asked.currency_code",
    )
    .bind(skus)
    .bind(codes)
    .fetch_all(postgres.reads())
    .await?;
    let offer = |row| OfferRow::from_row(row)?.offer();
    rows.iter().map(offer).collect()
}

#[derive(sqlx::FromRow)]
struct OfferRow {
    currency_code: String,
    sku: String,
    product_id: String,
    title: String,
    category: String,
    status: String,
    deleted: bool,
    amount_minor: Option<i64>,
    on_hand: i32,
    reserved: i32,
    version: i64,
}

impl OfferRow {
    fn offer(self) -> Result<((String, Currency), Offer), Error> {
        let currency = Currency::parse(&self.currency_code).map_err(|_| corrupt("currency"))?;
        let price = match self.amount_minor {
            Some(amount_minor) => Some(money(&self.currency_code, amount_minor)?),
            None => None,
        };
        let offer = Offer {
            product_id: ProductId::parse(&self.product_id).map_err(|_| corrupt("product id"))?,
            title: self.title,
            category: self.category,
            status: Status::parse(&self.status).ok_or_else(|| corrupt("status"))?,
            deleted: self.deleted,
            price,
            stock: Stock {
                sku: self.sku.clone(),
                on_hand: self.on_hand,
                reserved: self.reserved,
                overdue: 0,
                version: self.version,
            },
        };
        Ok(((self.sku, currency), offer))
    }
}
