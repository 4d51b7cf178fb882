//! The store in PostgreSQL, shared by all replicas of the service.
//!
//! Two ways of writing, by what is written. Stock and reservations, the busy part, are read, decided and written
//! in one statement that is refused where the state has changed meanwhile (`writes`); reservations that queue for
//! the same SKU are written together (`group`, `reserve`). The catalogue, which changes rarely and in many tables
//! at once, is written in transactions that lock the product (`work`). Either way a conflict is decided again,
//! a bounded number of times (`attempts`), and no transaction waits for anything but the database. Products that are
//! asked for while others are being read are read together (`read`).

mod attempts;
mod catalogue;
mod export;
mod import;
mod list;
mod read;
mod reservations;
mod reserve;
mod sales;
mod search;
mod sweep;
mod watch_log;
mod work;
mod writes;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use kernel::{Currency, ProductId, ReservationId};
use mesh_events::FaultPoints;
use mesh_store::{
    Postgres, PostgresConfig, Reading,
    group::{CarryOut, Group, Limits},
    postgres::{OpenError, Schema, idempotency},
};
use prost::Message;
use proto::commerce::product::v1 as pb;
use sqlx::{migrate::Migrator, pool::PoolConnection};
use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
};

use self::{
    attempts::Attempts, catalogue::Change as CatalogueChange, reserve::Asked, watch_log::Revisions,
    work::Claimed,
};
use super::{
    Adjustment, Answer, Change, Exported, Horizon, Imported, Origin, SalesEvent, Store, Update,
    corrupt,
};
use crate::{
    config::SharedConfig,
    csv::import::Group as Products,
    error::Error,
    listing::{ListQuery, Page, SearchQuery, View},
    product::{Draft, Product},
    reservation::{Command, Reservation, Wish},
    stock::Stock,
};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// Tables that are added to and never changed: none, for all of them are swept.
const APPEND_ONLY: &[&str] = &[];

/// Brings the schema up. `role` is whom the service runs under; empty: the one that migrates.
pub async fn migrate(config: &PostgresConfig, role: &str) -> Result<(), OpenError> {
    let schema = Schema {
        migrations: &MIGRATIONS,
        role,
        append_only: APPEND_ONLY,
    };
    mesh_store::postgres::migrate(config, &schema).await
}

/// The product service's database in PostgreSQL. Clones are the same store.
#[derive(Clone)]
pub struct PostgresStore {
    shared: Arc<Shared>,
}

struct Shared {
    postgres: Postgres,
    attempts_max: u32,
    reservations: Group<Asked, Result<pb::Reservation, Error>>,
    reads: Group<read::Asked, Result<Vec<View>, Error>>,
    revisions: Revisions,
    /// Ends with the last clone, or when the store is closed.
    poll: Mutex<JoinSet<()>>,
}

impl PostgresStore {
    /// Connects to a database whose schema is there. Every commit passes `fault_points`.
    pub async fn connect(
        postgres: &PostgresConfig,
        config: &SharedConfig,
        fault_points: FaultPoints,
    ) -> Result<Self, OpenError> {
        let postgres = Postgres::connect(postgres, &MIGRATIONS).await?;
        let postgres = postgres.with_fault_points(fault_points);
        let attempts_max = config.attempts_max;
        let limits = |lanes| Limits {
            lanes,
            queue_max: config.queue_max,
            batch_max: config.batch_max,
        };
        let reserve_all: CarryOut<Asked, _> = Arc::new({
            let postgres = postgres.clone();
            move |asked| {
                let postgres = postgres.clone();
                Box::pin(async move { reserve::reserve_all(&postgres, &asked, attempts_max).await })
            }
        });
        let read_all: CarryOut<read::Asked, _> = Arc::new({
            let postgres = postgres.clone();
            move |asked| {
                let postgres = postgres.clone();
                Box::pin(async move { read::read_all(&postgres, &asked).await })
            }
        });
        let revisions = Revisions::new();
        let mut poll = JoinSet::new();
        let every = Duration::from_millis(config.revisions_poll_ms);
        poll.spawn(mesh::carry(revisions.clone().poll(postgres.clone(), every)));
        let shared = Shared {
            postgres,
            attempts_max,
            reservations: Group::start(limits(config.lanes), reserve_all),
            reads: Group::start(limits(config.read_lanes), read_all),
            revisions,
            poll: Mutex::new(poll),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// The database underneath: for the relay and dead letters.
    pub fn postgres(&self) -> &Postgres {
        &self.shared.postgres
    }

    /// Carries out what queues, and closes all connections.
    pub async fn close(&self) {
        self.shared.reservations.close().await;
        self.shared.reads.close().await;
        self.shared.poll.lock().await.shutdown().await;
        self.shared.postgres.close().await;
    }

    fn attempts(&self) -> Attempts {
        Attempts::new(self.shared.attempts_max)
    }

    async fn connection(&self) -> Result<Reading<PoolConnection<sqlx::Postgres>>, Error> {
        Ok(self.postgres().reads().acquire().await?)
    }

    /// What a call answers that came out like this: where it failed, an earlier one with its key may not have.
    async fn answer<M: Message + Default>(
        &self,
        origin: &Origin,
        outcome: Result<M, Error>,
    ) -> Result<Answer<M>, Error> {
        let error = match outcome {
            Ok(resource) => {
                return Ok(Answer {
                    resource,
                    replayed: false,
                });
            }
            Err(error) => error,
        };
        let Some(key) = &origin.key else {
            return Err(error);
        };
        match idempotency::find(&mut *self.connection().await?, key).await? {
            Some(known) => work::answer(known),
            None => Err(error),
        }
    }

    async fn change(
        &self,
        origin: &Origin,
        change: CatalogueChange<'_>,
    ) -> Result<Answer<pb::Product>, Error> {
        let mut attempts = self.attempts();
        loop {
            match self.try_change(origin, &change).await {
                Ok(answer) => return Ok(answer),
                Err(error) => attempts.after(error)?,
            }
        }
    }

    async fn try_change(
        &self,
        origin: &Origin,
        change: &CatalogueChange<'_>,
    ) -> Result<Answer<pb::Product>, Error> {
        match self.claim(origin).await? {
            Claimed::Replay(answer) => Ok(answer),
            Claimed::New(mut work) => {
                let resource = catalogue::change(&mut work, change).await?;
                self.finish(*work, resource).await
            }
        }
    }

    async fn try_import(&self, origin: &Origin, groups: &[Products]) -> Result<Imported, Error> {
        let mut work = self.begin(origin).await?;
        let imported = import::import(&mut work, groups).await?;
        self.commit(work).await?;
        Ok(imported)
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn get(&self, id: ProductId, now_us: i64) -> Result<View, Error> {
        let views = self.batch_get(&[id], &[], now_us).await?;
        Ok(views.into_iter().next().expect("one for each id"))
    }

    async fn batch_get(
        &self,
        ids: &[ProductId],
        skus: &[String],
        now_us: i64,
    ) -> Result<Vec<View>, Error> {
        let asked = read::Asked {
            ids: ids.to_vec(),
            skus: skus.to_vec(),
            now_us,
        };
        match self.shared.reads.join((ids, skus), asked).await {
            Ok(views) => views,
            Err(refused) => Err(Error::StorageBusy(refused.into())),
        }
    }

    async fn list(&self, query: &ListQuery, now_us: i64) -> Result<Page, Error> {
        list::list(&mut *self.connection().await?, query, now_us).await
    }

    async fn search(&self, query: &SearchQuery, now_us: i64) -> Result<Page, Error> {
        list::search(&mut *self.connection().await?, query, now_us).await
    }

    async fn stock(&self, sku: &str, now_us: i64) -> Result<Stock, Error> {
        reservations::stock(self.postgres().reads(), sku, now_us).await
    }

    async fn reservation(&self, id: ReservationId, now_us: i64) -> Result<Reservation, Error> {
        let found = reservations::find(self.postgres().reads(), id).await?;
        Ok(found.seen_at(now_us))
    }

    async fn create(&self, origin: &Origin, draft: &Draft) -> Result<Answer<pb::Product>, Error> {
        let product = Product::create(ProductId::generate(origin.now_us), draft, origin.now_us)?;
        self.change(origin, CatalogueChange::Create(&product, draft))
            .await
    }

    async fn update(&self, origin: &Origin, update: &Update) -> Result<Answer<pb::Product>, Error> {
        self.change(origin, CatalogueChange::Update(update)).await
    }

    async fn delete(
        &self,
        origin: &Origin,
        id: ProductId,
        etag: &str,
    ) -> Result<Answer<pb::Product>, Error> {
        self.change(origin, CatalogueChange::Delete(id, etag)).await
    }

    async fn undelete(&self, origin: &Origin, id: ProductId) -> Result<Answer<pb::Product>, Error> {
        self.change(origin, CatalogueChange::Undelete(id)).await
    }

    async fn adjust(
        &self,
        origin: &Origin,
        adjustment: &Adjustment,
    ) -> Result<Answer<pb::Stock>, Error> {
        let mut attempts = self.attempts();
        let outcome = loop {
            match reservations::adjust(self.postgres(), origin, adjustment).await {
                Ok(resource) => break Ok(resource),
                Err(error) => match attempts.after(error) {
                    Ok(()) => {}
                    Err(error) => break Err(error),
                },
            }
        };
        self.answer(origin, outcome).await
    }

    async fn reserve(
        &self,
        origin: &Origin,
        wish: &Wish,
    ) -> Result<Answer<pb::Reservation>, Error> {
        let asked = Asked {
            origin: origin.clone(),
            wish: wish.clone(),
        };
        let skus = wish.parts.iter().map(|part| part.sku.as_str());
        let lane = skus.min().unwrap_or_default();
        let outcome = match self.shared.reservations.join(lane, asked).await {
            Ok(outcome) => outcome,
            Err(refused) => Err(Error::StorageBusy(refused.into())),
        };
        self.answer(origin, outcome).await
    }

    async fn command(
        &self,
        origin: &Origin,
        id: ReservationId,
        command: &Command,
    ) -> Result<Answer<pb::Reservation>, Error> {
        let mut attempts = self.attempts();
        let outcome = loop {
            match reservations::command(self.postgres(), origin, id, command).await {
                Ok(resource) => break Ok(resource),
                Err(error) => match attempts.after(error) {
                    Ok(()) => {}
                    Err(error) => break Err(error),
                },
            }
        };
        self.answer(origin, outcome).await
    }

    async fn note_columns(&self, names: &[String]) -> Result<(), Error> {
        import::note_columns(self.postgres(), names).await
    }

    async fn import(&self, origin: &Origin, groups: &[Products]) -> Result<Imported, Error> {
        let mut attempts = self.attempts();
        loop {
            match self.try_import(origin, groups).await {
                Ok(imported) => return Ok(imported),
                Err(error) => attempts.after(error)?,
            }
        }
    }

    async fn export_columns(
        &self,
        currency: Currency,
        drop_other_prices: bool,
    ) -> Result<Vec<String>, Error> {
        export::columns(&mut *self.connection().await?, currency, drop_other_prices).await
    }

    async fn export(&self, after_seq: i64, limit: usize) -> Result<Vec<Exported>, Error> {
        export::page(&mut *self.connection().await?, after_seq, limit).await
    }

    async fn revision(&self) -> Result<i64, Error> {
        Ok(watch_log::last(self.postgres().reads()).await?)
    }

    async fn changes(&self, after: i64, limit: usize) -> Result<Vec<Change>, Error> {
        watch_log::after(self.postgres().reads(), after, limit).await
    }

    fn revisions(&self) -> watch::Receiver<i64> {
        self.shared.revisions.subscribe()
    }

    async fn add_sales(&self, event: &SalesEvent, now_us: i64) -> Result<bool, Error> {
        sales::add(self.postgres(), event, now_us).await
    }

    async fn expire_overdue(&self, now_us: i64, limit: u32) -> Result<u32, Error> {
        let origin = Origin {
            key: None,
            now_us,
            traceparent: mesh::CallContext::current().traceparent(),
        };
        let mut attempts = self.attempts();
        loop {
            match reservations::expire_overdue(self.postgres(), &origin, limit).await {
                Ok(expired) => return Ok(expired),
                Err(error) => attempts.after(error)?,
            }
        }
    }

    async fn trim(&self, horizon: &Horizon, limit: u32) -> Result<u64, Error> {
        sweep::trim(self.postgres(), horizon, limit).await
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}
