//! What was decided about stock and reservations, on its way into the database in one statement: one round trip,
//! all or nothing, and no lock that waits for us.
//!
//! Nothing is locked between reading and writing. Instead the statement names what it rests on: the version of
//! each reservation (and of stock that was counted by hand), the free key, and the check of the stock's table that
//! no more is reserved than there is. If somebody else was faster, the server takes the whole statement back and
//! the caller decides again. Rows are locked in one order everywhere: reservations by id, then stock by SKU.

use std::collections::BTreeMap;

use mesh_store::{Postgres, idempotency::Key, postgres::with_parts};
use serde::Serialize;
use sqlx::{AssertSqlSafe, types::Json};

use crate::{
    error::Error,
    reservation::{Decision, Reservation, State},
    store::{
        Origin,
        events::{self, Told},
    },
};

/// The constraint that a key meets that was used before.
const KEY: &str = "mesh_idempotency_pkey";

/// Rows to write, gathered from decisions.
#[derive(Debug, Default, Serialize)]
pub(super) struct Writes {
    #[serde(serialize_with = "values")]
    stock: BTreeMap<String, Stock>,
    inserted: Vec<Inserted>,
    #[serde(serialize_with = "values")]
    changed: BTreeMap<String, Changed>,
    lines_inserted: Vec<LineInserted>,
    #[serde(serialize_with = "values")]
    lines_changed: BTreeMap<(String, String), LineChanged>,
    transitions: Vec<Transition>,
    events: Vec<Event>,
    answers: Vec<Answer>,
}

#[derive(Debug, Serialize)]
struct Stock {
    sku: String,
    on_hand: i32,
    reserved: i32,
    /// What it must still be; `None`: whatever it is by then.
    version: Option<i64>,
}

#[derive(Debug, Serialize)]
struct Inserted {
    id: String,
    reference: String,
    state: &'static str,
    expires_at_us: i64,
    created_at_us: i64,
    updated_at_us: i64,
    version: i64,
}

#[derive(Debug, Serialize)]
struct Changed {
    id: String,
    /// The version that it must still have.
    before: i64,
    state: &'static str,
    expires_at_us: i64,
    updated_at_us: i64,
    version: i64,
}

#[derive(Debug, Serialize)]
struct LineInserted {
    reservation_id: String,
    position: usize,
    sku: String,
    quantity: i32,
    product_id: String,
    title: String,
    category: String,
    currency_code: &'static str,
    unit_price_minor: i64,
    committed_quantity: i32,
    restocked_quantity: i32,
    held_until_us: Option<i64>,
}

#[derive(Debug, Serialize)]
struct LineChanged {
    reservation_id: String,
    sku: String,
    committed_quantity: i32,
    restocked_quantity: i32,
    held_until_us: Option<i64>,
}

#[derive(Debug, Serialize)]
struct Transition {
    reservation_id: String,
    version: i64,
    from_state: Option<&'static str>,
    to_state: &'static str,
    at_us: i64,
}

#[derive(Debug, Serialize)]
struct Event {
    message_id: String,
    kind: String,
    aggregate_id: String,
    aggregate_version: i64,
    occurred_at_us: i64,
    traceparent: Option<String>,
    mandatory: bool,
    body: String,
}

#[derive(Debug, Serialize)]
struct Answer {
    principal: String,
    method: String,
    request_id: String,
    fingerprint: String,
    body: String,
    at_us: i64,
}

impl Writes {
    /// A reservation begins.
    pub(super) fn reserved(&mut self, decision: &Decision, origin: &Origin) {
        let after = &decision.after;
        let id = after.id.to_string();
        self.inserted.push(Inserted {
            id: id.clone(),
            reference: after.reference.clone(),
            state: after.state.name(),
            expires_at_us: after.expires_at_us,
            created_at_us: after.created_at_us,
            updated_at_us: after.created_at_us,
            version: after.version,
        });
        let lines = after.lines.iter().enumerate();
        self.lines_inserted
            .extend(lines.map(|(position, line)| LineInserted {
                reservation_id: id.clone(),
                position,
                sku: line.sku.clone(),
                quantity: line.quantity,
                product_id: line.product_id.to_string(),
                title: line.title.clone(),
                category: line.category.clone(),
                currency_code: line.unit_price.currency().code(),
                unit_price_minor: line.unit_price.amount_minor(),
                committed_quantity: line.committed,
                restocked_quantity: line.restocked,
                held_until_us: held_until(after),
            }));
        self.transition(after, None, origin.now_us);
        self.stock(decision);
        self.event(events::reserved(after), origin);
    }

    /// Something happened to a reservation; several may in one go, one after another.
    pub(super) fn settled(&mut self, before: &Reservation, decision: &Decision, origin: &Origin) {
        let Some(happened) = decision.happened else {
            return;
        };
        let after = &decision.after;
        let id = after.id.to_string();
        let version_before = match self.changed.get(&id) {
            Some(earlier) => earlier.before,
            None => before.version,
        };
        let changed = Changed {
            id: id.clone(),
            before: version_before,
            state: after.state.name(),
            expires_at_us: after.expires_at_us,
            updated_at_us: origin.now_us,
            version: after.version,
        };
        self.changed.insert(id.clone(), changed);
        for line in &after.lines {
            let changed = LineChanged {
                reservation_id: id.clone(),
                sku: line.sku.clone(),
                committed_quantity: line.committed,
                restocked_quantity: line.restocked,
                held_until_us: held_until(after),
            };
            self.lines_changed
                .insert((id.clone(), line.sku.clone()), changed);
        }
        if after.state != before.state {
            self.transition(after, Some(before.state), origin.now_us);
        }
        self.stock(decision);
        if let Some(told) = events::settled(happened, after) {
            self.event(told, origin);
        }
    }

    /// Stock was counted by hand, when it had this version.
    pub(super) fn adjusted(&mut self, sku: &str, delta: i32, version: i64) {
        let row = Stock {
            sku: sku.to_owned(),
            on_hand: delta,
            reserved: 0,
            version: Some(version),
        };
        self.stock.insert(sku.to_owned(), row);
    }

    /// An event of a call.
    pub(super) fn event(&mut self, told: Told, origin: &Origin) {
        let event = told.event(origin.now_us, &origin.traceparent);
        self.events.push(Event {
            message_id: event.message_id.to_string(),
            kind: event.kind,
            aggregate_id: event.aggregate_id,
            aggregate_version: event.aggregate_version,
            occurred_at_us: event.occurred_at_us,
            traceparent: event.traceparent,
            mandatory: event.mandatory,
            body: bytea(&event.body),
        });
    }

    /// What is answered when the call comes again.
    pub(super) fn answer(&mut self, key: &Key, answer: &[u8], now_us: i64) {
        self.answers.push(Answer {
            principal: key.principal.clone(),
            method: key.method.clone(),
            request_id: key.request_id.clone(),
            fingerprint: bytea(&key.fingerprint),
            body: bytea(answer),
            at_us: now_us,
        });
    }

    /// Writes everything, or nothing. A key that was used before is [`Error::InFlight`].
    pub(super) async fn apply(&self, postgres: &Postgres) -> Result<(), Error> {
        if self.is_empty() {
            return Ok(());
        }
        let committing = postgres.committing();
        let statement = with_parts(include_str!("write.sql"), |part| self.has(part));
        let written = sqlx::query(AssertSqlSafe(statement))
            .bind(Json(self))
            .execute(postgres.pool())
            .await;
        match written {
            Ok(_) => {
                committing.has_committed(!self.events.is_empty());
                Ok(())
            }
            Err(error) if used_key(&error) => Err(Error::InFlight),
            Err(error) => Err(error.into()),
        }
    }

    fn is_empty(&self) -> bool {
        self.inserted.is_empty()
            && self.changed.is_empty()
            && self.stock.is_empty()
            && self.answers.is_empty()
    }

    /// Whether there are rows for a part of the statement.
    fn has(&self, part: &str) -> bool {
        match part {
            "changed" => !self.changed.is_empty(),
            "stock" => !self.stock.is_empty(),
            "changed and stock" => !self.changed.is_empty() && !self.stock.is_empty(),
            "inserted" => !self.inserted.is_empty(),
            "lines_inserted" => !self.lines_inserted.is_empty(),
            "lines_changed" => !self.lines_changed.is_empty(),
            "transitions" => !self.transitions.is_empty(),
            "events" => !self.events.is_empty(),
            "answers" => !self.answers.is_empty(),
            _ => unreachable!("write.sql has no part {part:?}"),
        }
    }

    fn transition(&mut self, after: &Reservation, from: Option<State>, at_us: i64) {
        self.transitions.push(Transition {
            reservation_id: after.id.to_string(),
            version: after.version,
            from_state: from.map(State::name),
            to_state: after.state.name(),
            at_us,
        });
    }

    fn stock(&mut self, decision: &Decision) {
        for change in &decision.stock {
            let row = self.stock.entry(change.sku.clone()).or_insert(Stock {
                sku: change.sku.clone(),
                on_hand: 0,
                reserved: 0,
                version: None,
            });
            row.on_hand += change.on_hand;
            row.reserved += change.reserved;
        }
    }
}

fn held_until(reservation: &Reservation) -> Option<i64> {
    (reservation.state == State::Held).then_some(reservation.expires_at_us)
}

fn used_key(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.constraint() == Some(KEY))
}

/// Bytes as JSON can carry them and `bytea` reads them.
fn bytea(bytes: &[u8]) -> String {
    format!("\\x{}", hex::encode(bytes))
}

/// A map as the list of its values: their keys are among their own fields.
fn values<K, V: Serialize, S: serde::Serializer>(
    map: &BTreeMap<K, V>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(map.values())
}
