//! Why a database did not open, and whether a failed statement may be tried again.

use std::{io, path::PathBuf};

use sqlx::{
    error::{DatabaseError, ErrorKind},
    migrate::MigrateError,
    postgres::PgDatabaseError,
};

/// Why a database file could not be opened for service.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder of the file is missing and could not be created.
    #[error("folder \"{}\" can not be created", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The file exists and is something else.
    #[error("\"{}\" is not a SQLite database", .path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// The file or its folder does not let this process write.
    #[error("database \"{}\" is not writable", .path.display())]
    NotWritable {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: sqlx::Error,
    },
    /// Anything else that SQLite refuses.
    #[error("database \"{}\" can not be opened", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: sqlx::Error,
    },
    /// A setting that durability or integrity rests on did not take hold.
    #[error(
        "database \"{}\": {setting} is \"{found}\", but must be \"{wanted}\" so that acknowledged writes are on disk; \
         set durability = \"relaxed\" to accept less", .path.display()
    )]
    Setting {
        /// The file.
        path: PathBuf,
        /// The pragma: `journal_mode`, `synchronous` or `foreign_keys`.
        setting: &'static str,
        /// The value that is needed.
        wanted: &'static str,
        /// The value that the connection reports.
        found: String,
    },
    /// A newer version of the program has written to this database.
    #[error(
        "database \"{}\" has schema version {found} of a newer program; this one knows up to {known}", .path.display()
    )]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// The version that was applied to it.
        found: i64,
        /// The newest version that this program has.
        known: i64,
    },
    /// A migration failed, or one that was applied has been changed since.
    #[error("database \"{}\" can not be migrated", .path.display())]
    Migration {
        /// The file.
        path: PathBuf,
        /// Which migration and why.
        #[source]
        source: MigrateError,
    },
}

/// Whether the same statement or transaction may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same would fail again.
    Never,
    /// It may have been committed: only if repeating it has no second effect.
    IfIdempotent,
    /// Nothing was done.
    Always,
}

/// What an error says about trying again.
pub fn retry(error: &sqlx::Error) -> Retry {
    match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::BeginFailed => {
            Retry::Always
        }
        // A connection that ends while it is being set up is told as a breach of the protocol, or of TLS.
        sqlx::Error::Io(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::WorkerCrashed => Retry::IfIdempotent,
        sqlx::Error::Database(database) if let Some(postgres) = postgres(&**database) => postgres,
        _ => match primary_code(error) {
            Some(SQLITE_BUSY | SQLITE_LOCKED) => Retry::Always,
            Some(SQLITE_INTERRUPT | SQLITE_IOERR | SQLITE_FULL) => Retry::IfIdempotent,
            _ => Retry::Never,
        },
    }
}

/// What an error of PostgreSQL says about trying again; nothing about an error of another database.
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn postgres(error: &dyn DatabaseError) -> Option<Retry> {
    let code = error.try_downcast_ref::<PgDatabaseError>()?.code();
    Some(match code {
        // Serialization, deadlock, lock or statement timeout, left idle, starting up: rolled back, or never begun.
        "40001" | "40P01" | "55P03" | "57014" | "25P03" | "57P03" => Retry::Always,
        // The server went away, or its disk failed, perhaps after the commit.
        "57P01" | "57P02" | "58030" => Retry::IfIdempotent,
        _ if code.starts_with("08") => Retry::IfIdempotent,
        _ if code.starts_with("53") => Retry::Always, // No connection, memory or disk is left.
        _ => Retry::Never,
    })
}

/// Whether a row with the same key was there already.
pub fn is_unique_violation(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.kind() == ErrorKind::UniqueViolation)
}

// https://www.sqlite.org/rescode.html
const SQLITE_BUSY: i32 = 5;
const SQLITE_LOCKED: i32 = 6;
const SQLITE_READONLY: i32 = 8;
const SQLITE_INTERRUPT: i32 = 9;
const SQLITE_IOERR: i32 = 10;
const SQLITE_FULL: i32 = 13;
const SQLITE_CANTOPEN: i32 = 14;
const SQLITE_NOTADB: i32 = 26;

/// SQLite's result code without its extension.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let extended: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

impl OpenError {
    /// Says what an error while opening means to the operator.
    pub(crate) fn of(path: PathBuf, source: sqlx::Error) -> OpenError {
        match primary_code(&source) {
            Some(SQLITE_NOTADB) => OpenError::NotADatabase { path },
            Some(SQLITE_READONLY | SQLITE_CANTOPEN) => OpenError::NotWritable { path, source },
            _ => OpenError::Open { path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_breaks_while_it_is_set_up_may_be_tried_again() {
        let said = "unexpected response from SSLRequest: 0x00".to_owned();
        assert_eq!(retry(&sqlx::Error::Protocol(said)), Retry::IfIdempotent);
        assert_eq!(retry(&sqlx::Error::PoolClosed), Retry::Always);
        assert_eq!(retry(&sqlx::Error::RowNotFound), Retry::Never);
    }
}
