//! Commands and events in Postgres: each is one transaction, carried out once.

use mesh_events::Event;
use mesh_store::{
    Postgres,
    postgres::{Write, idempotency, inbox, outbox},
};
use prost::Message;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{Answer, Call, Claimed, Error};

/// A command in the making. Dropped before its end, nothing of it has happened.
pub struct Work {
    write: Write,
    call: Call,
}

/// Begins a command, unless its key says that it was done before.
pub async fn claim<M: Message + Default>(
    postgres: &Postgres,
    call: &Call,
) -> Result<Claimed<Work, M>, Error> {
    let mut work = Work {
        write: postgres.begin().await?,
        call: call.clone(),
    };
    let Some(key) = &call.key else {
        return Ok(Claimed::New(work));
    };
    let claim = idempotency::claim(&mut work.write, key, "", call.now_us).await?;
    Claimed::by(claim, work)
}

impl Work {
    /// The transaction.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.write
    }

    /// Tells of what happens, as a part of the call's trace. Published only if the command is carried out.
    pub async fn event(&mut self, event: Event) -> Result<(), Error> {
        let event = event.with_traceparent(&*self.call.traceparent);
        outbox::append(&mut self.write, &[event], self.call.now_us).await?;
        Ok(())
    }

    /// Stores the answer under the key and commits.
    pub async fn finish<M: Message>(mut self, resource: M) -> Result<Answer<M>, Error> {
        if let Some(key) = &self.call.key {
            let answer = resource.encode_to_vec();
            idempotency::complete(&mut self.write, key, &answer, self.call.now_us).await?;
        }
        self.write.commit().await?;
        let replayed = false;
        Ok(Answer { resource, replayed })
    }
}

/// A transaction for the effect of an event; `None`: the consumer has applied it before.
pub async fn first(
    postgres: &Postgres,
    consumer: &str,
    message_id: Uuid,
    now_us: i64,
) -> Result<Option<Write>, Error> {
    let mut write = postgres.begin().await?;
    let first = inbox::insert(&mut write, consumer, message_id, now_us).await?;
    Ok(first.then_some(write))
}

/// Forgets answers and message ids of before these moments, at most `limit` of each; says how many.
pub(crate) async fn trim(
    postgres: &Postgres,
    answers_us: i64,
    inbox_us: i64,
    limit: u32,
) -> Result<u64, Error> {
    let mut write = postgres.begin().await?;
    let mut trimmed = idempotency::sweep(&mut write, answers_us, limit).await?;
    trimmed += inbox::sweep(&mut write, inbox_us, limit).await?;
    write.commit().await?;
    Ok(trimmed)
}
