//! The hosts, ports and weights that the SRV records of a name say (RFC 2782), and the addresses of those hosts.
//!
//! Behind the cargo feature `srv`, which is off unless asked for: the system's resolver looks up addresses only, and
//! who needs no more than those is spared another one. It asks whom `/etc/resolv.conf` names.
//!
//! Every look-up asks anew, like one for addresses; nothing is kept between two, so no TTL makes an answer last
//! longer. Only the records of the lowest priority value count. Deliberately without falling back on the others when
//! none of those hosts can be reached: that is known after the endpoints are, and says nothing for the next call.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use hickory_resolver::{
    TokioResolver,
    config::ResolverConfig,
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RData, rdata::SRV},
};

use super::{Discover, Failed, LookUp, Target};

/// How many hosts are resolved at a time; a name server's connection takes 32 questions, two of each host.
const HOSTS_AT_ONCE_MAX: usize = 8;

pub(super) struct Srv {
    /// Its address is the name of the records. What else it is, all endpoints are, each with a port in its authority.
    pub(super) named: Target,
    pub(super) interval: Duration,
    /// Whom to ask; `None`: whom the system asks.
    pub(super) servers: Option<ResolverConfig>,
}

impl Srv {
    async fn find(&self) -> Result<Vec<Target>, Failed> {
        let resolver = resolver(self.servers.clone()).await;
        let resolver = resolver.map_err(|error| self.broken("is not resolved", &error))?;
        let records = preferred(self.records(&resolver).await?);
        if !records.is_empty() && records.iter().all(|record| record.target.is_root()) {
            let what = "says that the service is decidedly not available (its target is \".\")";
            return Err(Failed::Broken(format!("\"{}\" {what}", self.named.address)));
        }
        // No port is no endpoint.
        let hosts = records
            .iter()
            .filter(|record| !record.target.is_root() && record.port != 0);
        let looked_up = hosts.map(|record| self.endpoints(&resolver, record));
        let looked_up: Vec<_> = looked_up.collect();
        let found = stream::iter(looked_up).buffer_unordered(HOSTS_AT_ONCE_MAX);
        let mut targets = found.try_concat().await?;
        // Each address once, with the largest weight that it has.
        targets.sort_unstable_by(|a, b| (&a.address, b.weight).cmp(&(&b.address, a.weight)));
        targets.dedup_by(|a, b| a.address == b.address);
        Ok(targets)
    }

    /// None: the name is there, and has none.
    async fn records(&self, resolver: &TokioResolver) -> Result<Vec<SRV>, Failed> {
        // A whole name, to which no search domain is added: of several names the resolver tells only the last one's failure.
        let mut name = Name::from_utf8(&*self.named.address)
            .map_err(|error| self.broken("is no name", &error))?;
        name.set_fqdn(true);
        let found = match resolver.srv_lookup(name).await {
            Ok(found) => found,
            Err(error) if error.is_nx_domain() => {
                return Err(self.broken("is not resolved", &"there is no such name"));
            }
            Err(error) if error.is_no_records_found() => return Ok(Vec::new()),
            Err(error) => return Err(self.broken("is not resolved", &error)),
        };
        let records = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(record) => Some(record.clone()),
                _ => None,
            });
        Ok(records.collect())
    }

    /// One for each address of the record's host. A host without any is left out: it may have gone a moment ago, and
    /// the others have not. One that cannot be asked for fails the whole look-up, so that it does not count as gone.
    async fn endpoints(
        &self,
        resolver: &TokioResolver,
        record: &SRV,
    ) -> Result<Vec<Target>, Failed> {
        let addresses = addresses(resolver, &record.target).await;
        let addresses = addresses.map_err(|error| {
            let what = format!("has the host \"{}\", which is not resolved", record.target);
            self.broken(&what, &error)
        })?;
        let authority = format!("{}:{}", self.named.authority, record.port);
        let target = Target {
            authority: authority.parse().expect("a name and a port are one"),
            // As RFC 2782 draws, a record of weight 0 has the chance of one of weight 1 beside the others.
            weight: u32::from(record.weight).max(1),
            ..self.named.clone()
        };
        let endpoint = |address: IpAddr| Target {
            address: Arc::from(SocketAddr::new(address, record.port).to_string()),
            ..target.clone()
        };
        Ok(addresses.into_iter().map(endpoint).collect())
    }

    fn broken(&self, what: &str, why: &dyn std::fmt::Display) -> Failed {
        Failed::Broken(format!("\"{}\" {what}: {why}", self.named.address))
    }
}

impl Discover for Srv {
    fn look_up(&self) -> LookUp<'_> {
        Box::pin(self.find())
    }

    fn interval(&self) -> Option<Duration> {
        Some(self.interval)
    }
}

/// A resolver for one look-up: with the configuration as it is now, and no answers of before.
async fn resolver(servers: Option<ResolverConfig>) -> Result<TokioResolver, NetError> {
    let build = move || match servers {
        Some(servers) => {
            let provider = TokioRuntimeProvider::default();
            TokioResolver::builder_with_config(servers, provider).build()
        }
        None => TokioResolver::builder_tokio()?.build(),
    };
    // It reads files: `/etc/resolv.conf` and `/etc/hosts`.
    let built = tokio::task::spawn_blocking(build).await;
    built.map_err(io::Error::from)?
}

/// Those of the lowest priority value.
fn preferred(mut records: Vec<SRV>) -> Vec<SRV> {
    let lowest = records.iter().map(|record| record.priority).min();
    records.retain(|record| Some(record.priority) == lowest);
    records
}

/// A and AAAA. What one of the two brings is enough; none at all is an error unless both say that there is none.
async fn addresses(resolver: &TokioResolver, host: &Name) -> Result<Vec<IpAddr>, NetError> {
    let (v4, v6) = tokio::join!(
        resolver.ipv4_lookup(host.clone()),
        resolver.ipv6_lookup(host.clone())
    );
    let mut addresses = Vec::new();
    let mut failed = None;
    for found in [v4, v6] {
        match found {
            Ok(found) => {
                addresses.extend(found.answers().iter().filter_map(|a| a.data.ip_addr()));
            }
            Err(error) if error.is_no_records_found() => {}
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if addresses.is_empty() => Err(error),
        _ => Ok(addresses),
    }
}

#[cfg(test)]
mod tests;
