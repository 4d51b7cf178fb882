//! Why a PostgreSQL database is not taken into service.

use std::{io, path::PathBuf};

use sqlx::migrate::MigrateError;

/// Why a database is not taken into service.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL says nothing that can be connected to.
    #[error("postgres url can not be read")]
    Url(#[source] sqlx::Error),
    /// The file with the password can not be read.
    #[error("password file \"{}\" can not be read", .path.display())]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Nobody answered for as long as was allowed, or the server refused.
    #[error("postgres at {address} can not be reached")]
    Connect {
        /// Host, port and database.
        address: String,
        /// What was said last.
        #[source]
        source: sqlx::Error,
    },
    /// A question about the server's settings or the schema failed.
    #[error("postgres can not be checked")]
    Check(#[source] sqlx::Error),
    /// A setting of the server that durability rests on.
    #[error(
        "postgres: {setting} is \"{found}\", but must be \"{wanted}\" so that acknowledged writes are on disk; \
         set durability = \"relaxed\" to accept less"
    )]
    Setting {
        /// `fsync`, `synchronous_commit`, `full_page_writes` or `server_encoding`.
        setting: &'static str,
        /// The value that is needed.
        wanted: &'static str,
        /// The value that the server reports.
        found: String,
    },
    /// A migration of this program has not been applied.
    #[error(
        "postgres: the schema lacks migration {version} ({description}); run the subcommand `migrate` first"
    )]
    OlderSchema {
        /// The migration that is missing.
        version: i64,
        /// What it is for.
        description: String,
    },
    /// A migration was applied that this program has in another form.
    #[error("postgres: migration {version} was applied in another form than this program has")]
    OtherSchema {
        /// The migration.
        version: i64,
    },
    /// A migration failed.
    #[error("postgres can not be migrated")]
    Migration(#[source] MigrateError),
    /// The rights of the service's role could not be set.
    #[error("postgres: rights can not be granted to role \"{role}\"")]
    Grant {
        /// The role that the service runs under.
        role: String,
        /// What the server said.
        #[source]
        source: sqlx::Error,
    },
}
