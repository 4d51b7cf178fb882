//! The books as an accountant reads them, in SQLite. One writer: nothing is under way when a period is closed.

use super::super::LedgerAccount;
use super::super::books::{
    self, BALANCES, BalancesQuery, Books, CLOSE, CLOSED_UNTIL, Closing, DayBalance, DayRow,
    PostingRow, PostingsQuery, TRIAL,
};
use super::super::reconcile::Answering;
use super::keyed::{claimed, complete, fresh};
use super::{SqliteStore, audit};
use crate::audit::Record;
use crate::commands::Answer;
use crate::error::Error;
use async_trait::async_trait;
use kernel::Currency;
use mesh_store::idempotency::Key;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

#[async_trait]
impl Books for SqliteStore {
    async fn balances(&self, query: &BalancesQuery) -> Result<Vec<DayBalance>, Error> {
        let (day, account, code) = query.beyond();
        let rows: Vec<DayRow> = sqlx::query_as(BALANCES)
            .bind(query.from_us)
            .bind(query.to_us)
            .bind(query.currency.map(Currency::code))
            .bind(day)
            .bind(account)
            .bind(code)
            .bind(query.limit)
            .fetch_all(self.sqlite.reader())
            .await?;
        rows.into_iter().map(books::day_balance).collect()
    }

    async fn trial(&self, until_us: i64) -> Result<Vec<LedgerAccount>, Error> {
        let rows = sqlx::query_as(TRIAL).bind(until_us);
        let rows: Vec<(String, String, i64)> = rows.fetch_all(self.sqlite.reader()).await?;
        rows.into_iter().map(books::account).collect()
    }

    async fn postings(&self, query: &PostingsQuery) -> Result<Vec<PostingRow>, Error> {
        let beginning = (query.from_us, String::new(), -1);
        let (at_us, id, line) = query.after.clone().unwrap_or(beginning);
        let rows = sqlx::query(
            "SELECT t.recorded_at_us, t.id, t.kind, t.payment_id, t.source_id, p.line, p.account, p.currency, \
                 p.amount_minor \
             FROM ledger_transactions t JOIN ledger_postings p ON p.transaction_id = t.id \
             WHERE t.recorded_at_us >= ?1 AND t.recorded_at_us < ?2 AND (t.recorded_at_us, t.id, p.line) > (?1, ?3, ?4) \
             ORDER BY t.recorded_at_us, t.id, p.line LIMIT ?5",
        )
        .bind(at_us)
        .bind(query.to_us)
        .bind(id)
        .bind(line)
        .bind(query.limit)
        .fetch_all(self.sqlite.reader())
        .await?;
        rows.iter().map(posting).collect()
    }

    async fn closed_until(&self) -> Result<Option<i64>, Error> {
        let closed = sqlx::query_scalar(CLOSED_UNTIL);
        Ok(closed.fetch_one(self.sqlite.reader()).await?)
    }

    async fn close(
        &self,
        key: Option<&Key>,
        closing: &Closing,
        record: &Record,
        answer: Answering<'_, i64>,
    ) -> Result<Answer, Error> {
        let mut write = self.sqlite.begin().await?;
        if let Some(known) = claimed(&mut write, key, &record.object, closing.now_us).await? {
            return Ok(known);
        }
        let closed = sqlx::query(CLOSE)
            .bind(closing.until_us)
            .bind(closing.now_us)
            .bind(&closing.by)
            .execute(&mut *write)
            .await?;
        if closed.rows_affected() == 1 {
            audit::record(&mut write, std::slice::from_ref(record)).await?;
        }
        let until_us: i64 = sqlx::query_scalar(CLOSED_UNTIL)
            .fetch_one(&mut *write)
            .await?;
        let bytes = answer(&until_us);
        complete(&mut write, key, &bytes, closing.now_us).await?;
        write.commit().await?;
        Ok(fresh(bytes))
    }
}

fn posting(row: &SqliteRow) -> Result<PostingRow, Error> {
    let payment_id: Option<String> = row.try_get("payment_id")?;
    Ok(PostingRow {
        recorded_at_us: row.try_get("recorded_at_us")?,
        transaction_id: row.try_get("id")?,
        kind: row.try_get("kind")?,
        payment_id: payment_id.unwrap_or_default(),
        source_id: row.try_get("source_id")?,
        line: row.try_get("line")?,
        account: row.try_get("account")?,
        currency: books::currency(row.try_get("currency")?)?,
        amount_minor: row.try_get("amount_minor")?,
    })
}
