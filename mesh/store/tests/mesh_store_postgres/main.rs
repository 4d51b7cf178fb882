//! The tables and the opening of `mesh_store` in PostgreSQL, on the server that `SHOP_POSTGRES` names. Each test
//! has a database of its own.

#![expect(
    clippy::unwrap_used,
    reason = "a scenario that cannot go on has failed"
)]

mod broken_off;
mod database;
mod dead_letters;
mod idempotency;
mod inbox;
mod outbox;
mod schema;
