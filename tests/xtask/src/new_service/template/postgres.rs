//! The store in PostgreSQL, shared by all replicas of the service.

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
