//! The addresses of a name, A and AAAA, by the system's resolver: what a headless Service answers.

use std::{sync::Arc, time::Duration};

use super::{Discover, Failed, LookUp, Target};

pub(super) struct Dns {
    /// What its address is in place of, and what else all have in common.
    pub(super) named: Target,
    pub(super) interval: Duration,
}

impl Discover for Dns {
    fn look_up(&self) -> LookUp<'_> {
        Box::pin(async {
            let found = tokio::net::lookup_host(&*self.named.address)
                .await
                .map_err(|error| {
                    Failed::Broken(format!(
                        "\"{}\" is not resolved: {error}",
                        self.named.address
                    ))
                })?;
            let mut addresses: Vec<_> = found.collect();
            addresses.sort_unstable();
            addresses.dedup();
            let target = |address: std::net::SocketAddr| Target {
                address: Arc::from(address.to_string()),
                ..self.named.clone()
            };
            Ok(addresses.into_iter().map(target).collect())
        })
    }

    fn interval(&self) -> Option<Duration> {
        Some(self.interval)
    }
}
