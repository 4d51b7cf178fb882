//! Brings the schema up, under a role that may, and checks it under the role that may not.

use std::borrow::Cow;

use sqlx::{
    AssertSqlSafe, ConnectOptions as _, PgConnection, PgPool,
    migrate::{MigrateError, Migrator},
};

use super::{OpenError, PostgresConfig, open};

/// Tables of this crate. They have a migrations table of their own, so that their versions and a
/// service's never meet.
static MESH_MIGRATIONS: Migrator = sqlx::migrate!("src/postgres/migrations");
const MESH_MIGRATIONS_TABLE: &str = "_mesh_migrations";
const SERVICE_MIGRATIONS_TABLE: &str = "_sqlx_migrations";

/// The schema of a service.
pub struct Schema<'a> {
    /// Its migrations, applied after this crate's.
    pub migrations: &'a Migrator,
    /// The role that the service runs under. Empty: the one that migrates.
    pub role: &'a str,
    /// Tables that the service may add rows to and never change.
    pub append_only: &'a [&'a str],
}

/// Applies what is missing and gives the service's role its rights: rows of every table, and no more.
/// Two at once wait for each other.
pub async fn migrate(config: &PostgresConfig, schema: &Schema<'_>) -> Result<(), OpenError> {
    let options = open::options(&PostgresConfig {
        statement_timeout_ms: 0, // Building an index takes as long as it takes.
        ..config.clone()
    })?;
    let address = format!("{}:{}", options.get_host(), options.get_port());
    let mut connection = options
        .connect()
        .await
        .map_err(|source| OpenError::Connect { address, source })?;
    apply(&mut connection, &mesh_migrations()).await?;
    apply(&mut connection, schema.migrations).await?;
    if schema.role.is_empty() {
        return Ok(());
    }
    grant(&mut connection, schema)
        .await
        .map_err(|source| OpenError::Grant {
            role: schema.role.to_owned(),
            source,
        })
}

/// A newer schema than this program's is left alone: the release that has it is rolling out.
async fn apply(connection: &mut PgConnection, migrations: &Migrator) -> Result<(), OpenError> {
    let lenient = Migrator {
        ignore_missing: true,
        table_name: migrations.table_name.clone(),
        migrations: migrations.migrations.clone(),
        ..Migrator::DEFAULT
    };
    match lenient.run_direct(None, connection, false).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMismatch(version)) => Err(OpenError::OtherSchema { version }),
        Err(source) => Err(OpenError::Migration(source)),
    }
}

async fn grant(connection: &mut PgConnection, schema: &Schema<'_>) -> Result<(), sqlx::Error> {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let role = quoted(schema.role);
    let mut statements = vec![
        format!("GRANT USAGE ON SCHEMA public TO {role}"),
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"),
        format!("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}"),
    ];
    let kept = [MESH_MIGRATIONS_TABLE, SERVICE_MIGRATIONS_TABLE];
    statements.extend(kept.map(|table| {
        format!(
            "REVOKE INSERT, UPDATE, DELETE ON {} FROM {role}",
            quoted(table)
        )
    }));
    statements.extend(
        schema
            .append_only
            .iter()
            .map(|table| format!("REVOKE UPDATE, DELETE ON {} FROM {role}", quoted(table))),
    );
    for statement in statements {
        sqlx::query(AssertSqlSafe(statement)) // Names are quoted.
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Refuses a schema that lacks a migration, or has one in another form.
pub(super) async fn require(pool: &PgPool, migrations: &Migrator) -> Result<(), OpenError> {
    for migrations in [&mesh_migrations(), migrations] {
        let applied = applied(pool, &migrations.table_name).await?;
        for migration in migrations.iter() {
            let found = applied
                .iter()
                .find(|(version, _)| *version == migration.version);
            match found {
                Some((_, checksum)) if *checksum == *migration.checksum => {}
                Some(_) => {
                    return Err(OpenError::OtherSchema {
                        version: migration.version,
                    });
                }
                None => {
                    return Err(OpenError::OlderSchema {
                        version: migration.version,
                        description: migration.description.to_string(),
                    });
                }
            }
        }
    }
    Ok(())
}

/// Versions and checksums of what was applied; nothing where nothing ever was.
async fn applied(pool: &PgPool, table: &str) -> Result<Vec<(i64, Vec<u8>)>, OpenError> {
    let there: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(table)
        .fetch_one(pool)
        .await
        .map_err(OpenError::Check)?;
    if !there {
        return Ok(Vec::new());
    }
    let statement = format!("SELECT version, checksum FROM {table} WHERE success");
    sqlx::query_as(AssertSqlSafe(statement)) // The name is a constant of this file or of sqlx.
        .fetch_all(pool)
        .await
        .map_err(OpenError::Check)
}

fn mesh_migrations() -> Migrator {
    Migrator {
        migrations: MESH_MIGRATIONS.migrations.clone(),
        table_name: Cow::Borrowed(MESH_MIGRATIONS_TABLE),
        ..Migrator::DEFAULT
    }
}
