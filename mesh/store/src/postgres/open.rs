//! Connects, and refuses a server on which an acknowledged write might not be on disk.

use std::{
    str::FromStr as _,
    time::{Duration, Instant},
};

use sqlx::{
    ConnectOptions as _, PgPool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::sleep;
use tracing::warn;

use super::{OpenError, PostgresConfig, migrate, password};
use crate::{Durability, Retry, retry};

/// Between two attempts to connect at the start.
const CONNECT_PAUSE: Duration = Duration::from_millis(250);

/// Every setting of a session is given with the connection, so that no statement is spent on it.
pub(super) fn options(config: &PostgresConfig) -> Result<PgConnectOptions, OpenError> {
    let mut options = PgConnectOptions::from_str(&config.url).map_err(OpenError::Url)?;
    if let Some(password) = password::read(config)? {
        options = options.password(&password);
    }
    let synchronous_commit = match config.durability {
        Durability::Full => "on",
        Durability::Relaxed => "off",
    };
    let settings = [
        ("synchronous_commit", synchronous_commit.to_owned()),
        // Statements are small and come again and again: planned once, for rows that are in memory.
        ("plan_cache_mode", "force_generic_plan".to_owned()),
        ("jit", "off".to_owned()),
        ("random_page_cost", "1.1".to_owned()),
        ("statement_timeout", config.statement_timeout_ms.to_string()),
        ("lock_timeout", config.lock_timeout_ms.to_string()),
        (
            "idle_in_transaction_session_timeout",
            config.idle_in_transaction_timeout_ms.to_string(),
        ),
    ];
    Ok(options.options(settings).disable_statement_logging())
}

/// Connections to a server that was checked. They outlive its restart: a broken one is thrown away and replaced.
pub(super) async fn pool(
    config: &PostgresConfig,
    migrations: &Migrator,
) -> Result<PgPool, OpenError> {
    let options = options(config)?;
    let address = format!(
        "{}:{}/{}",
        options.get_host(),
        options.get_port(),
        options.get_database().unwrap_or_default()
    );
    let pool = PgPoolOptions::new()
        .max_connections(config.connections_max.max(1))
        .acquire_timeout(Duration::from_millis(config.acquire_timeout_ms))
        .test_before_acquire(false) // A round trip on every call; a broken connection says so itself.
        .connect_lazy_with(options);
    let started = Instant::now();
    loop {
        let checked = async {
            pool.acquire().await.map_err(|source| OpenError::Connect {
                address: address.clone(),
                source,
            })?;
            check(&pool, config).await?;
            migrate::require(&pool, migrations).await
        };
        let Err(error) = checked.await else {
            return Ok(pool);
        };
        let waited = started.elapsed() >= Duration::from_millis(config.connect_timeout_ms);
        match &error {
            // It went away, perhaps in the middle of a question.
            OpenError::Connect { source, .. } | OpenError::Check(source)
                if !waited && retry(source) != Retry::Never =>
            {
                warn!(address, error = %source, "postgres can not be reached yet");
                sleep(CONNECT_PAUSE).await;
            }
            _ => return Err(error),
        }
    }
}

/// Refuses what may lose an acknowledged commit, and text that is not Unicode.
async fn check(pool: &PgPool, config: &PostgresConfig) -> Result<(), OpenError> {
    let found: (String, String, String, String) = sqlx::query_as(
        "SELECT current_setting('server_encoding'), current_setting('fsync'), \
             current_setting('full_page_writes'), current_setting('synchronous_commit')",
    )
    .fetch_one(pool)
    .await
    .map_err(OpenError::Check)?;
    refuse(found, config.durability)
}

fn refuse(
    (encoding, fsync, pages, commit): (String, String, String, String),
    durability: Durability,
) -> Result<(), OpenError> {
    let mut wanted = vec![("server_encoding", "UTF8", encoding)];
    if durability == Durability::Full {
        wanted.push(("fsync", "on", fsync));
        wanted.push(("full_page_writes", "on", pages));
        wanted.push(("synchronous_commit", "on", commit));
    }
    let wrong = wanted
        .into_iter()
        .find(|(_, wanted, found)| wanted != found);
    match wrong {
        None => Ok(()),
        Some((setting, wanted, found)) => Err(OpenError::Setting {
            setting,
            wanted,
            found,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only server of the tests has these on, and only its superuser could turn them off for everybody.
    #[test]
    fn a_server_that_may_lose_commits_is_refused_by_name() {
        let settings = |fsync: &str, pages: &str, commit: &str| {
            ("UTF8".into(), fsync.into(), pages.into(), commit.into())
        };
        assert!(refuse(settings("on", "on", "on"), Durability::Full).is_ok());
        assert!(refuse(settings("off", "off", "off"), Durability::Relaxed).is_ok());
        for (found, expected) in [
            (settings("off", "on", "on"), "fsync"),
            (settings("on", "off", "on"), "full_page_writes"),
            (settings("on", "on", "off"), "synchronous_commit"),
        ] {
            let refused = refuse(found, Durability::Full);
            assert!(
                matches!(refused, Err(OpenError::Setting { setting, .. }) if setting == expected)
            );
        }
    }
}
