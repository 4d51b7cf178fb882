//! The log of changes. Its revisions are given under the one write transaction, so they are in the
//! order of commits.

use prost::Message as _;
use proto::commerce::product::v1 as pb;

use super::{Connection, corrupt};
use crate::{
    error::Error,
    store::{Change, ChangeKind},
};

/// Appends a change; answers its revision.
pub(super) async fn append(
    connection: &mut Connection,
    kind: ChangeKind,
    product: &pb::Product,
    now_us: i64,
) -> Result<i64, Error> {
    let revision: i64 = sqlx::query_scalar(
        "UPDATE watch_state SET last_revision = last_revision + 1 RETURNING last_revision",
    )
    .fetch_one(&mut *connection)
    .await?;
    sqlx::query("INSERT INTO watch_log (revision, change, at_us, product) VALUES (?, ?, ?, ?)")
        .bind(revision)
        .bind(kind.name())
        .bind(now_us)
        .bind(product.encode_to_vec())
        .execute(connection)
        .await?;
    Ok(revision)
}

/// The last revision.
pub(super) async fn last(connection: &mut Connection) -> Result<i64, Error> {
    let last = sqlx::query_scalar("SELECT last_revision FROM watch_state");
    Ok(last.fetch_one(connection).await?)
}

/// Changes after a revision, oldest first.
pub(super) async fn after(
    connection: &mut Connection,
    revision: i64,
    limit: usize,
) -> Result<Vec<Change>, Error> {
    let (last, kept_from): (i64, i64) =
        sqlx::query_as("SELECT last_revision, trimmed_through FROM watch_state")
            .fetch_one(&mut *connection)
            .await?;
    if !(kept_from..=last).contains(&revision) {
        return Err(Error::RevisionOutOfRange {
            revision,
            kept_from,
            last,
        });
    }
    let rows: Vec<(i64, String, Vec<u8>)> = sqlx::query_as(
        "SELECT revision, change, product FROM watch_log WHERE revision > ? \
         ORDER BY revision LIMIT ?",
    )
    .bind(revision)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    let change = |(revision, kind, product): (i64, String, Vec<u8>)| {
        Ok(Change {
            revision,
            kind: ChangeKind::parse(&kind).ok_or_else(|| corrupt("change"))?,
            product: pb::Product::decode(&*product).map_err(|_| corrupt("product"))?,
        })
    };
    rows.into_iter().map(change).collect()
}
