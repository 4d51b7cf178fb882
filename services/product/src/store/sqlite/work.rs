//! One mutation: its transaction, its key, the events and changes that it leaves behind.

use mesh_store::{
    Write,
    idempotency::{Claim, Key},
    sqlite::{idempotency, outbox},
};
use prost::Message;
use proto::commerce::product::v1 as pb;
use tokio::sync::watch;

use super::{SqliteStore, watch_log};
use crate::{
    error::Error,
    listing::View,
    store::{
        Answer, ChangeKind, Origin,
        events::{self, Told},
    },
    wire,
};

/// What became of a claim.
pub(super) enum Claimed<M> {
    /// The key is new: do the work.
    New(Box<Work>),
    /// The work was done before.
    Replay(Answer<M>),
}

/// A mutation in the making. Dropped before its end, nothing of it has happened.
pub(super) struct Work {
    write: Write,
    key: Option<Key>,
    /// What time it is.
    pub(super) now_us: i64,
    traceparent: String,
    revisions: watch::Sender<i64>,
    last_revision: Option<i64>,
}

impl SqliteStore {
    /// Begins a mutation without a key.
    pub(super) async fn begin(&self, origin: &Origin) -> Result<Work, Error> {
        Ok(Work {
            write: self.sqlite.begin().await?,
            key: None,
            now_us: origin.now_us,
            traceparent: origin.traceparent.clone(),
            revisions: self.revisions.clone(),
            last_revision: None,
        })
    }

    /// Begins a mutation, unless its key says that it was done before.
    pub(super) async fn claim<M: Message + Default>(
        &self,
        origin: &Origin,
    ) -> Result<Claimed<M>, Error> {
        let mut work = self.begin(origin).await?;
        let Some(key) = &origin.key else {
            return Ok(Claimed::New(Box::new(work)));
        };
        let claim = idempotency::claim(&mut work.write, key, "", origin.now_us).await?;
        match claim {
            Claim::New => {
                work.key = Some(key.clone());
                Ok(Claimed::New(Box::new(work)))
            }
            Claim::Replay(answer) => {
                let resource = M::decode(&*answer).map_err(|error| Error::Storage(error.into()))?;
                Ok(Claimed::Replay(Answer {
                    resource,
                    replayed: true,
                }))
            }
            Claim::InFlight { .. } => Err(Error::InFlight),
            Claim::Reused => Err(Error::KeyReused),
        }
    }
}

impl Work {
    /// The transaction's connection.
    pub(super) fn connection(&mut self) -> &mut super::Connection {
        &mut self.write
    }

    /// Appends an event.
    pub(super) async fn event(&mut self, told: Told) -> Result<(), Error> {
        let event = told.event(self.now_us, &self.traceparent);
        outbox::append(&mut self.write, &event, self.now_us).await?;
        Ok(())
    }

    /// Notes a change of a product in the log and as an event; answers the product as it is shown.
    pub(super) async fn changed(
        &mut self,
        kind: ChangeKind,
        view: &View,
    ) -> Result<pb::Product, Error> {
        let resource = wire::product(view);
        let now_us = self.now_us;
        let revision = watch_log::append(self.connection(), kind, &resource, now_us).await?;
        self.last_revision = Some(revision);
        self.event(events::changed(kind, &resource, view.product.version))
            .await?;
        Ok(resource)
    }

    /// Stores the answer and commits.
    pub(super) async fn finish<M: Message>(mut self, resource: M) -> Result<Answer<M>, Error> {
        if let Some(key) = self.key.take() {
            let answer = resource.encode_to_vec();
            idempotency::complete(&mut self.write, &key, &answer, self.now_us).await?;
        }
        self.commit().await?;
        Ok(Answer {
            resource,
            replayed: false,
        })
    }

    /// Commits, and wakes those who watch.
    pub(super) async fn commit(self) -> Result<(), Error> {
        self.write.commit().await?;
        if let Some(revision) = self.last_revision {
            self.revisions.send_replace(revision);
        }
        Ok(())
    }
}
