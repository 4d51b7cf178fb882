//! The addresses of a name, A and AAAA, by the system's resolver: what a headless Service answers.

use std::{sync::Arc, time::Duration};

use http::uri::Authority;

use super::{Discover, Failed, LookUp, Target};

pub(super) struct Dns {
    pub(super) authority: Authority,
    pub(super) interval: Duration,
}

impl Discover for Dns {
    fn look_up(&self) -> LookUp<'_> {
        Box::pin(async {
            let found = tokio::net::lookup_host(self.authority.as_str())
                .await
                .map_err(|error| {
                    Failed::Broken(format!("\"{}\" is not resolved: {error}", self.authority))
                })?;
            let mut addresses: Vec<_> = found.collect();
            addresses.sort_unstable();
            addresses.dedup();
            let target = |address: std::net::SocketAddr| Target {
                address: Arc::from(address.to_string()),
                authority: self.authority.clone(),
                zone: Arc::from(""),
                weight: 1,
            };
            Ok(addresses.into_iter().map(target).collect())
        })
    }

    fn interval(&self) -> Option<Duration> {
        Some(self.interval)
    }
}
