//! The log of changes, and how far it goes.
//!
//! Revisions are in the order of commits because a transaction takes them from the one row of `watch_state` with
//! its last statement, and holds that row until it has committed. So writers of the catalogue queue for the time
//! of a commit, and not for the time of their work; reservations and stock, the busy part, have no revisions and
//! never queue. The other way, giving revisions afterwards by one appointed replica, would save that at the price
//! of a page that does not know its revision, and of an election.

use std::time::Duration;

use mesh_store::{Postgres, Reads};
use prost::Message as _;
use proto::commerce::product::v1 as pb;
use sqlx::{PgConnection, Row as _};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::{catalogue::column, corrupt};
use crate::{
    error::Error,
    store::{Change, ChangeKind},
};

/// Appends changes in this order; answers the revision of the last one. Nothing may follow but the commit.
pub(super) async fn append(
    connection: &mut PgConnection,
    changes: &[(ChangeKind, pb::Product)],
    now_us: i64,
) -> Result<Option<i64>, Error> {
    if changes.is_empty() {
        return Ok(None);
    }
    let kinds: Vec<&str> = changes.iter().map(|(kind, _)| kind.name()).collect();
    let products: Vec<Vec<u8>> = changes
        .iter()
        .map(|(_, product)| product.encode_to_vec())
        .collect();
    let revision = sqlx::query_scalar(
        "WITH state AS ( \
             UPDATE watch_state SET last_revision = last_revision + cardinality($1) \
             RETURNING last_revision), \
         logged AS ( \
             INSERT INTO watch_log (revision, change, at_us, product) \
             SELECT state.last_revision - cardinality($1) + place, change, $3, product \
             FROM state, unnest($1::text[], $2::bytea[]) WITH ORDINALITY AS c(change, product, place)) \
         SELECT last_revision FROM state",
    )
    .bind(kinds)
    .bind(products)
    .bind(now_us)
    .fetch_one(connection)
    .await?;
    Ok(Some(revision))
}

/// The last revision.
pub(super) async fn last(reads: Reads<'_, sqlx::Postgres>) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT last_revision FROM watch_state")
        .fetch_one(reads)
        .await
}

/// Changes after a revision, oldest first; one statement, so that log and state are of one moment.
pub(super) async fn after(
    reads: Reads<'_, sqlx::Postgres>,
    revision: i64,
    limit: usize,
) -> Result<Vec<Change>, Error> {
    let rows = sqlx::query(
        "SELECT state.last_revision, state.trimmed_through, log.revision, log.change, log.product \
         FROM watch_state state LEFT JOIN LATERAL ( \
             SELECT revision, change, product FROM watch_log \
             WHERE revision > $1 ORDER BY revision LIMIT $2) log ON true ORDER BY log.revision",
    )
    .bind(revision)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(reads)
    .await?;
    let first = rows.first().ok_or_else(|| corrupt("watch state"))?;
    let (last, kept_from) = (
        column(first, "last_revision")?,
        column(first, "trimmed_through")?,
    );
    if !(kept_from..=last).contains(&revision) {
        return Err(Error::RevisionOutOfRange {
            revision,
            kept_from,
            last,
        });
    }
    let mut changes = Vec::new();
    for row in &rows {
        let Some(revision) = row.try_get("revision")? else {
            continue; // The one row without a change.
        };
        let kind: String = column(row, "change")?;
        let product: Vec<u8> = column(row, "product")?;
        changes.push(Change {
            revision,
            kind: ChangeKind::parse(&kind).ok_or_else(|| corrupt("change"))?,
            product: pb::Product::decode(&*product).map_err(|_| corrupt("product"))?,
        });
    }
    Ok(changes)
}

/// The last revision that this process has heard of. It never goes back, in whatever order commits are told.
#[derive(Debug, Clone)]
pub(super) struct Revisions(watch::Sender<i64>);

impl Revisions {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<i64> {
        self.0.subscribe()
    }

    /// A revision was committed.
    pub(super) fn reached(&self, revision: i64) {
        self.0.send_if_modified(|last| {
            let newer = revision > *last;
            *last = revision.max(*last);
            newer
        });
    }

    /// Looks for revisions of other replicas as long as anybody watches. Ends with the task that it runs in.
    pub(super) async fn poll(self, postgres: Postgres, every: Duration) {
        let mut ticks = interval(every.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.0.receiver_count() == 0 {
                continue;
            }
            match last(postgres.reads()).await {
                Ok(revision) => self.reached(revision),
                Err(sqlx::Error::PoolClosed) => return,
                Err(error) => tracing::warn!(%error, "revisions of other replicas are not known"),
            }
        }
    }
}
