//! The services that have a database of their own: what `up` starts and the house rules look into.
//!
//! `cargo xtask new-service` adds to the list; nothing else does.

/// Their names: of the crate, the program, the database and the destination in the mesh.
pub const NAMES: &[&str] = &["product", "payment"];
