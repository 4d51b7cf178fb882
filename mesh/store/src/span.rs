//! What is done in a database as spans for collectors, by OpenTelemetry's conventions for databases, below the call or
//! the event that it is for: one for each transaction, from waiting for the connection to the commit, and one for each
//! read outside of one (`reads.rs`).
//!
//! Deliberately without statements and parameters, which hold what customers have said; and without anything where
//! nobody exports: then no span is opened.

use tracing::{Span, debug_span, field::Empty};

/// Ends the span when it is dropped.
#[derive(Debug)]
pub(crate) struct TransactionSpan(Span);

impl TransactionSpan {
    /// `system`: a value of `db.system.name`.
    pub(crate) fn begin(system: &'static str, database: &str) -> Self {
        // The parent is the span that it is opened in, for it has no ids of its own.
        Self(debug_span!(
            target: "mesh::span",
            "transaction",
            otel.kind = "client",
            otel.status_code = Empty,
            db.system.name = system,
            db.namespace = database,
            db.operation.name = "transaction",
            error.type = Empty,
        ))
    }

    /// The commit has failed.
    pub(crate) fn failed(&self, error: &sqlx::Error) {
        failed(&self.0, error);
    }
}

/// The same for reads.
#[derive(Debug)]
pub(crate) struct ReadSpan(Span);

impl ReadSpan {
    /// `system`: a value of `db.system.name`. Of what is read for nobody, there is no span.
    pub(crate) fn begin(system: &'static str, database: &str) -> Self {
        if Span::current().is_disabled() {
            return Self(Span::none());
        }
        Self(debug_span!(
            target: "mesh::span",
            "read",
            otel.kind = "client",
            otel.status_code = Empty,
            db.system.name = system,
            db.namespace = database,
            db.operation.name = "SELECT",
            error.type = Empty,
        ))
    }

    /// What is done inside of it.
    pub(crate) fn inner(&self) -> Span {
        self.0.clone()
    }

    /// A statement has failed.
    pub(crate) fn failed(&self, error: &sqlx::Error) {
        failed(&self.0, error);
    }
}

fn failed(span: &Span, error: &sqlx::Error) {
    let code = match error {
        sqlx::Error::Database(error) => error.code().map(std::borrow::Cow::into_owned),
        _ => None,
    };
    let code = code.as_deref().unwrap_or("_OTHER");
    span.record("otel.status_code", "ERROR")
        .record("error.type", code);
}
