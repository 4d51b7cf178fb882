//! New payments: those that queued while the ones before them were being committed are written together, by one
//! statement that leaves out whose key was claimed before.
//!
//! A payment's rows are made by the task that asked for it; the lane only puts documents together.

use super::write::{self, Written};
use kernel::PaymentId;
use mesh_store::Postgres;
use mesh_store::group::{CarryOut, Group, Limits};
use serde_json::{Map, Value};
use sqlx::AssertSqlSafe;
use sqlx::types::Uuid;
use std::collections::HashSet;
use std::sync::Arc;

/// A new payment with the rows that it leaves behind, by table.
#[derive(Debug, Clone)]
pub(super) struct New {
    pub(super) id: PaymentId,
    pub(super) rows: Map<String, Value>,
}

/// What became of a new payment. An error may be that of a whole batch.
pub(super) type Outcome = Result<Written, Arc<sqlx::Error>>;

/// Starts the lanes that new payments take.
pub(super) fn lanes(postgres: &Postgres, limits: Limits) -> Group<New, Outcome> {
    let postgres = postgres.clone();
    let write_all: CarryOut<New, Outcome> = Arc::new(move |new| {
        let postgres = postgres.clone();
        Box::pin(async move { write_all(&postgres, new).await })
    });
    Group::start(limits, write_all)
}

/// Writes all of them, or those that can be; an outcome each, in their order.
async fn write_all(postgres: &Postgres, all: Vec<New>) -> Vec<Outcome> {
    let error = match write_together(postgres, &all).await {
        Ok(created) => return all.iter().map(|new| Ok(created.outcome(new))).collect(),
        Err(error) => error,
    };
    let Some(refused) = refused(&error) else {
        let error = Arc::new(error);
        return all.iter().map(|_| Err(error.clone())).collect();
    };
    // Somebody's order_ref is taken, or limit reached, and the server does not say whose.
    let mut outcomes = Vec::with_capacity(all.len());
    for new in &all {
        let written = match all.len() {
            1 => Ok(refused),
            _ => write_alone(postgres, new).await,
        };
        outcomes.push(written);
    }
    outcomes
}

/// What one of the payments was refused for; nothing where the error is that of all.
fn refused(error: &sqlx::Error) -> Option<Written> {
    if write::is_order_taken(error) {
        Some(Written::OrderTaken)
    } else {
        write::is_over_limit(error).then_some(Written::OverLimit)
    }
}

async fn write_alone(postgres: &Postgres, new: &New) -> Outcome {
    match write_together(postgres, std::slice::from_ref(new)).await {
        Ok(created) => Ok(created.outcome(new)),
        Err(error) => refused(&error).ok_or_else(|| Arc::new(error)),
    }
}

/// The payments that were created.
struct Created(HashSet<Uuid>);

impl Created {
    fn outcome(&self, new: &New) -> Written {
        if self.0.contains(&new.id.uuid()) {
            Written::Yes
        } else {
            Written::KeyTaken
        }
    }
}

async fn write_together(postgres: &Postgres, all: &[New]) -> Result<Created, sqlx::Error> {
    let document = document(all);
    let statement = write::statement(include_str!("create.sql"), &document);
    let mut connection = postgres.pool().acquire().await?;
    let committing = postgres.committing();
    let created: Vec<Uuid> = sqlx::query_scalar(AssertSqlSafe(statement))
        .bind(document)
        .fetch_all(&mut *connection)
        .await?;
    committing.has_committed(!created.is_empty());
    Ok(Created(created.into_iter().collect()))
}

/// The rows of all, by table; and how callers know each payment.
fn document(all: &[New]) -> Value {
    let mut tables: Map<String, Value> = Map::new();
    let mut references = Map::new();
    for new in all {
        references.insert(new.id.uuid().to_string(), new.id.to_string().into());
        for (table, rows) in &new.rows {
            let into = tables
                .entry(table)
                .or_insert_with(|| Value::Array(Vec::new()));
            if let (Value::Array(into), Value::Array(rows)) = (into, rows) {
                into.extend_from_slice(rows);
            }
        }
    }
    tables.insert("references".to_owned(), references.into());
    tables.into()
}
