//! The store in SQLite: the embedded default.
//!
//! One writer at a time, so nothing here waits for a lock within a transaction, and revisions are
//! given in the order of commits by themselves.

mod catalogue;
mod export;
mod import;
mod list;
mod reservations;
mod sales;
mod sweep;
mod watch_log;
mod work;

use async_trait::async_trait;
use kernel::{Currency, ProductId, ReservationId};
use mesh_events::FaultPoints;
use mesh_store::{OpenError, Reading, Sqlite, SqliteConfig};
use proto::commerce::product::v1 as pb;
use sqlx::{SqliteConnection, Transaction, migrate::Migrator};
use tokio::sync::watch;

use super::{
    Adjustment, Answer, Change, Exported, Horizon, Imported, Origin, SalesEvent, Store, Update,
    corrupt,
};
use crate::{
    csv::import::Group,
    error::Error,
    listing::{ListQuery, Page, SearchQuery, View},
    product::{Draft, Product},
    reservation::{Command, Reservation, Wish},
    stock::Stock,
};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// The product service's database in a SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    sqlite: Sqlite,
    revisions: watch::Sender<i64>,
}

impl SqliteStore {
    /// Opens or creates the database.
    pub async fn open(config: &SqliteConfig) -> Result<Self, OpenError> {
        let sqlite = Sqlite::open(config, &MIGRATIONS).await?;
        Ok(Self {
            sqlite,
            revisions: watch::Sender::new(0),
        })
    }

    /// The same store, where every commit passes these places.
    #[must_use]
    pub fn with_fault_points(self, fault_points: FaultPoints) -> Self {
        let sqlite = self.sqlite.with_fault_points(fault_points);
        Self { sqlite, ..self }
    }

    /// The database underneath: for the relay, dead letters, readiness and closing.
    pub fn sqlite(&self) -> &Sqlite {
        &self.sqlite
    }

    /// A transaction that only reads: what it sees does not change while it lasts.
    async fn snapshot(&self) -> Result<Reading<Transaction<'static, sqlx::Sqlite>>, Error> {
        Ok(self.sqlite.reader().begin().await?)
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn get(&self, id: ProductId, now_us: i64) -> Result<View, Error> {
        let mut snapshot = self.snapshot().await?;
        catalogue::view(&mut snapshot, id, now_us).await
    }

    async fn batch_get(
        &self,
        ids: &[ProductId],
        skus: &[String],
        now_us: i64,
    ) -> Result<Vec<View>, Error> {
        catalogue::batch_get(&mut *self.snapshot().await?, ids, skus, now_us).await
    }

    async fn list(&self, query: &ListQuery, now_us: i64) -> Result<Page, Error> {
        list::list(&mut *self.snapshot().await?, query, now_us).await
    }

    async fn search(&self, query: &SearchQuery, now_us: i64) -> Result<Page, Error> {
        list::search(&mut *self.snapshot().await?, query, now_us).await
    }

    async fn stock(&self, sku: &str, now_us: i64) -> Result<Stock, Error> {
        reservations::stock(&mut *self.snapshot().await?, sku, now_us).await
    }

    async fn reservation(&self, id: ReservationId, now_us: i64) -> Result<Reservation, Error> {
        let found = reservations::load(&mut *self.snapshot().await?, &id.to_string()).await?;
        let found = found.ok_or_else(|| Error::ReservationNotFound(id.to_string()))?;
        Ok(found.seen_at(now_us))
    }

    async fn create(&self, origin: &Origin, draft: &Draft) -> Result<Answer<pb::Product>, Error> {
        let product = Product::create(ProductId::generate(origin.now_us), draft, origin.now_us)?;
        match self.claim(origin).await? {
            work::Claimed::Replay(answer) => Ok(answer),
            work::Claimed::New(mut work) => {
                let created = catalogue::create(&mut work, product, draft).await?;
                work.finish(created).await
            }
        }
    }

    async fn update(&self, origin: &Origin, update: &Update) -> Result<Answer<pb::Product>, Error> {
        match self.claim(origin).await? {
            work::Claimed::Replay(answer) => Ok(answer),
            work::Claimed::New(mut work) => {
                let updated = catalogue::update(&mut work, update).await?;
                work.finish(updated).await
            }
        }
    }

    async fn delete(
        &self,
        origin: &Origin,
        id: ProductId,
        etag: &str,
    ) -> Result<Answer<pb::Product>, Error> {
        match self.claim(origin).await? {
            work::Claimed::Replay(answer) => Ok(answer),
            work::Claimed::New(mut work) => {
                let deleted = catalogue::delete(&mut work, id, etag).await?;
                work.finish(deleted).await
            }
        }
    }

    async fn undelete(&self, origin: &Origin, id: ProductId) -> Result<Answer<pb::Product>, Error> {
        match self.claim(origin).await? {
            work::Claimed::Replay(answer) => Ok(answer),
            work::Claimed::New(mut work) => {
                let undeleted = catalogue::undelete(&mut work, id).await?;
                work.finish(undeleted).await
            }
        }
    }

    async fn adjust(
        &self,
        origin: &Origin,
        adjustment: &Adjustment,
    ) -> Result<Answer<pb::Stock>, Error> {
        match self.claim(origin).await? {
            work::Claimed::Replay(answer) => Ok(answer),
            work::Claimed::New(mut work) => {
                let adjusted = reservations::adjust(&mut work, adjustment).await?;
                work.finish(adjusted).await
            }
        }
    }

    async fn reserve(
        &self,
        origin: &Origin,
        wish: &Wish,
    ) -> Result<Answer<pb::Reservation>, Error> {
        match self.claim(origin).await? {
            work::Claimed::Replay(answer) => Ok(answer),
            work::Claimed::New(mut work) => {
                let reserved = reservations::reserve(&mut work, wish).await?;
                work.finish(reserved).await
            }
        }
    }

    async fn command(
        &self,
        origin: &Origin,
        id: ReservationId,
        command: &Command,
    ) -> Result<Answer<pb::Reservation>, Error> {
        match self.claim(origin).await? {
            work::Claimed::Replay(answer) => Ok(answer),
            work::Claimed::New(mut work) => {
                let after = reservations::command(&mut work, id, command).await?;
                work.finish(after).await
            }
        }
    }

    async fn note_columns(&self, names: &[String]) -> Result<(), Error> {
        import::note_columns(&self.sqlite, names).await
    }

    async fn import(&self, origin: &Origin, groups: &[Group]) -> Result<Imported, Error> {
        let mut work = self.begin(origin).await?;
        let imported = import::import(&mut work, groups).await?;
        work.commit().await?;
        Ok(imported)
    }

    async fn export_columns(
        &self,
        currency: Currency,
        drop_other_prices: bool,
    ) -> Result<Vec<String>, Error> {
        export::columns(&mut *self.snapshot().await?, currency, drop_other_prices).await
    }

    async fn export(&self, after_seq: i64, limit: usize) -> Result<Vec<Exported>, Error> {
        export::page(&mut *self.snapshot().await?, after_seq, limit).await
    }

    async fn revision(&self) -> Result<i64, Error> {
        watch_log::last(&mut *self.snapshot().await?).await
    }

    async fn changes(&self, after: i64, limit: usize) -> Result<Vec<Change>, Error> {
        watch_log::after(&mut *self.snapshot().await?, after, limit).await
    }

    fn revisions(&self) -> watch::Receiver<i64> {
        self.revisions.subscribe()
    }

    async fn add_sales(&self, event: &SalesEvent, now_us: i64) -> Result<bool, Error> {
        sales::add(&self.sqlite, event, now_us).await
    }

    async fn expire_overdue(&self, now_us: i64, limit: u32) -> Result<u32, Error> {
        let traceparent = mesh::CallContext::current().traceparent();
        let mut work = self
            .begin(&Origin {
                key: None,
                now_us,
                traceparent,
            })
            .await?;
        let expired = reservations::expire_overdue(&mut work, limit).await?;
        if expired > 0 {
            work.commit().await?;
        }
        Ok(expired)
    }

    async fn trim(&self, horizon: &Horizon, limit: u32) -> Result<u64, Error> {
        sweep::trim(&self.sqlite, horizon, limit).await
    }
}

/// Texts as a JSON array: one bound value, so one prepared statement for any number of them.
fn json_texts<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    let texts = texts
        .into_iter()
        .map(|text| serde_json::Value::from(text.as_ref()))
        .collect();
    serde_json::Value::Array(texts).to_string()
}

type Connection = SqliteConnection;
