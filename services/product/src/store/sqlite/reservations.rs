//! Stock and reservations. The hot path: a reservation is one statement for all offers, one for the
//! stock, one for the lines, however many lines it has.

use std::collections::{BTreeMap, HashMap};

use kernel::{ProductId, ReservationId};
use proto::commerce::product::v1 as pb;
use serde_json::{Value, json};
use sqlx::FromRow as _;

use super::{
    Connection,
    catalogue::{column, money, overdue},
    corrupt, json_texts,
    work::Work,
};
use crate::{
    error::Error,
    product::Status,
    reservation::{
        Command, Decision, Happened, Line, Offer, Reservation, State, StockChange, Wish,
    },
    stock::Stock,
    store::{Adjustment, events},
    wire,
};

/// How many overdue holds one command writes down at a time when it needs their units.
const OVERDUE_BATCH: u32 = 100;

/// The units of a variant.
pub(super) async fn stock(
    connection: &mut Connection,
    sku: &str,
    now_us: i64,
) -> Result<Stock, Error> {
    let row: Option<(i32, i32, i64)> = sqlx::query_as(
        "SELECT s.on_hand, s.reserved, s.version \
         FROM stock s JOIN variant v ON v.sku = s.sku WHERE s.sku = ?",
    )
    .bind(sku)
    .fetch_optional(&mut *connection)
    .await?;
    let (on_hand, reserved, version) = row.ok_or(Error::SkusNotFound(vec![sku.to_owned()]))?;
    let overdue = overdue(connection, &[sku.to_owned()], now_us).await?;
    let overdue = overdue.get(sku).copied().unwrap_or(0);
    Ok(Stock {
        sku: sku.to_owned(),
        on_hand,
        reserved,
        overdue,
        version,
    })
}

/// Changes what is on hand by hand.
pub(super) async fn adjust(work: &mut Work, adjustment: &Adjustment) -> Result<pb::Stock, Error> {
    let now_us = work.now_us;
    let mut before = stock(work.connection(), &adjustment.sku, now_us).await?;
    if before.overdue > 0 {
        expire_for(work, std::slice::from_ref(&adjustment.sku)).await?;
        before = stock(work.connection(), &adjustment.sku, now_us).await?;
    }
    let after = before.adjust(adjustment.delta)?;
    sqlx::query("UPDATE stock SET on_hand = ?, version = ? WHERE sku = ?")
        .bind(after.on_hand)
        .bind(after.version)
        .bind(&after.sku)
        .execute(work.connection())
        .await?;
    let resource = wire::stock(&after);
    work.event(events::adjusted(adjustment, &resource, after.version))
        .await?;
    Ok(resource)
}

/// Holds stock: all lines or none.
pub(super) async fn reserve(work: &mut Work, wish: &Wish) -> Result<pb::Reservation, Error> {
    let now_us = work.now_us;
    let id = ReservationId::generate(now_us);
    let mut offers = offers(work.connection(), wish).await?;
    let mut decision = Reservation::place(id, wish, &offers, now_us);
    if let Err(Error::OutOfStock(_)) = &decision {
        // Only now does it matter whether some of what is reserved has expired.
        let skus: Vec<String> = wish.parts.iter().map(|part| part.sku.clone()).collect();
        if expire_for(work, &skus).await? {
            offers = self::offers(work.connection(), wish).await?;
            decision = Reservation::place(id, wish, &offers, now_us);
        }
    }
    let decision = decision?;
    insert(work, &decision.after).await?;
    change_stock(work.connection(), &decision.stock).await?;
    work.event(events::reserved(&decision.after)).await?;
    Ok(wire::reservation(&decision.after))
}

/// Does something to a reservation. One whose time has run out has expired first.
pub(super) async fn command(
    work: &mut Work,
    id: ReservationId,
    command: &Command,
) -> Result<pb::Reservation, Error> {
    let now_us = work.now_us;
    let found = load(work.connection(), &id.to_string()).await?;
    let mut reservation = found.ok_or_else(|| Error::ReservationNotFound(id.to_string()))?;
    if reservation.is_overdue(now_us) {
        reservation = expire(work, &reservation).await?;
    }
    let mut free = HashMap::new();
    if reservation.state == State::Expired && matches!(command, Command::Commit { .. }) {
        let skus: Vec<String> = reservation
            .lines
            .iter()
            .map(|line| line.sku.clone())
            .collect();
        expire_for(work, &skus).await?;
        free = free_units(work.connection(), &skus).await?;
    }
    let units = |sku: &str| free.get(sku).copied().unwrap_or(0);
    let decision = reservation.decide(command, now_us, units)?;
    apply(work, reservation.state, &decision).await?;
    Ok(wire::reservation(&decision.after))
}

/// Writes down that overdue holds have expired, oldest first.
pub(super) async fn expire_overdue(work: &mut Work, limit: u32) -> Result<u32, Error> {
    let ids: Vec<String> = sqlx::query_scalar(
        "SELECT id FROM reservation WHERE state = 'HELD' AND expires_at_us <= ? \
         ORDER BY expires_at_us LIMIT ?",
    )
    .bind(work.now_us)
    .bind(limit)
    .fetch_all(work.connection())
    .await?;
    expire_all(work, &ids).await
}

/// Writes down every overdue hold on any of these SKUs; false: there was none.
async fn expire_for(work: &mut Work, skus: &[String]) -> Result<bool, Error> {
    let skus = json_texts(skus);
    let mut any = false;
    loop {
        let ids: Vec<String> = sqlx::query_scalar(
            "SELECT r.id FROM reservation r WHERE r.state = 'HELD' AND r.expires_at_us <= ? \
                 AND EXISTS (SELECT 1 FROM reservation_line l WHERE l.reservation_id = r.id \
                     AND l.sku IN (SELECT value FROM json_each(?))) \
             ORDER BY r.expires_at_us LIMIT ?",
        )
        .bind(work.now_us)
        .bind(&skus)
        .bind(OVERDUE_BATCH)
        .fetch_all(work.connection())
        .await?;
        if ids.is_empty() {
            return Ok(any);
        }
        any = true;
        expire_all(work, &ids).await?;
    }
}

async fn expire_all(work: &mut Work, ids: &[String]) -> Result<u32, Error> {
    let mut expired = 0;
    for id in ids {
        let found = load(work.connection(), id).await?;
        expire(work, &found.ok_or_else(|| corrupt("reservation"))?).await?;
        expired += 1;
    }
    Ok(expired)
}

async fn expire(work: &mut Work, reservation: &Reservation) -> Result<Reservation, Error> {
    let decision = reservation.decide(&Command::Expire, work.now_us, |_| 0)?;
    apply(work, reservation.state, &decision).await?;
    Ok(decision.after)
}

/// Writes what was decided.
async fn apply(work: &mut Work, from: State, decision: &Decision) -> Result<(), Error> {
    let Some(happened) = decision.happened else {
        return Ok(());
    };
    let after = &decision.after;
    let id = after.id.to_string();
    sqlx::query(
        "UPDATE reservation SET state = ?, expires_at_us = ?, updated_at_us = ?, version = ? \
         WHERE id = ?",
    )
    .bind(after.state.name())
    .bind(after.expires_at_us)
    .bind(work.now_us)
    .bind(after.version)
    .bind(&id)
    .execute(work.connection())
    .await?;
    if matches!(happened, Happened::Committed | Happened::Restocked) {
        let lines = after
            .lines
            .iter()
            .map(|line| json!([line.sku, line.committed, line.restocked]));
        sqlx::query(
            "UPDATE reservation_line SET committed_quantity = l.value ->> 1, \
                 restocked_quantity = l.value ->> 2 \
             FROM json_each(?) l WHERE reservation_id = ? AND sku = l.value ->> 0",
        )
        .bind(Value::Array(lines.collect()).to_string())
        .bind(&id)
        .execute(work.connection())
        .await?;
    }
    if after.state != from {
        transition(work, after, Some(from)).await?;
    }
    change_stock(work.connection(), &decision.stock).await?;
    match events::settled(happened, after) {
        Some(told) => work.event(told).await,
        None => Ok(()),
    }
}

async fn insert(work: &mut Work, reservation: &Reservation) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO reservation \
             (id, reference, state, expires_at_us, created_at_us, updated_at_us, version) \
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(reservation.id.to_string())
    .bind(&reservation.reference)
    .bind(reservation.state.name())
    .bind(reservation.expires_at_us)
    .bind(reservation.created_at_us)
    .bind(reservation.created_at_us)
    .bind(reservation.version)
    .execute(work.connection())
    .await?;
    let lines: Vec<Value> = reservation.lines.iter().map(line_json).collect();
    sqlx::query(
        "INSERT INTO reservation_line (reservation_id, position, sku, quantity, product_id, title, \
             category, currency_code, unit_price_minor) \
         SELECT ?, key, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, \
             value ->> 5, value ->> 6 FROM json_each(?)",
    )
    .bind(reservation.id.to_string())
    .bind(Value::Array(lines).to_string())
    .execute(work.connection())
    .await?;
    transition(work, reservation, None).await
}

fn line_json(line: &Line) -> Value {
    json!([
        line.sku,
        line.quantity,
        line.product_id.to_string(),
        line.title,
        line.category,
        line.unit_price.currency().code(),
        line.unit_price.amount_minor(),
    ])
}

async fn transition(
    work: &mut Work,
    after: &Reservation,
    from: Option<State>,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO reservation_transition (reservation_id, version, from_state, to_state, at_us) \
         VALUES (?, ?, ?, ?, ?)",
    )
    .bind(after.id.to_string())
    .bind(after.version)
    .bind(from.map(State::name))
    .bind(after.state.name())
    .bind(work.now_us)
    .execute(work.connection())
    .await?;
    Ok(())
}

/// Adds to the stock of several SKUs. The table refuses what would break its invariant.
async fn change_stock(connection: &mut Connection, changes: &[StockChange]) -> Result<(), Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let list = changes
        .iter()
        .map(|change| json!([change.sku, change.on_hand, change.reserved]));
    let changed = sqlx::query(
        "UPDATE stock SET on_hand = on_hand + (c.value ->> 1), \
             reserved = reserved + (c.value ->> 2), version = version + 1 \
         FROM json_each(?) c WHERE sku = c.value ->> 0",
    )
    .bind(Value::Array(list.collect()).to_string())
    .execute(connection)
    .await?;
    if usize::try_from(changed.rows_affected()) != Ok(changes.len()) {
        return Err(corrupt("stock: a reserved SKU has no row"));
    }
    Ok(())
}

/// What the store knows about the variants of a wish. Holds whose time has run out still count.
async fn offers(
    connection: &mut Connection,
    wish: &Wish,
) -> Result<BTreeMap<String, Offer>, Error> {
    let rows = sqlx::query(
        "SELECT v.sku, p.id AS product_id, p.title, p.category, p.status, \
             p.deleted_at_us IS NOT NULL AS deleted, price.amount_minor, \
             s.on_hand, s.reserved, s.version \
         FROM variant v JOIN product p ON p.id = v.product_id JOIN stock s ON s.sku = v.sku \
             LEFT JOIN price ON price.sku = v.sku AND price.currency_code = ? \
         WHERE v.sku IN (SELECT value FROM json_each(?))",
    )
    .bind(wish.currency.code())
    .bind(json_texts(wish.parts.iter().map(|part| &part.sku)))
    .fetch_all(connection)
    .await?;
    let mut offers = BTreeMap::new();
    for row in &rows {
        let row = OfferRow::from_row(row)?;
        let price = match row.amount_minor {
            Some(amount_minor) => Some(money(wish.currency.code(), amount_minor)?),
            None => None,
        };
        let offer = Offer {
            product_id: ProductId::parse(&row.product_id).map_err(|_| corrupt("product id"))?,
            title: row.title,
            category: row.category,
            status: Status::parse(&row.status).ok_or_else(|| corrupt("status"))?,
            deleted: row.deleted,
            price,
            stock: Stock {
                sku: row.sku.clone(),
                on_hand: row.on_hand,
                reserved: row.reserved,
                overdue: 0,
                version: row.version,
            },
        };
        offers.insert(row.sku, offer);
    }
    Ok(offers)
}

#[derive(sqlx::FromRow)]
struct OfferRow {
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

/// Units that are neither sold nor held, by SKU.
async fn free_units(
    connection: &mut Connection,
    skus: &[String],
) -> Result<HashMap<String, i32>, Error> {
    let rows: Vec<(String, i32)> = sqlx::query_as(
        "SELECT sku, on_hand - reserved FROM stock WHERE sku IN (SELECT value FROM json_each(?))",
    )
    .bind(json_texts(skus))
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().collect())
}

/// A reservation as it is stored.
pub(super) async fn load(
    connection: &mut Connection,
    id: &str,
) -> Result<Option<Reservation>, Error> {
    let rows = sqlx::query(
        "SELECT r.reference, r.state, r.expires_at_us, r.created_at_us, r.version, l.* \
         FROM reservation r JOIN reservation_line l ON l.reservation_id = r.id \
         WHERE r.id = ? ORDER BY l.position",
    )
    .bind(id)
    .fetch_all(connection)
    .await?;
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    let state: String = column(first, "state")?;
    let mut reservation = Reservation {
        id: ReservationId::parse(id).map_err(|_| corrupt("reservation id"))?,
        reference: column(first, "reference")?,
        state: State::parse(&state).ok_or_else(|| corrupt("state"))?,
        lines: Vec::with_capacity(rows.len()),
        expires_at_us: column(first, "expires_at_us")?,
        created_at_us: column(first, "created_at_us")?,
        version: column(first, "version")?,
    };
    for row in &rows {
        let product_id: String = column(row, "product_id")?;
        let code: String = column(row, "currency_code")?;
        reservation.lines.push(Line {
            sku: column(row, "sku")?,
            quantity: column(row, "quantity")?,
            product_id: ProductId::parse(&product_id).map_err(|_| corrupt("product id"))?,
            title: column(row, "title")?,
            category: column(row, "category")?,
            unit_price: money(&code, column(row, "unit_price_minor")?)?,
            committed: column(row, "committed_quantity")?,
            restocked: column(row, "restocked_quantity")?,
        });
    }
    Ok(Some(reservation))
}
