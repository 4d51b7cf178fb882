//! A change of the catalogue: its transaction, its key, the events and changes that it leaves behind.
//!
//! Reservations go another way, see `writes`.

use mesh_events::Event;
use mesh_store::{
    idempotency::{Claim, Key},
    postgres::{Write, idempotency, outbox},
};
use prost::Message;
use proto::commerce::product::v1 as pb;
use sqlx::PgConnection;

use super::{PostgresStore, watch_log};
use crate::{
    error::Error,
    listing::View,
    store::{Answer, ChangeKind, Origin, events},
    wire,
};

/// What became of a claim.
pub(super) enum Claimed<M> {
    /// The key is new: do the work.
    New(Box<Work>),
    /// The work was done before.
    Replay(Answer<M>),
}

/// A change in the making. Dropped before its end, nothing of it has happened.
pub(super) struct Work {
    write: Write,
    key: Option<Key>,
    /// What time it is.
    pub(super) now_us: i64,
    traceparent: String,
    events: Vec<Event>,
    changes: Vec<(ChangeKind, pb::Product)>,
}

impl PostgresStore {
    /// Begins a change without a key.
    pub(super) async fn begin(&self, origin: &Origin) -> Result<Work, Error> {
        Ok(Work {
            write: self.postgres().begin().await?,
            key: None,
            now_us: origin.now_us,
            traceparent: origin.traceparent.clone(),
            events: Vec::new(),
            changes: Vec::new(),
        })
    }

    /// Begins a change, unless its key says that it was done before.
    pub(super) async fn claim<M: Message + Default>(
        &self,
        origin: &Origin,
    ) -> Result<Claimed<M>, Error> {
        let mut work = self.begin(origin).await?;
        let Some(key) = &origin.key else {
            return Ok(Claimed::New(Box::new(work)));
        };
        match idempotency::claim(&mut work.write, key, "", origin.now_us).await? {
            Claim::New => {
                work.key = Some(key.clone());
                Ok(Claimed::New(Box::new(work)))
            }
            known => Ok(Claimed::Replay(answer(known)?)),
        }
    }

    /// Stores the answer and commits.
    pub(super) async fn finish<M: Message>(
        &self,
        mut work: Work,
        resource: M,
    ) -> Result<Answer<M>, Error> {
        if let Some(key) = work.key.take() {
            let answer = resource.encode_to_vec();
            idempotency::complete(&mut work.write, &key, &answer, work.now_us).await?;
        }
        self.commit(work).await?;
        Ok(Answer {
            resource,
            replayed: false,
        })
    }

    /// Gives the changes their revisions as the last thing before the commit, and wakes those who watch.
    pub(super) async fn commit(&self, mut work: Work) -> Result<(), Error> {
        outbox::append(&mut work.write, &work.events, work.now_us).await?;
        let revision = watch_log::append(&mut work.write, &work.changes, work.now_us).await?;
        work.write.commit().await?;
        if let Some(revision) = revision {
            self.shared.revisions.reached(revision);
        }
        Ok(())
    }
}

/// What is answered to a call whose key is known.
pub(super) fn answer<M: Message + Default>(known: Claim) -> Result<Answer<M>, Error> {
    match known {
        Claim::Replay(answer) => Ok(Answer {
            resource: M::decode(&*answer).map_err(|error| Error::Storage(error.into()))?,
            replayed: true,
        }),
        Claim::Reused => Err(Error::KeyReused),
        Claim::InFlight { .. } | Claim::New => Err(Error::InFlight),
    }
}

impl Work {
    /// The transaction's connection.
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.write
    }

    /// Notes a change of a product, for the log and as an event; answers the product as it is shown.
    pub(super) fn changed(&mut self, kind: ChangeKind, view: &View) -> pb::Product {
        let resource = wire::product(view);
        let told = events::changed(kind, &resource, view.product.version);
        self.events.push(told.event(self.now_us, &self.traceparent));
        self.changes.push((kind, resource.clone()));
        resource
    }
}
