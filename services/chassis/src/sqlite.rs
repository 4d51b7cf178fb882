//! Commands and events in Sqlite: each is one transaction, carried out once.

use mesh_events::Event;
use mesh_store::{
    Sqlite, Write,
    sqlite::{idempotency, inbox, outbox},
};
use prost::Message;
use sqlx::SqliteConnection;
use uuid::Uuid;

use crate::{Answer, Call, Claimed, Error};

/// A command in the making. Dropped before its end, nothing of it has happened.
pub struct Work {
    write: Write,
    call: Call,
}

/// Begins a command, unless its key says that it was done before.
pub async fn claim<M: Message + Default>(
    sqlite: &Sqlite,
    call: &Call,
) -> Result<Claimed<Work, M>, Error> {
    let mut work = Work {
        write: sqlite.begin().await?,
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
    pub fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.write
    }

    /// Tells of what happens, as a part of the call's trace. Published only if the command is carried out.
    pub async fn event(&mut self, event: Event) -> Result<(), Error> {
        let event = event.with_traceparent(&*self.call.traceparent);
        outbox::append(&mut self.write, &event, self.call.now_us).await?;
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
    sqlite: &Sqlite,
    consumer: &str,
    message_id: Uuid,
    now_us: i64,
) -> Result<Option<Write>, Error> {
    let mut write = sqlite.begin().await?;
    let first = inbox::insert(&mut write, consumer, message_id, now_us).await?;
    Ok(first.then_some(write))
}

/// Forgets answers and message ids of before these moments, at most `limit` of each; says how many.
pub(crate) async fn trim(
    sqlite: &Sqlite,
    answers_us: i64,
    inbox_us: i64,
    limit: u32,
) -> Result<u64, Error> {
    let mut write = sqlite.begin().await?;
    let mut trimmed = idempotency::sweep(&mut write, answers_us, limit).await?;
    trimmed += inbox::sweep(&mut write, inbox_us, limit).await?;
    write.commit().await?;
    Ok(trimmed)
}

#[cfg(test)]
mod tests {
    use mesh_store::{SqliteConfig, idempotency::Key};
    use sqlx::migrate::Migrator;

    use super::*;

    async fn open() -> (tempfile::TempDir, Sqlite) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let config = SqliteConfig {
            path,
            ..SqliteConfig::default()
        };
        let sqlite = Sqlite::open(&config, &Migrator::with_migrations(Vec::new())).await;
        (folder, sqlite.unwrap())
    }

    fn call(fingerprint: u8) -> Call {
        let key = Key {
            principal: "tester".to_owned(),
            method: "/a.B/C".to_owned(),
            request_id: "1".to_owned(),
            fingerprint: [fingerprint; 32],
        };
        Call {
            key: Some(key),
            now_us: 1,
            traceparent: String::new(),
        }
    }

    async fn carry_out(
        sqlite: &Sqlite,
        call: &Call,
        resource: &str,
    ) -> Result<Answer<String>, Error> {
        match claim::<String>(sqlite, call).await? {
            Claimed::Replay(answer) => Ok(answer),
            Claimed::New(mut work) => {
                work.event(Event::new("a.Done.v1", "a_1", 1, 1, "")).await?;
                work.finish(resource.to_owned()).await
            }
        }
    }

    async fn events(sqlite: &Sqlite) -> i64 {
        let count = sqlx::query_scalar("SELECT count(*) FROM mesh_outbox");
        count.fetch_one(sqlite.reader()).await.unwrap()
    }

    #[tokio::test]
    async fn a_command_is_carried_out_once_and_answered_the_same() {
        let (_folder, sqlite) = open().await;
        let first = carry_out(&sqlite, &call(1), "one").await.unwrap();
        let again = carry_out(&sqlite, &call(1), "two").await.unwrap();
        assert_eq!((&*first.resource, first.replayed), ("one", false));
        assert_eq!((&*again.resource, again.replayed), ("one", true));
        assert_eq!(events(&sqlite).await, 1);
        let other = carry_out(&sqlite, &call(2), "three").await;
        assert!(matches!(other, Err(Error::KeyReused)));
    }

    #[tokio::test]
    async fn a_command_that_is_dropped_has_not_happened() {
        let (_folder, sqlite) = open().await;
        let Ok(Claimed::New(mut work)) = claim::<String>(&sqlite, &call(1)).await else {
            panic!("the key is new")
        };
        work.event(Event::new("a.Done.v1", "a_1", 1, 1, ""))
            .await
            .unwrap();
        drop(work);
        assert_eq!(events(&sqlite).await, 0);
        assert!(!carry_out(&sqlite, &call(1), "one").await.unwrap().replayed);
    }

    #[tokio::test]
    async fn an_event_is_first_once() {
        let (_folder, sqlite) = open().await;
        let id = Uuid::nil();
        let write = first(&sqlite, "a", id, 1).await.unwrap().unwrap();
        drop(write); // Its effect failed: it comes again.
        let write = first(&sqlite, "a", id, 1).await.unwrap().unwrap();
        write.commit().await.unwrap();
        assert!(first(&sqlite, "a", id, 1).await.unwrap().is_none());
        assert!(first(&sqlite, "b", id, 1).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn what_is_old_is_forgotten() {
        let (_folder, sqlite) = open().await;
        carry_out(&sqlite, &call(1), "one").await.unwrap();
        assert_eq!(trim(&sqlite, 1, 1, 10).await.unwrap(), 0);
        assert_eq!(trim(&sqlite, 2, 2, 10).await.unwrap(), 1);
        assert!(!carry_out(&sqlite, &call(1), "one").await.unwrap().replayed);
    }
}
