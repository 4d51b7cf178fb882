//! What the service needs from storage. Each method is one transaction around a pure decision of the domain; all
//! SQL is below this folder.
//!
//! These statements are the same for both databases. One that uses a strength of PostgreSQL stands in `postgres`,
//! with its counterpart in `sqlite`; when there are some, each module gets a file.

use std::sync::Arc;

use async_trait::async_trait;
use chassis::{Answer, Call, Database, Error};
use kernel::WidgetId;
use mesh_events::Event;
use prost::Message as _;
use proto::commerce::widget::v1 as pb;
use uuid::Uuid;

use crate::widget::{Draft, Title, Widget};

/// The consumer's name in the inbox.
const CONSUMER: &str = "widget";

const INSERT: &str = "INSERT INTO \"widget\" (id, name, product_id, created_at_us) \
     VALUES ($1, $2, $3, $4)";
const SELECT: &str = "SELECT own.id, own.name, own.product_id, coalesce(p.title, ''), own.created_at_us \
     FROM \"widget\" own LEFT JOIN product_copy p ON p.product_id = own.product_id WHERE own.id = $1";
const KEEP_TITLE: &str = "INSERT INTO product_copy (product_id, title, version) \
     VALUES ($1, $2, $3) ON CONFLICT (product_id) DO UPDATE SET \
         title = excluded.title, version = excluded.version \
     WHERE product_copy.version < excluded.version";

/// A row of [`SELECT`].
type Row = (String, String, String, String, i64);

/// The storage of the widget service.
#[async_trait]
pub trait Store: Send + Sync {
    /// Adds a widget.
    async fn create(&self, call: &Call, draft: &Draft) -> Result<Answer<pb::Widget>, Error>;

    /// One widget.
    async fn get(&self, id: WidgetId) -> Result<pb::Widget, Error>;

    /// Keeps a title, unless a newer one is kept; false: the event was applied before.
    async fn keep_title(
        &self,
        message_id: Uuid,
        title: &Title,
        now_us: i64,
    ) -> Result<bool, Error>;
}

/// The store over a database of either kind.
pub fn over(database: &Database) -> Arc<dyn Store> {
    match database {
        Database::Sqlite(sqlite) => Arc::new(sqlite::SqliteStore(sqlite.clone())),
        Database::Postgres(postgres) => Arc::new(postgres::PostgresStore(postgres.clone())),
    }
}

fn found(row: Option<Row>, id: &str) -> Result<pb::Widget, Error> {
    let (kind, id) = ("widget", id.to_owned());
    let row = row.ok_or(Error::NotFound { kind, id })?;
    let (id, name, product_id, product_title, created_at_us) = row;
    Ok(pb::Widget {
        id,
        name,
        product_id,
        product_title,
        create_time: Some(timestamp(created_at_us)),
    })
}

fn created(widget: &Widget, resource: &pb::Widget) -> Event {
    let body = pb::WidgetCreated {
        widget: Some(resource.clone()),
    };
    let id = widget.id.to_string();
    let event = Event::new("widget.WidgetCreated.v1", id, 1, widget.created_at_us, body.encode_to_vec());
    event.optional()
}

fn timestamp(us: i64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: us.div_euclid(1_000_000),
        nanos: i32::try_from(us.rem_euclid(1_000_000) * 1_000).expect("below a second"),
    }
}

/// In SQLite: the embedded default.
mod sqlite {
    use async_trait::async_trait;
    use chassis::{Answer, Call, Claimed, Error, sqlite};
    use kernel::WidgetId;
    use mesh_store::Sqlite;
    use proto::commerce::widget::v1 as pb;
    use sqlx::SqliteConnection;
    use uuid::Uuid;

    use super::{CONSUMER, INSERT, KEEP_TITLE, SELECT, Store, created, found};
    use crate::widget::{Draft, Title, Widget};

    /// The widget service's database.
    pub(super) struct SqliteStore(pub(super) Sqlite);

    #[async_trait]
    impl Store for SqliteStore {
        async fn create(&self, call: &Call, draft: &Draft) -> Result<Answer<pb::Widget>, Error> {
            let mut work = match sqlite::claim(&self.0, call).await? {
                Claimed::Replay(answer) => return Ok(answer),
                Claimed::New(work) => work,
            };
            let widget = Widget::create(draft, call.now_us);
            let id = widget.id.to_string();
            sqlx::query(INSERT)
                .bind(&id)
                .bind(&widget.name)
                .bind(widget.product_id.to_string())
                .bind(widget.created_at_us)
                .execute(work.connection())
                .await?;
            let resource = select(work.connection(), &id).await?;
            work.event(created(&widget, &resource)).await?;
            work.finish(resource).await
        }

        async fn get(&self, id: WidgetId) -> Result<pb::Widget, Error> {
            let mut connection = self.0.reader().acquire().await?;
            select(&mut connection, &id.to_string()).await
        }

        async fn keep_title(
            &self,
            message_id: Uuid,
            title: &Title,
            now_us: i64,
        ) -> Result<bool, Error> {
            let first = sqlite::first(&self.0, CONSUMER, message_id, now_us).await?;
            let Some(mut write) = first else {
                return Ok(false);
            };
            sqlx::query(KEEP_TITLE)
                .bind(&title.product_id)
                .bind(&title.title)
                .bind(title.version)
                .execute(&mut *write)
                .await?;
            write.commit().await?;
            Ok(true)
        }
    }

    async fn select(connection: &mut SqliteConnection, id: &str) -> Result<pb::Widget, Error> {
        let row = sqlx::query_as(SELECT).bind(id).fetch_optional(connection);
        found(row.await?, id)
    }
}

/// In PostgreSQL, shared by all replicas of the service.
mod postgres {
    use async_trait::async_trait;
    use chassis::{Answer, Call, Claimed, Error, postgres};
    use kernel::WidgetId;
    use mesh_store::Postgres;
    use proto::commerce::widget::v1 as pb;
    use sqlx::PgConnection;
    use uuid::Uuid;

    use super::{CONSUMER, INSERT, KEEP_TITLE, SELECT, Store, created, found};
    use crate::widget::{Draft, Title, Widget};

    /// The widget service's database.
    pub(super) struct PostgresStore(pub(super) Postgres);

    #[async_trait]
    impl Store for PostgresStore {
        async fn create(&self, call: &Call, draft: &Draft) -> Result<Answer<pb::Widget>, Error> {
            let mut work = match postgres::claim(&self.0, call).await? {
                Claimed::Replay(answer) => return Ok(answer),
                Claimed::New(work) => work,
            };
            let widget = Widget::create(draft, call.now_us);
            let id = widget.id.to_string();
            sqlx::query(INSERT)
                .bind(&id)
                .bind(&widget.name)
                .bind(widget.product_id.to_string())
                .bind(widget.created_at_us)
                .execute(work.connection())
                .await?;
            let resource = select(work.connection(), &id).await?;
            work.event(created(&widget, &resource)).await?;
            work.finish(resource).await
        }

        async fn get(&self, id: WidgetId) -> Result<pb::Widget, Error> {
            let mut connection = self.0.reads().acquire().await?;
            select(&mut connection, &id.to_string()).await
        }

        async fn keep_title(
            &self,
            message_id: Uuid,
            title: &Title,
            now_us: i64,
        ) -> Result<bool, Error> {
            let first = postgres::first(&self.0, CONSUMER, message_id, now_us).await?;
            let Some(mut write) = first else {
                return Ok(false);
            };
            sqlx::query(KEEP_TITLE)
                .bind(&title.product_id)
                .bind(&title.title)
                .bind(title.version)
                .execute(&mut *write)
                .await?;
            write.commit().await?;
            Ok(true)
        }
    }

    async fn select(connection: &mut PgConnection, id: &str) -> Result<pb::Widget, Error> {
        let row = sqlx::query_as(SELECT).bind(id).fetch_optional(connection);
        found(row.await?, id)
    }
}
