//! What the server spent its time on while a figure was measured, by statement, from `pg_stat_statements`. Counting
//! costs a little itself, so figures of a run that profiles are not to be reported.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use sqlx::{Connection as _, PgConnection};

use crate::house::execute;

/// Statements that are shown.
const STATEMENTS: i64 = 15;
/// Characters of each statement that are shown.
const CHARACTERS: i32 = 110;

/// Has the server count from its next start on.
pub(crate) async fn prepare(url: &str) -> Result<()> {
    execute(
        url,
        "ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'",
    )
    .await?;
    // For whoever connects: the server itself knows the setting only once the library is there.
    execute(
        url,
        "ALTER ROLE ALL SET pg_stat_statements.track_planning = on",
    )
    .await?;
    execute(url, "CREATE EXTENSION pg_stat_statements").await
}

/// Forgets what was counted.
pub(crate) async fn reset(url: &str) -> Result<()> {
    execute(url, "SELECT pg_stat_statements_reset()").await
}

/// What was counted, for each of so many calls: how often a statement ran, what planning and running it took, how much
/// it wrote ahead, and how many whole pages of that (the first change of a page after a checkpoint writes all of it).
pub(crate) async fn table(url: &str, calls: u64) -> Result<String> {
    let mut connection = PgConnection::connect(url).await?;
    let rows: Vec<(i64, f64, f64, f64, i64, String)> = sqlx::query_as(
        "SELECT calls, total_plan_time, total_exec_time, wal_bytes::float8 / 1024, wal_fpi, \
             left(regexp_replace(query, '\\s+', ' ', 'g'), $1) FROM pg_stat_statements \
         ORDER BY total_plan_time + total_exec_time DESC LIMIT $2",
    )
    .bind(CHARACTERS)
    .bind(STATEMENTS)
    .fetch_all(&mut connection)
    .await
    .context("reading pg_stat_statements")?;
    connection.close().await?;
    #[expect(clippy::cast_precision_loss, reason = "calls of seconds")]
    let each = |value: f64| value / calls.max(1) as f64;
    let mut table = String::from("  times  plan ms   run ms   WAL kB  pages  statement\n");
    for (times, plan_ms, run_ms, wal_kb, pages, statement) in rows {
        #[expect(clippy::cast_precision_loss, reason = "calls of seconds")]
        let (times, pages) = (each(times as f64), each(pages as f64));
        let (plan_ms, run_ms, wal_kb) = (each(plan_ms), each(run_ms), each(wal_kb));
        writeln!(
            table,
            "{times:7.2} {plan_ms:8.3} {run_ms:8.3} {wal_kb:8.2} {pages:6.2}  {statement}"
        )?;
    }
    Ok(table)
}
