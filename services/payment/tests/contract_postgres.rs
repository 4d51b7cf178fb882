//! What the service has to do whatever database it is on, here on PostgreSQL; and what only PostgreSQL has to.

#![expect(
    clippy::unwrap_used,
    reason = "a scenario that cannot go on has failed"
)]

#[path = "contract/privileges.rs"]
mod privileges;
#[path = "contract/postgres.rs"]
mod storage;
#[path = "contract/suite/mod.rs"]
mod suite;
#[path = "contract/together.rs"]
mod together;
