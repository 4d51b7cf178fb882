//! The Shop harness and the scenarios that run over REST and real gRPC.

pub mod canaries;
pub mod chance;
pub mod chinook;
pub mod customers;
pub mod events;
pub mod faults;
pub mod ground;
pub mod invariants;
pub mod orders;
pub mod power_cut;
pub mod process;
pub mod rest;
pub mod roll;
pub mod shop;

use std::future::Future;
use std::time::Duration;

/// Longer than anything that should happen takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until a condition holds, looking at it again and again; fails the test when it never does.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let poll = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let happened = tokio::time::timeout(PATIENCE, poll).await;
    assert!(happened.is_ok(), "not within {PATIENCE:?}: {what}");
}
