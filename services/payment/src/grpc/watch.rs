//! Changes of payments as a stream, from the log of changes.
//!
//! Deliberately without state per client beyond the last revision read: a client that was cut off
//! resumes from the last revision that it saw, at any replica.

use crate::error::Error;
use crate::saga::Saga;
use crate::store::{Change, Store, Viewer};
use futures_util::{Stream, stream};
use prost::Message as _;
use proto::commerce::payment::v1 as pb;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// A stream of changes.
pub type Changes =
    Pin<Box<dyn Stream<Item = Result<pb::WatchPaymentsResponse, Status>> + Send + 'static>>;

/// How changes are read.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How often the log is looked at without being woken.
    pub poll: Duration,
    /// How many changes are read at once.
    pub batch_max: i64,
    /// Ends all streams, so that clients go elsewhere.
    pub stopping: CancellationToken,
}

struct Reader {
    store: Arc<dyn Store>,
    saga: Saga,
    viewer: Viewer,
    after: i64,
    read: VecDeque<Change>,
    limits: Limits,
}

/// Changes after `resume`, or from now on.
pub(crate) async fn changes(
    store: Arc<dyn Store>,
    saga: Saga,
    viewer: Viewer,
    resume: Option<i64>,
    limits: &Limits,
) -> Result<Changes, Error> {
    let kept = store.revisions().await?;
    let after = resume.unwrap_or(kept.last);
    let oldest = kept.first - 1;
    if after < oldest || after > kept.last {
        return Err(Error::RevisionNotKept {
            revision: after,
            oldest,
            newest: kept.last,
        });
    }
    let read = VecDeque::new();
    let reader = Reader {
        store,
        saga,
        viewer,
        after,
        read,
        limits: limits.clone(),
    };
    Ok(Box::pin(stream::unfold(
        Some(reader),
        |reader| async move {
            let mut reader = reader?;
            match reader.next().await {
                Ok(Some(change)) => Some((Ok(change), Some(reader))),
                Ok(None) => None,
                Err(error) => Some((Err(error.into()), None)),
            }
        },
    )))
}

impl Reader {
    async fn next(&mut self) -> Result<Option<pb::WatchPaymentsResponse>, Error> {
        loop {
            if let Some(change) = self.read.pop_front() {
                let payment = pb::Payment::decode(change.body.as_slice())
                    .map_err(|_| Error::Corrupt("body"))?;
                let (revision, payment) = (change.revision, Some(payment));
                return Ok(Some(pb::WatchPaymentsResponse { revision, payment }));
            }
            let moved = self.saga.moved().notified();
            let (changes, read_to) = self
                .store
                .changes(&self.viewer, self.after, self.limits.batch_max)
                .await?;
            let idle = read_to == self.after;
            self.after = read_to;
            self.read = changes.into();
            if idle {
                tokio::select! {
                    () = moved => {}
                    () = tokio::time::sleep(self.limits.poll) => {}
                    () = self.limits.stopping.cancelled() => return Ok(None),
                }
            }
        }
    }
}
