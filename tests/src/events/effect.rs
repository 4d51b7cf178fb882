//! What consumers make of events: rows, a projection that replaces state, a projection that adds.
//!
//! None of the tables keeps an effect from happening twice. That is what the inbox is for, and one consumer does
//! without, to show that it would be seen.

use std::borrow::Cow;

use async_trait::async_trait;
use clap::ValueEnum;
use mesh_events::{Event, Handler, HandlerError};
use mesh_store::{Postgres, postgres::inbox};
use sqlx::{
    PgConnection, SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
};

use super::number;

const TABLES: &str = "
    CREATE TABLE effect (message_id uuid NOT NULL, number bigint NOT NULL);
    CREATE UNLOGGED TABLE repeated (consumer text NOT NULL, message_id uuid NOT NULL);
    CREATE TABLE state (aggregate_id text PRIMARY KEY, version bigint NOT NULL, value bigint NOT NULL);
    CREATE TABLE total (aggregate_id text PRIMARY KEY, events bigint NOT NULL, value bigint NOT NULL);";

/// The tables, as a service brings its own.
pub(crate) fn migrations() -> Migrator {
    let sql = TABLES.into_sql_str();
    let migration = Migration::new(1, Cow::from("effects"), MigrationType::Simple, sql, false);
    Migrator::with_migrations(vec![migration])
}

/// What to make of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Effect {
    /// A row.
    Row,
    /// The newest number of its aggregate: versions that are older than what is known are dropped.
    State,
    /// The sum of the numbers of its aggregate: each event counts once, in any order.
    Total,
    /// The same sum without an inbox, which is wrong.
    TotalWithoutInbox,
}

/// Applies events to the tables.
pub(crate) struct Effects {
    pub(crate) postgres: Postgres,
    pub(crate) consumer: String,
    pub(crate) effect: Effect,
    /// Every so many events (by their number) can never be applied; 0: all can.
    pub(crate) poison_every: i64,
    /// Every so many events (by their number) fail as if they might be applied later; 0: none.
    pub(crate) stubborn_every: i64,
}

#[async_trait]
impl Handler for Effects {
    async fn handle(&self, event: &Event) -> Result<(), HandlerError> {
        let number = number(event).map_err(HandlerError::Poison)?;
        let hit = |every: i64| every > 0 && number % every == 0;
        if hit(self.poison_every) {
            return Err(HandlerError::Poison("odd".into()));
        }
        if hit(self.stubborn_every) {
            return Err(HandlerError::transient("not today"));
        }
        self.apply(event, number)
            .await
            .map_err(HandlerError::transient)
    }
}

impl Effects {
    async fn apply(&self, event: &Event, number: i64) -> Result<(), sqlx::Error> {
        let mut write = self.postgres.begin().await?;
        let new = match self.effect {
            Effect::Row | Effect::Total => {
                let (id, now_us) = (event.message_id, event.occurred_at_us);
                inbox::insert(&mut write, &self.consumer, id, now_us).await?
            }
            // The one has its versions instead; the other is wrong.
            Effect::State | Effect::TotalWithoutInbox => true,
        };
        match self.effect {
            _ if !new => repeated(&mut write, &self.consumer, event).await?,
            Effect::Row => row(&mut write, event, number).await?,
            Effect::State => state(&mut write, event, number).await?,
            Effect::Total | Effect::TotalWithoutInbox => total(&mut write, event, number).await?,
        }
        write.commit().await
    }
}

/// A second delivery leaves a trace, so that a test can say that there were some.
async fn repeated(
    connection: &mut PgConnection,
    consumer: &str,
    event: &Event,
) -> Result<(), sqlx::Error> {
    let insert = sqlx::query("INSERT INTO repeated (consumer, message_id) VALUES ($1, $2)");
    let insert = insert.bind(consumer).bind(event.message_id);
    insert.execute(connection).await.map(drop)
}

async fn row(connection: &mut PgConnection, event: &Event, number: i64) -> Result<(), sqlx::Error> {
    let insert = sqlx::query("INSERT INTO effect (message_id, number) VALUES ($1, $2)");
    let insert = insert.bind(event.message_id).bind(number);
    insert.execute(connection).await.map(drop)
}

async fn state(
    connection: &mut PgConnection,
    event: &Event,
    number: i64,
) -> Result<(), sqlx::Error> {
    let replace = sqlx::query(
        "INSERT INTO state (aggregate_id, version, value) VALUES ($1, $2, $3) \
         ON CONFLICT (aggregate_id) DO UPDATE SET version = excluded.version, value = excluded.value \
         WHERE state.version < excluded.version",
    );
    let replace = replace
        .bind(&event.aggregate_id)
        .bind(event.aggregate_version)
        .bind(number);
    replace.execute(connection).await.map(drop)
}

async fn total(
    connection: &mut PgConnection,
    event: &Event,
    number: i64,
) -> Result<(), sqlx::Error> {
    let add = sqlx::query(
        "INSERT INTO total (aggregate_id, events, value) VALUES ($1, 1, $2) \
         ON CONFLICT (aggregate_id) DO UPDATE SET \
             events = total.events + 1, value = total.value + excluded.value",
    );
    let add = add.bind(&event.aggregate_id).bind(number);
    add.execute(connection).await.map(drop)
}
