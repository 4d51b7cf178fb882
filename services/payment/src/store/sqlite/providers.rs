//! What providers call things, and what operators look at.

use super::super::desk::{Desk, StoredWebhook, WebhooksQuery};
use super::{SqliteStore, lists, rows};
use crate::error::Error;
use crate::payment::Payment;
use crate::provider::references::{References, ReferencesError};
use async_trait::async_trait;
use kernel::PaymentId;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

#[async_trait]
impl References for SqliteStore {
    async fn note(
        &self,
        provider: &str,
        reference: &str,
        provider_ref: &str,
    ) -> Result<(), ReferencesError> {
        let noted = async {
            let mut write = self.sqlite.begin().await?;
            sqlx::query(
                "INSERT INTO provider_references (provider, reference, provider_ref) \
                 VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            )
            .bind(provider)
            .bind(reference)
            .bind(provider_ref)
            .execute(&mut *write)
            .await?;
            write.commit().await
        };
        noted
            .await
            .map_err(|error: sqlx::Error| ReferencesError(error.to_string()))
    }

    async fn charge_named(
        &self,
        provider: &str,
        provider_ref: &str,
    ) -> Result<Option<String>, ReferencesError> {
        sqlx::query_scalar(
            "SELECT reference FROM provider_references \
             WHERE provider = ? AND provider_ref = ? AND reference LIKE 'att\\_%' ESCAPE '\\' \
             ORDER BY reference LIMIT 1",
        )
        .bind(provider)
        .bind(provider_ref)
        .fetch_optional(self.sqlite.reader())
        .await
        .map_err(|error| ReferencesError(error.to_string()))
    }

    async fn find(
        &self,
        provider: &str,
        reference: &str,
    ) -> Result<Option<String>, ReferencesError> {
        sqlx::query_scalar(
            "SELECT provider_ref FROM provider_references WHERE provider = ? AND reference = ?",
        )
        .bind(provider)
        .bind(reference)
        .fetch_optional(self.sqlite.reader())
        .await
        .map_err(|error| ReferencesError(error.to_string()))
    }
}

#[async_trait]
impl Desk for SqliteStore {
    async fn webhooks(&self, query: &WebhooksQuery) -> Result<Vec<StoredWebhook>, Error> {
        let (time_us, event_id) = query.after.clone().unwrap_or((i64::MAX, String::new()));
        let rows = sqlx::query(
            "SELECT provider, event_id, reference, received_at_us FROM webhook_events \
             WHERE (?1 IS NULL OR provider = ?1) AND (received_at_us, event_id) < (?2, ?3) \
             ORDER BY received_at_us DESC, event_id DESC LIMIT ?4",
        )
        .bind(&query.provider)
        .bind(time_us)
        .bind(event_id)
        .bind(query.limit)
        .fetch_all(self.sqlite.reader())
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
             WHERE provider = ? AND event_id = ?",
        )
        .bind(provider)
        .bind(event_id)
        .fetch_optional(self.sqlite.reader())
        .await?;
        row.as_ref().map(webhook).transpose()
    }

    async fn payment_of(&self, reference: &str) -> Result<Option<PaymentId>, Error> {
        let mut reader = self.sqlite.reader().acquire().await?;
        lists::payment_of(&mut reader, reference).await
    }

    async fn unresolved(
        &self,
        before_us: i64,
        after: Option<(i64, String)>,
        limit: i64,
    ) -> Result<Vec<Payment>, Error> {
        let (time_us, id) = after.unwrap_or((i64::MIN, String::new()));
        let mut read = self.sqlite.reader().begin().await?; // One state of all its rows.
        let rows = sqlx::query(
            "SELECT p.* FROM payments p WHERE p.due_at_us IS NOT NULL \
             AND (p.created_at_us, p.id) > (?1, ?2) AND ( \
                 EXISTS (SELECT 1 FROM attempts a WHERE a.payment_id = p.id \
                     AND (a.state IN ('sent', 'reversing', 'closing') \
                         OR a.hold IN ('committing', 'undoing', 'restocking')) AND a.created_at_us < ?3) \
                 OR EXISTS (SELECT 1 FROM captures c WHERE c.payment_id = p.id \
                     AND (c.state = 'pending' OR c.stock = 'pending') AND c.created_at_us < ?3) \
                 OR EXISTS (SELECT 1 FROM refunds r WHERE r.payment_id = p.id \
                     AND (r.state = 'pending' OR r.stock = 'pending') AND r.created_at_us < ?3) \
                 OR EXISTS (SELECT 1 FROM disputes d WHERE d.payment_id = p.id \
                     AND d.response IN ('submitting', 'accepting') AND d.responded_at_us < ?3)) \
             ORDER BY p.created_at_us, p.id LIMIT ?4",
        )
        .bind(time_us)
        .bind(id)
        .bind(before_us)
        .bind(limit)
        .fetch_all(&mut *read)
        .await?;
        let mut payments = rows
            .iter()
            .map(rows::payment)
            .collect::<Result<Vec<_>, _>>()?;
        rows::load_parts(&mut read, &mut payments).await?;
        Ok(payments)
    }
}

fn webhook(row: &SqliteRow) -> Result<StoredWebhook, Error> {
    Ok(StoredWebhook {
        provider: row.try_get("provider")?,
        event_id: row.try_get("event_id")?,
        reference: row.try_get("reference")?,
        received_at_us: row.try_get("received_at_us")?,
    })
}
