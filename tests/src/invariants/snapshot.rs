//! A PostgreSQL database as a SQLite file, table by table as it stands in one moment: so that the same questions
//! are asked of a shop wherever it keeps its data.
//!
//! Ids that are UUIDs there get the form that clients see. Deliberately without types, keys and checks: what the
//! services' schema would refuse is what is looked for.

use std::path::Path;

use futures_util::TryStreamExt as _;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, SqliteConnection};

/// Rows that are copied at a time.
const BATCH_ROWS: usize = 1_000;

/// Copies every table of the database at `url` into a new file.
pub(super) async fn snapshot(url: &str, file: &Path) -> sqlx::Result<()> {
    let mut postgres = PgConnection::connect(url).await?;
    let mut sqlite = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .connect()
        .await?;
    sqlx::query(TYPEID).execute(&mut postgres).await?;
    sqlx::query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .execute(&mut postgres)
        .await?;
    sqlx::query("BEGIN").execute(&mut sqlite).await?;
    for table in tables(&mut postgres).await? {
        copy(&mut postgres, &mut sqlite, &table).await?;
    }
    sqlx::query("COMMIT").execute(&mut sqlite).await?;
    sqlite.close().await?;
    postgres.close().await
}

/// A UUID as 26 characters of Crockford's base32 (TypeID 0.3): two bits of zero in front, then five at a time.
const TYPEID: &str = "
    CREATE FUNCTION pg_temp.typeid(id uuid) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$
        SELECT string_agg(substr('0123456789abcdefghjkmnpqrstvwxyz',
                                 1 + substring(bits FROM 1 + 5 * place FOR 5)::bit(5)::integer, 1), '' ORDER BY place)
        FROM generate_series(0, 25) place,
             (SELECT B'00' || ('x' || replace(id::text, '-', ''))::bit(128) AS bits) whole
    $$";

async fn tables(postgres: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "SELECT table_name::text FROM information_schema.tables \
         WHERE table_schema = 'public' AND table_type = 'BASE TABLE' ORDER BY 1",
    )
    .fetch_all(postgres)
    .await
}

async fn copy(
    postgres: &mut PgConnection,
    sqlite: &mut SqliteConnection,
    table: &str,
) -> sqlx::Result<()> {
    let columns: Vec<(String, String)> = sqlx::query_as(
        "SELECT column_name::text, data_type::text FROM information_schema.columns \
         WHERE table_schema = 'public' AND table_name = $1 ORDER BY ordinal_position",
    )
    .bind(table)
    .fetch_all(&mut *postgres)
    .await?;
    let quoted = |name: &String| format!("\"{name}\"");
    let names: Vec<_> = columns.iter().map(|(name, _)| quoted(name)).collect();
    let create = format!("CREATE TABLE \"{table}\" ({})", names.join(", "));
    sqlx::query(AssertSqlSafe(create))
        .execute(&mut *sqlite)
        .await?;
    let values: Vec<_> = columns
        .iter()
        .map(|(name, kind)| value(table, name, kind))
        .collect();
    let select = format!(
        "SELECT json_build_array({})::text FROM \"{table}\"",
        values.join(", ")
    );
    let picked: Vec<_> = (0..columns.len())
        .map(|index| format!("value ->> {index}"))
        .collect();
    let insert = format!(
        "INSERT INTO \"{table}\" SELECT {} FROM json_each(?)",
        picked.join(", ")
    );
    let rows = sqlx::query_scalar::<_, String>(AssertSqlSafe(select)).fetch(postgres);
    let mut batches = rows.try_chunks(BATCH_ROWS);
    while let Some(batch) = batches.try_next().await.map_err(|error| error.1)? {
        sqlx::query(AssertSqlSafe(insert.clone()))
            .bind(format!("[{}]", batch.join(",")))
            .execute(&mut *sqlite)
            .await?;
    }
    if columns.iter().any(|(name, _)| name == "id") {
        // Each acknowledged answer is looked up by it.
        let index = format!("CREATE INDEX \"{table}_by_id\" ON \"{table}\" (id)");
        sqlx::query(AssertSqlSafe(index)).execute(sqlite).await?;
    }
    Ok(())
}

/// A column as JSON that SQLite reads as it would store it itself.
fn value(table: &str, column: &str, kind: &str) -> String {
    let prefix = match (table, column) {
        ("payments", "id") | (_, "payment_id") => "'pay_'",
        ("attempts", "id") | (_, "attempt_id") => "'att_'",
        ("captures", "id") => "'cap_'",
        ("refunds", "id") => "'re_'",
        ("disputes", "id") | (_, "dispute_id") => "'dsp_'",
        ("ledger_transactions", "id") | (_, "transaction_id") => "'txn_'",
        (_, "source_id") => {
            "CASE kind WHEN 'capture' THEN 'cap_' WHEN 'dispute' THEN 'dsp_' WHEN 'dispute_reversal' THEN 'dsp_'
                WHEN 'fee' THEN 'stl_' WHEN 'payout' THEN 'stl_' ELSE 're_' END"
        },
        _ => "''",
    };
    match kind {
        "uuid" if prefix != "''" => format!("{prefix} || pg_temp.typeid(\"{column}\")"),
        "boolean" => format!("\"{column}\"::int"),
        "bigint" | "integer" | "smallint" => format!("\"{column}\""),
        _ => format!("\"{column}\"::text"), // JSON as text, bytes in hexadecimal.
    }
}

/// What the database itself lets pass of what must not be: tried and taken back.
pub(super) async fn changes_postings(url: &str) -> sqlx::Result<Vec<&'static str>> {
    let attempts = [
        "UPDATE ledger_postings SET amount_minor = amount_minor + 1",
        "UPDATE ledger_transactions SET recorded_at_us = 0",
        "DELETE FROM ledger_postings",
        "DELETE FROM ledger_transactions",
    ];
    let mut postgres = PgConnection::connect(url).await?;
    let mut passed = Vec::new();
    for attempt in attempts {
        let mut transaction = postgres.begin().await?;
        let changed = sqlx::query(attempt).execute(&mut *transaction).await;
        if changed.is_ok_and(|changed| changed.rows_affected() > 0) {
            passed.push(attempt);
        }
        transaction.rollback().await?;
    }
    postgres.close().await?;
    Ok(passed)
}
