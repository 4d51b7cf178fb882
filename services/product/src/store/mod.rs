//! What the service needs from storage. Each method is one transaction around a pure decision of the
//! domain; all SQL is behind it.
//!
//! A mutation claims its key, has its effect, stores its answer and appends its events in one
//! transaction, so that no key is ever left in flight. An answer is the resource in its encoded form:
//! what is stored is what is answered, byte for byte.

mod events;
pub mod postgres;
pub mod sqlite;

use std::collections::HashMap;

use async_trait::async_trait;
use kernel::{Currency, ProductId, ReservationId};
use mesh_store::{Retry, idempotency::Key};
use proto::commerce::product::v1 as pb;
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    csv::import::{Group, Refusal},
    error::Error,
    listing::{ListQuery, Page, SearchQuery, View},
    product::{Draft, Field, Product},
    reservation::{Command, Reservation, Wish},
    stock::Stock,
};

/// What every mutation is told about the call that it comes from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The caller's key; `None`: the call cannot be repeated safely.
    pub key: Option<Key>,
    /// What time it is.
    pub now_us: i64,
    /// The trace that its events continue.
    pub traceparent: String,
}

/// What a mutation answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer<M> {
    /// The resource afterwards.
    pub resource: M,
    /// Whether this is the stored answer of an earlier call with the same key.
    pub replayed: bool,
}

/// A change of a product by an operator.
#[derive(Debug, Clone)]
pub struct Update {
    /// Which product.
    pub id: ProductId,
    /// Which fields.
    pub fields: Vec<Field>,
    /// Their values.
    pub draft: Draft,
    /// The etag last seen, or empty.
    pub etag: String,
}

/// A change of stock by an operator.
#[derive(Debug, Clone)]
pub struct Adjustment {
    /// Which variant.
    pub sku: String,
    /// Units to add, negative to take away.
    pub delta: i32,
    /// Why.
    pub reason: String,
}

/// What a batch of an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// Products that are new.
    pub created: u32,
    /// Products that changed.
    pub updated: u32,
    /// Products that were already so.
    pub unchanged: u32,
    /// Rows that were refused, in file order within the batch.
    pub refused: Vec<Refusal>,
}

/// A product on its way into a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Its place in the order of creation.
    pub seq: i64,
    /// The product.
    pub product: Product,
    /// Units in the house, by SKU.
    pub on_hand: HashMap<String, i32>,
}

/// One change of a product.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Its place in the order of changes.
    pub revision: i64,
    /// What happened.
    pub kind: ChangeKind,
    /// The product afterwards.
    pub product: pb::Product,
}

/// What can happen to a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Created,
    /// Fields changed.
    Updated,
    /// It was deleted.
    Deleted,
    /// A deletion was taken back.
    Undeleted,
}

impl ChangeKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Created, Self::Updated, Self::Deleted, Self::Undeleted];

    /// The name in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::Updated => "UPDATED",
            Self::Deleted => "DELETED",
            Self::Undeleted => "UNDELETED",
        }
    }

    /// Reads [`ChangeKind::name`].
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What an event says about sales. Applied once per message id, however often it is delivered.
#[derive(Debug, Clone)]
pub struct SalesEvent {
    /// Whose inbox.
    pub consumer: String,
    /// The event.
    pub message_id: Uuid,
    /// What to add, product by product; negative for refunds.
    pub entries: Vec<SalesEntry>,
}

/// What is added to the sales of one product.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SalesEntry {
    /// The product; it need not be known.
    pub product_id: String,
    /// The currency's code.
    pub currency_code: String,
    /// Units.
    pub quantity: i64,
    /// Minor units.
    pub amount_minor: i64,
}

/// What the sweeper may forget: everything from before these moments.
#[derive(Debug, Clone, Copy)]
pub struct Horizon {
    /// For stored answers.
    pub answers_us: i64,
    /// For message ids of applied events.
    pub inbox_us: i64,
    /// For changes of products.
    pub changes_us: i64,
    /// For reservations that hold nothing any more.
    pub reservations_us: i64,
}

/// The storage of the product service.
#[async_trait]
pub trait Store: Send + Sync {
    /// One product, deleted or not.
    async fn get(&self, id: ProductId, now_us: i64) -> Result<View, Error>;

    /// The products of these ids, then those that these SKUs belong to, in that order; names every one
    /// that is missing.
    async fn batch_get(
        &self,
        ids: &[ProductId],
        skus: &[String],
        now_us: i64,
    ) -> Result<Vec<View>, Error>;

    /// A page of the catalogue, with the revision that it was read at.
    async fn list(&self, query: &ListQuery, now_us: i64) -> Result<Page, Error>;

    /// A page of what matches a query, best first.
    async fn search(&self, query: &SearchQuery, now_us: i64) -> Result<Page, Error>;

    /// The units of a variant.
    async fn stock(&self, sku: &str, now_us: i64) -> Result<Stock, Error>;

    /// One reservation as it is to be seen now.
    async fn reservation(&self, id: ReservationId, now_us: i64) -> Result<Reservation, Error>;

    /// Adds a product.
    async fn create(&self, origin: &Origin, draft: &Draft) -> Result<Answer<pb::Product>, Error>;

    /// Changes fields of a product.
    async fn update(&self, origin: &Origin, update: &Update) -> Result<Answer<pb::Product>, Error>;

    /// Marks a product as deleted.
    async fn delete(
        &self,
        origin: &Origin,
        id: ProductId,
        etag: &str,
    ) -> Result<Answer<pb::Product>, Error>;

    /// Takes a deletion back.
    async fn undelete(&self, origin: &Origin, id: ProductId) -> Result<Answer<pb::Product>, Error>;

    /// Changes what is on hand.
    async fn adjust(
        &self,
        origin: &Origin,
        adjustment: &Adjustment,
    ) -> Result<Answer<pb::Stock>, Error>;

    /// Holds stock: all lines or none.
    async fn reserve(&self, origin: &Origin, wish: &Wish)
    -> Result<Answer<pb::Reservation>, Error>;

    /// Does something to a reservation.
    async fn command(
        &self,
        origin: &Origin,
        id: ReservationId,
        command: &Command,
    ) -> Result<Answer<pb::Reservation>, Error>;

    /// Notes the columns of a file that is about to be imported.
    async fn note_columns(&self, names: &[String]) -> Result<(), Error>;

    /// Merges products of a file into the catalogue.
    async fn import(&self, origin: &Origin, groups: &[Group]) -> Result<Imported, Error>;

    /// Makes sure that a file in this currency would drop no price, unless that is meant; answers the
    /// columns of all files imported so far.
    async fn export_columns(
        &self,
        currency: Currency,
        drop_other_prices: bool,
    ) -> Result<Vec<String>, Error>;

    /// Products that are not deleted, in the order of creation.
    async fn export(&self, after_seq: i64, limit: usize) -> Result<Vec<Exported>, Error>;

    /// The last revision.
    async fn revision(&self) -> Result<i64, Error>;

    /// Changes after a revision, oldest first.
    async fn changes(&self, after: i64, limit: usize) -> Result<Vec<Change>, Error>;

    /// Sees each new last revision of this process soon after its commit.
    fn revisions(&self) -> watch::Receiver<i64>;

    /// Adds to sales; false: this event was applied before.
    async fn add_sales(&self, event: &SalesEvent, now_us: i64) -> Result<bool, Error>;

    /// Writes down that overdue holds have expired, at most `limit` of them; says how many.
    async fn expire_overdue(&self, now_us: i64, limit: u32) -> Result<u32, Error>;

    /// Forgets what is older than the horizon, at most `limit` rows a table; says how many.
    async fn trim(&self, horizon: &Horizon, limit: u32) -> Result<u64, Error>;
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match mesh_store::retry(&error) {
            Retry::Always | Retry::IfIdempotent => Self::StorageBusy(error.into()),
            Retry::Never => Self::Storage(error.into()),
        }
    }
}

/// A stored value that this program cannot have written.
fn corrupt(what: &str) -> Error {
    Error::Storage(format!("unreadable {what}").into())
}
