//! What providers call things, and what operators look at.

use super::super::desk::{Desk, StoredWebhook, WebhooksQuery};
use super::{PostgresStore, lists, rows};
use crate::error::Error;
use crate::payment::Payment;
use crate::provider::references::{References, ReferencesError};
use async_trait::async_trait;
use kernel::PaymentId;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

#[async_trait]
impl References for PostgresStore {
    async fn note(
        &self,
        provider: &str,
        reference: &str,
        provider_ref: &str,
    ) -> Result<(), ReferencesError> {
        sqlx::query(
            "INSERT INTO provider_references (provider, reference, provider_ref) \
             VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        )
        .bind(provider)
        .bind(reference)
        .bind(provider_ref)
        .execute(self.postgres.pool())
        .await
        .map(drop)
        .map_err(|error| ReferencesError(error.to_string()))
    }

    async fn charge_named(
        &self,
        provider: &str,
        provider_ref: &str,
    ) -> Result<Option<String>, ReferencesError> {
        sqlx::query_scalar(
            "SELECT reference FROM provider_references \
             WHERE provider = $1 AND provider_ref = $2 AND reference LIKE 'att\\_%' ESCAPE '\\' \
             ORDER BY reference LIMIT 1",
        )
        .bind(provider)
        .bind(provider_ref)
        .fetch_optional(self.postgres.reads())
        .await
        .map_err(|error| ReferencesError(error.to_string()))
    }

    async fn find(
        &self,
        provider: &str,
        reference: &str,
    ) -> Result<Option<String>, ReferencesError> {
        sqlx::query_scalar(
            "SELECT provider_ref FROM provider_references WHERE provider = $1 AND reference = $2",
        )
        .bind(provider)
        .bind(reference)
        .fetch_optional(self.postgres.reads())
        .await
        .map_err(|error| ReferencesError(error.to_string()))
    }
}

#[async_trait]
impl Desk for PostgresStore {
    async fn webhooks(&self, query: &WebhooksQuery) -> Result<Vec<StoredWebhook>, Error> {
        let (time_us, event_id) = query.after.clone().unwrap_or((i64::MAX, String::new()));
        let rows = sqlx::query(
            "SELECT provider, event_id, reference, received_at_us FROM webhook_events \
             WHERE ($1::text IS NULL OR provider = $1) \
             AND (received_at_us, event_id COLLATE \"C\") < ($2, $3) \
             ORDER BY received_at_us DESC, event_id COLLATE \"C\" DESC LIMIT $4",
        )
        .bind(&query.provider)
        .bind(time_us)
        .bind(event_id)
        .bind(query.limit)
        .fetch_all(self.postgres.reads())
        .await?;
        rows.iter().map(webhook).collect()
    }

    async fn webhook(
        &self,
        provider: &str,
        event_id: &str,
    ) -> Result<Option<StoredWebhook>, Error> {
        let row = sqlx::query(
            "SELECT provider, event_id, reference, received_at_us FROM webhook_events \
             WHERE provider = $1 AND event_id = $2",
        )
        .bind(provider)
        .bind(event_id)
        .fetch_optional(self.postgres.reads())
        .await?;
        row.as_ref().map(webhook).transpose()
    }

    async fn payment_of(&self, reference: &str) -> Result<Option<PaymentId>, Error> {
        let mut connection = self.postgres.reads().acquire().await?;
        lists::payment_of(&mut connection, reference).await
    }

    async fn unresolved(
        &self,
        before_us: i64,
        after: Option<(i64, String)>,
        limit: i64,
    ) -> Result<Vec<Payment>, Error> {
        let (time_us, id) = match after {
            Some((time_us, id)) => {
                let id = PaymentId::parse(&id).map_err(|_| Error::Corrupt("cursor"))?;
                (time_us, id.uuid())
            }
            None => (i64::MIN, Uuid::nil()),
        };
        let rows = sqlx::query(concat!(
            include_str!("load.sql"),
            "WHERE p.due_at_us IS NOT NULL AND (p.created_at_us, p.id) > ($1, $2) AND ( \
                 EXISTS (SELECT FROM attempts a WHERE a.payment_id = p.id \
                     AND (a.state IN ('sent', 'reversing', 'closing') \
                         OR a.hold IN ('committing', 'undoing', 'restocking')) AND a.created_at_us < $3) \
                 OR EXISTS (SELECT FROM captures c WHERE c.payment_id = p.id \
                     AND (c.state = 'pending' OR c.stock = 'pending') AND c.created_at_us < $3) \
                 OR EXISTS (SELECT FROM refunds r WHERE r.payment_id = p.id \
                     AND (r.state = 'pending' OR r.stock = 'pending') AND r.created_at_us < $3) \
                 OR EXISTS (SELECT FROM disputes d WHERE d.payment_id = p.id \
                     AND d.response IN ('submitting', 'accepting') AND d.responded_at_us < $3)) \
             ORDER BY p.created_at_us, p.id LIMIT $4",
        ))
        .bind(time_us)
        .bind(id)
        .bind(before_us)
        .bind(limit)
        .fetch_all(self.postgres.reads())
        .await?;
        let payment = |row| Ok(rows::loaded(row)?.payment);
        rows.iter().map(payment).collect()
    }
}

fn webhook(row: &PgRow) -> Result<StoredWebhook, Error> {
    Ok(StoredWebhook {
        provider: row.try_get("provider")?,
        event_id: row.try_get("event_id")?,
        reference: row.try_get("reference")?,
        received_at_us: row.try_get("received_at_us")?,
    })
}
