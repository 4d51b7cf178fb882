//! The databases of a shop on one connection: payment's own is the main one, `product` and `provider` are
//! attached. Where they are PostgreSQL's, copies of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection};
use tempfile::TempDir;

use super::snapshot::{changes_postings, snapshot};

/// What is wrong, one text each.
pub type Violations = Vec<String>;

/// The files of a shop, and what each database is called here.
const FILES: [(&str, &str); 3] = [
    ("main", "payment.db"),
    ("product", "product.db"),
    ("provider", "simulator.db"),
];

/// A shop's databases, to be looked at.
pub struct Stores {
    pub(super) connection: SqliteConnection,
    pub(super) now_us: i64,
    folder: PathBuf,
    snapshot: Option<Snapshot>,
}

/// Where PostgreSQL databases were copied to, gone with it.
struct Snapshot {
    payment: String,
    _folder: TempDir,
}

impl Stores {
    /// Opens the databases in a shop's data folder, to read only. `now_us`: the shop's present.
    pub async fn open(folder: &Path, now_us: i64) -> sqlx::Result<Stores> {
        Stores::connect(folder, now_us, true).await
    }

    /// Copies the PostgreSQL databases at these URLs as they are now, and opens the copies beside the
    /// provider's journal in `folder`; with one of a second provider there, both as one.
    pub async fn copy(
        product: &str,
        payment: &str,
        folder: &Path,
        now_us: i64,
    ) -> sqlx::Result<Stores> {
        let copies = TempDir::new().map_err(sqlx::Error::Io)?;
        let (main, attached) = (
            copies.path().join("payment.db"),
            copies.path().join("product.db"),
        );
        tokio::try_join!(snapshot(payment, &main), snapshot(product, &attached))?;
        let (journal, spare) = (folder.join("simulator.db"), folder.join("spare.db"));
        let journal = if spare.exists() {
            let both = copies.path().join("provider.db");
            merge(&[journal, spare], &both).await?;
            both
        } else {
            journal
        };
        let files = [main, attached, journal];
        let connection = connect(&files, true).await?;
        Ok(Stores {
            connection,
            now_us,
            folder: folder.to_owned(),
            snapshot: Some(Snapshot {
                payment: payment.to_owned(),
                _folder: copies,
            }),
        })
    }

    /// Opens them to write too: to plant bugs.
    pub async fn open_writable(folder: &Path, now_us: i64) -> sqlx::Result<Stores> {
        Stores::connect(folder, now_us, false).await
    }

    async fn connect(folder: &Path, now_us: i64, query_only: bool) -> sqlx::Result<Stores> {
        let files = FILES.map(|(_, file)| folder.join(file));
        Ok(Stores {
            connection: connect(&files, query_only).await?,
            now_us,
            folder: folder.to_owned(),
            snapshot: None,
        })
    }

    /// Closes the connection: a dropped one is closed a moment later, and its files go with it.
    pub async fn close(self) -> sqlx::Result<()> {
        self.connection.close().await
    }

    /// The text in the first column of each row.
    pub(super) async fn texts(&mut self, sql: &'static str) -> sqlx::Result<Violations> {
        sqlx::query_scalar(sql)
            .fetch_all(&mut self.connection)
            .await
    }

    /// The same, of a query with one parameter: the shop's present.
    pub(super) async fn texts_now(&mut self, sql: &'static str) -> sqlx::Result<Violations> {
        sqlx::query_scalar(sql)
            .bind(self.now_us)
            .fetch_all(&mut self.connection)
            .await
    }

    /// Where the databases lie.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The changes that PostgreSQL lets pass of those that it must refuse; nothing where SQLite keeps the data.
    pub(super) async fn changes_postings(&self) -> sqlx::Result<Option<Vec<&'static str>>> {
        match &self.snapshot {
            Some(snapshot) => changes_postings(&snapshot.payment).await.map(Some),
            None => Ok(None),
        }
    }

    /// Copies payment's database as it is now.
    pub(super) async fn copy_payments_to(&mut self, copy: &Path) -> sqlx::Result<()> {
        let query_only: bool = sqlx::query_scalar("PRAGMA query_only")
            .fetch_one(&mut self.connection)
            .await?;
        self.plant("PRAGMA query_only = OFF").await?; // It forbids to write a copy as well.
        let copied = sqlx::query("VACUUM main INTO ?")
            .bind(copy.to_string_lossy().into_owned())
            .execute(&mut self.connection)
            .await;
        if query_only {
            self.plant("PRAGMA query_only = ON").await?;
        }
        copied.map(drop)
    }

    /// The tables of a database, without those that SQLite keeps for itself.
    pub(super) async fn tables(&mut self, database: &str) -> sqlx::Result<Vec<String>> {
        let sql = format!(
            "SELECT name FROM {database}.sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' \
             AND name NOT LIKE 'product_search%' ORDER BY name"
        );
        sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_all(&mut self.connection)
            .await
    }

    /// How many rows each table of each database has.
    pub async fn row_counts(&mut self) -> sqlx::Result<BTreeMap<String, i64>> {
        let mut counts = BTreeMap::new();
        for (database, _) in FILES {
            for table in self.tables(database).await? {
                let name = format!("{database}.{table}");
                let sql = AssertSqlSafe(format!("SELECT count(*) FROM {name}"));
                let count = sqlx::query_scalar(sql)
                    .fetch_one(&mut self.connection)
                    .await?;
                counts.insert(name, count);
            }
        }
        Ok(counts)
    }

    /// How many charges of an order kept the customer's money, by the provider's own journal.
    pub async fn charges(&mut self, order_ref: &str) -> sqlx::Result<i64> {
        sqlx::query_scalar(
            "SELECT count(*) FROM (SELECT charge_reference FROM provider.journal WHERE order_ref = ? \
             GROUP BY charge_reference \
             HAVING sum(CASE outcome WHEN 'captured' THEN amount_minor WHEN 'refunded' THEN -amount_minor \
             WHEN 'refund_failed' THEN amount_minor ELSE 0 END) > 0)",
        )
        .bind(order_ref)
        .fetch_one(&mut self.connection)
        .await
    }

    /// What was done on purpose at the provider, and how often.
    pub async fn misfortunes(&mut self) -> sqlx::Result<Vec<(String, u32)>> {
        sqlx::query_as(
            "SELECT operation || ' ' || fault, count(*) FROM provider.faults GROUP BY 1
             UNION ALL
             SELECT 'webhook ' || fault || ', ' || outcome, count(*) FROM provider.webhooks GROUP BY 1
             UNION ALL
             SELECT 'journal: ' || operation || ' ' || outcome, count(*) FROM provider.journal GROUP BY 1
             UNION ALL
             SELECT 'late success that went back', count(*) FROM payments WHERE late_success GROUP BY 1",
        )
        .fetch_all(&mut self.connection)
        .await
    }

    /// Requests that are under way to the provider, and webhooks that are from it.
    pub async fn under_way(&mut self) -> sqlx::Result<i64> {
        sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM provider.arrivals)
                  + (SELECT count(*) FROM provider.webhooks WHERE outcome = 'waiting')",
        )
        .fetch_one(&mut self.connection)
        .await
    }

    /// Events that were not delivered yet, over all outboxes.
    pub async fn undelivered(&mut self) -> sqlx::Result<i64> {
        sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM main.mesh_outbox) + (SELECT count(*) FROM product.mesh_outbox)",
        )
        .fetch_one(&mut self.connection)
        .await
    }

    /// The kinds of the undelivered events that belong to a trace.
    pub async fn kinds_of_trace(&mut self, trace_id: &str) -> sqlx::Result<Vec<String>> {
        sqlx::query_scalar(
            "SELECT kind FROM (SELECT kind, traceparent FROM main.mesh_outbox
                               UNION ALL SELECT kind, traceparent FROM product.mesh_outbox)
             WHERE instr(traceparent, ?) > 0",
        )
        .bind(trace_id)
        .fetch_all(&mut self.connection)
        .await
    }

    /// On whose behalf a method was called that changes something.
    pub async fn principals_of(&mut self, method: &str) -> sqlx::Result<Vec<String>> {
        sqlx::query_scalar(
            "SELECT DISTINCT principal FROM (SELECT principal, method FROM main.mesh_idempotency
                                             UNION ALL SELECT principal, method FROM product.mesh_idempotency)
             WHERE method LIKE '%/' || ?",
        )
        .bind(method)
        .fetch_all(&mut self.connection)
        .await
    }

    /// The state of a row of payment's database, if it is there.
    pub(super) async fn state_of(
        &mut self,
        table: &'static str,
        id: &str,
    ) -> sqlx::Result<Option<String>> {
        let sql = AssertSqlSafe(format!("SELECT state FROM {table} WHERE id = ?"));
        sqlx::query_scalar(sql)
            .bind(id)
            .fetch_optional(&mut self.connection)
            .await
    }

    /// Whether a refund succeeded before it failed.
    pub(super) async fn was_reversed(&mut self, refund: &str) -> sqlx::Result<bool> {
        sqlx::query_scalar(
            "SELECT count(*) > 0 FROM refunds WHERE id = ? AND reversed_at_us IS NOT NULL",
        )
        .bind(refund)
        .fetch_one(&mut self.connection)
        .await
    }

    /// The reservations that hold stock.
    pub async fn held_reservations(&mut self) -> sqlx::Result<Vec<String>> {
        sqlx::query_scalar("SELECT id FROM product.reservation WHERE state = 'HELD'")
            .fetch_all(&mut self.connection)
            .await
    }

    /// Changes the databases as no service would.
    pub async fn plant(&mut self, sql: &'static str) -> sqlx::Result<()> {
        sqlx::raw_sql(sql)
            .execute(&mut self.connection)
            .await
            .map(drop)
    }
}

/// The tables of a provider's file that are looked at.
const JOURNAL: [&str; 4] = ["journal", "faults", "arrivals", "webhooks"];

/// The journals of two providers as one in a new file.
async fn merge(journals: &[PathBuf; 2], file: &Path) -> sqlx::Result<()> {
    let mut connection = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .busy_timeout(Duration::from_secs(10))
        .connect()
        .await?;
    for (name, path) in ["first", "second"].iter().zip(journals) {
        sqlx::query(AssertSqlSafe(format!("ATTACH ? AS {name}")))
            .bind(path.to_string_lossy().into_owned())
            .execute(&mut connection)
            .await?;
    }
    for table in JOURNAL {
        let both = format!(
            "CREATE TABLE main.{table} AS SELECT * FROM first.{table} UNION ALL SELECT * FROM second.{table}"
        );
        sqlx::query(AssertSqlSafe(both))
            .execute(&mut connection)
            .await?;
    }
    connection.close().await
}

/// One connection to all three, in the order of [`FILES`].
async fn connect(files: &[PathBuf; 3], query_only: bool) -> sqlx::Result<SqliteConnection> {
    let mut connection = SqliteConnectOptions::new()
        .filename(&files[0])
        // A connection that is opened to read only cannot open a database that was closed properly.
        .pragma("query_only", if query_only { "ON" } else { "OFF" })
        .foreign_keys(false) // Bugs are planted through it.
        .create_if_missing(false)
        .busy_timeout(Duration::from_secs(10))
        .connect()
        .await?;
    for ((name, _), path) in FILES.iter().zip(files).skip(1) {
        assert!(path.exists(), "{} is missing", path.display());
        sqlx::query(AssertSqlSafe(format!("ATTACH ? AS {name}")))
            .bind(path.to_string_lossy().into_owned())
            .execute(&mut connection)
            .await?;
    }
    Ok(connection)
}

/// The names of the databases on the connection.
pub(super) fn databases() -> [&'static str; 3] {
    FILES.map(|(name, _)| name)
}
