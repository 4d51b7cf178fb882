//! Stock and what is held of it: read, decided by the domain, and written in one statement (see `writes`).

use std::collections::HashMap;

use kernel::{ProductId, ReservationId};
use mesh_store::{Postgres, Reads};
use prost::Message as _;
use proto::commerce::product::v1 as pb;
use sqlx::PgConnection;

use super::{
    catalogue::{column, money, overdue},
    corrupt,
    writes::Writes,
};
use crate::{
    error::Error,
    reservation::{Command, Line, Reservation, State},
    stock::Stock,
    store::{Adjustment, Origin, events},
    wire,
};

/// How many overdue holds are written down at a time when their units are needed.
const OVERDUE_BATCH: i64 = 100;

/// The units of a variant.
pub(super) async fn stock(
    reads: Reads<'_, sqlx::Postgres>,
    sku: &str,
    now_us: i64,
) -> Result<Stock, Error> {
    let row: Option<(i32, i32, i32, i64)> = sqlx::query_as(concat!(
        "SELECT s.on_hand, s.reserved, ",
        overdue!(),
        ", s.version FROM stock s JOIN variant v ON v.sku = s.sku WHERE s.sku = $2"
    ))
    .bind(now_us)
    .bind(sku)
    .fetch_optional(reads)
    .await?;
    let (on_hand, reserved, overdue, version) =
        row.ok_or_else(|| Error::SkusNotFound(vec![sku.to_owned()]))?;
    Ok(Stock {
        sku: sku.to_owned(),
        on_hand,
        reserved,
        overdue,
        version,
    })
}

/// Changes what is on hand by hand.
pub(super) async fn adjust(
    postgres: &Postgres,
    origin: &Origin,
    adjustment: &Adjustment,
) -> Result<pb::Stock, Error> {
    let mut before = stock(postgres.reads(), &adjustment.sku, origin.now_us).await?;
    if before.overdue > 0 {
        expire_for(postgres, std::slice::from_ref(&adjustment.sku), origin).await?;
        before = stock(postgres.reads(), &adjustment.sku, origin.now_us).await?;
    }
    let after = before.adjust(adjustment.delta)?;
    let resource = wire::stock(&after);
    let mut writes = Writes::default();
    writes.adjusted(&after.sku, adjustment.delta, before.version);
    writes.event(
        events::adjusted(adjustment, &resource, after.version),
        origin,
    );
    if let Some(key) = &origin.key {
        writes.answer(key, &resource.encode_to_vec(), origin.now_us);
    }
    writes.apply(postgres).await?;
    Ok(resource)
}

/// Does something to a reservation. One whose time has run out has expired first.
pub(super) async fn command(
    postgres: &Postgres,
    origin: &Origin,
    id: ReservationId,
    command: &Command,
) -> Result<pb::Reservation, Error> {
    let mut reservation = find(postgres.reads(), id).await?;
    let mut free = HashMap::new();
    let expired = reservation.state == State::Expired || reservation.is_overdue(origin.now_us);
    if expired && matches!(command, Command::Commit { .. }) {
        let lines = reservation.lines.iter();
        let skus: Vec<String> = lines.map(|line| line.sku.clone()).collect();
        if expire_for(postgres, &skus, origin).await? {
            reservation = find(postgres.reads(), id).await?;
        }
        free = free_units(postgres.reads(), &skus).await?;
    }
    let mut writes = Writes::default();
    if reservation.is_overdue(origin.now_us) {
        let expired = reservation.decide(&Command::Expire, origin.now_us, |_| 0)?;
        writes.settled(&reservation, &expired, origin);
        reservation = expired.after;
    }
    let units = |sku: &str| free.get(sku).copied().unwrap_or(0);
    let decision = reservation.decide(command, origin.now_us, units)?;
    writes.settled(&reservation, &decision, origin);
    let resource = wire::reservation(&decision.after);
    if let Some(key) = &origin.key {
        writes.answer(key, &resource.encode_to_vec(), origin.now_us);
    }
    writes.apply(postgres).await?;
    Ok(resource)
}

/// Writes down that overdue holds have expired, oldest first. Another replica that does so at the same time makes
/// this a conflict: then it is done.
pub(super) async fn expire_overdue(
    postgres: &Postgres,
    origin: &Origin,
    limit: u32,
) -> Result<u32, Error> {
    let ids: Vec<String> = sqlx::query_scalar(
        "SELECT id FROM reservation WHERE state = 'HELD' AND expires_at_us <= $1 \
         ORDER BY expires_at_us LIMIT $2",
    )
    .bind(origin.now_us)
    .bind(i64::from(limit))
    .fetch_all(postgres.reads())
    .await?;
    expire(postgres, &ids, origin).await
}

/// Writes down every overdue hold on any of these SKUs; false: there was none.
pub(super) async fn expire_for(
    postgres: &Postgres,
    skus: &[String],
    origin: &Origin,
) -> Result<bool, Error> {
    let mut any = false;
    loop {
        let ids: Vec<String> = sqlx::query_scalar(
            "SELECT DISTINCT reservation_id FROM reservation_line \
             WHERE sku = ANY($1) AND held_until_us <= $2 LIMIT $3",
        )
        .bind(skus)
        .bind(origin.now_us)
        .bind(OVERDUE_BATCH)
        .fetch_all(postgres.reads())
        .await?;
        if ids.is_empty() {
            return Ok(any);
        }
        any = true;
        expire(postgres, &ids, origin).await?;
    }
}

async fn expire(postgres: &Postgres, ids: &[String], origin: &Origin) -> Result<u32, Error> {
    let mut writes = Writes::default();
    let mut expired = 0;
    for reservation in load(&mut *postgres.reads().acquire().await?, ids).await? {
        if reservation.is_overdue(origin.now_us) {
            let decision = reservation.decide(&Command::Expire, origin.now_us, |_| 0)?;
            writes.settled(&reservation, &decision, origin);
            expired += 1;
        }
    }
    writes.apply(postgres).await?;
    Ok(expired)
}

/// Units that are neither sold nor held, by SKU.
async fn free_units(
    reads: Reads<'_, sqlx::Postgres>,
    skus: &[String],
) -> Result<HashMap<String, i32>, Error> {
    let rows: Vec<(String, i32)> =
        sqlx::query_as("SELECT sku, on_hand - reserved FROM stock WHERE sku = ANY($1)")
            .bind(skus)
            .fetch_all(reads)
            .await?;
    Ok(rows.into_iter().collect())
}

/// A reservation as it is stored.
pub(super) async fn find(
    reads: Reads<'_, sqlx::Postgres>,
    id: ReservationId,
) -> Result<Reservation, Error> {
    let id = id.to_string();
    let found = load(&mut *reads.acquire().await?, std::slice::from_ref(&id)).await?;
    found
        .into_iter()
        .next()
        .ok_or(Error::ReservationNotFound(id))
}

async fn load(connection: &mut PgConnection, ids: &[String]) -> Result<Vec<Reservation>, Error> {
    let rows = sqlx::query(
        "SELECT r.reference, r.state, r.expires_at_us, r.created_at_us, r.version, l.* \
         FROM reservation r JOIN reservation_line l ON l.reservation_id = r.id \
         WHERE r.id = ANY($1) ORDER BY r.id, l.position",
    )
    .bind(ids)
    .fetch_all(connection)
    .await?;
    let mut found: Vec<Reservation> = Vec::new();
    for row in &rows {
        let id: String = column(row, "reservation_id")?;
        let id = ReservationId::parse(&id).map_err(|_| corrupt("reservation id"))?;
        if found.last().is_none_or(|last| last.id != id) {
            let state: String = column(row, "state")?;
            found.push(Reservation {
                id,
                reference: column(row, "reference")?,
                state: State::parse(&state).ok_or_else(|| corrupt("state"))?,
                lines: Vec::new(),
                expires_at_us: column(row, "expires_at_us")?,
                created_at_us: column(row, "created_at_us")?,
                version: column(row, "version")?,
            });
        }
        let product_id: String = column(row, "product_id")?;
        let code: String = column(row, "currency_code")?;
        let line = Line {
            sku: column(row, "sku")?,
            quantity: column(row, "quantity")?,
            product_id: ProductId::parse(&product_id).map_err(|_| corrupt("product id"))?,
            title: column(row, "title")?,
            category: column(row, "category")?,
            unit_price: money(&code, column(row, "unit_price_minor")?)?,
            committed: column(row, "committed_quantity")?,
            restocked: column(row, "restocked_quantity")?,
        };
        found
            .last_mut()
            .expect("the first row pushed one")
            .lines
            .push(line);
    }
    Ok(found)
}
