//! Another configuration while calls run: checked as a whole, taken as a whole.
//!
//! Calls in flight go on as they began; the next one finds the new values. What was built from a value
//! once (windows of HTTP/2, budgets, the accept loop) keeps it until the process starts again, and is
//! named, so that nobody believes otherwise.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{Config, Error, Mesh};

/// The keys below `mesh` that are only read when something is built, by their beginnings. All others are
/// read by each call.
const BUILT: [&str; 17] = [
    "header_bytes_max",
    "keepalive_interval_ms",
    "keepalive_timeout_ms",
    "stream_window_bytes",
    "connection_window_bytes",
    "client.concurrent_max",
    "client.zone",
    "client.outlier.",
    "client.discovery.",
    "client.retry.budget_",
    "server.connections_max",
    "server.streams_max",
    "server.handshake_timeout_ms",
    "server.connection_age_",
    "server.connection_idle_max_ms",
    "server.overload.limit_initial",
    "identity.", // The files that it names are followed, not where they are.
];

/// What another configuration changed. Keys are whole: `mesh.server.overload.enabled`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// The keys whose new value counts from the next call on.
    pub changed: Vec<String>,
    /// The keys whose new value counts only when the process starts again; some of them for new
    /// connections of clients sooner.
    pub after_restart: Vec<String>,
}

impl Mesh {
    /// Takes another configuration, or refuses it as a whole and keeps the one it has.
    ///
    /// Refused is what [`Mesh::start`] would refuse, a configuration without a destination that was
    /// [required](Mesh::require), and one with destinations that speak TLS while the process runs without an identity:
    /// its mode counts only after a restart, and until then every call there would fail.
    pub fn reload(&self, config: Config) -> Result<Reloaded, Error> {
        config.validate()?;
        let reason = "speaks TLS, and mesh.identity.mode stays off until the process starts again";
        config.validate_destinations(self.identities().mode, reason)?;
        // One after the other.
        let mut clients = self.inner.clients.lock();
        if let Some(missing) = clients.missing_in(&config) {
            return Err(Error::Unconfigured(missing.to_owned()));
        }
        let old = self.inner.live.replace(config);
        let reloaded = Reloaded::between(&old, &self.config());
        clients.follow(&old, &self.inner);
        Ok(reloaded)
    }
}

impl Reloaded {
    fn between(old: &Config, new: &Config) -> Self {
        let (old, new) = (flat(old), flat(new));
        let keys = old
            .keys()
            .chain(new.keys().filter(|key| !old.contains_key(*key)));
        let differing = keys.filter(|key| old.get(*key) != new.get(*key));
        let is_built = |key: &&String| BUILT.iter().any(|beginning| key.starts_with(beginning));
        let (after_restart, changed): (Vec<_>, Vec<_>) = differing.partition(is_built);
        let whole =
            |keys: Vec<&String>| keys.into_iter().map(|key| format!("mesh.{key}")).collect();
        Self {
            changed: whole(changed),
            after_restart: whole(after_restart),
        }
    }
}

/// Every value by its whole key. A list is one value.
fn flat(config: &Config) -> BTreeMap<String, Value> {
    fn collect(key: String, value: Value, flat: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(table) => {
                for (name, value) in table {
                    let key = if key.is_empty() {
                        name
                    } else {
                        format!("{key}.{name}")
                    };
                    collect(key, value, flat);
                }
            }
            value => drop(flat.insert(key, value)),
        }
    }
    let mut values = BTreeMap::new();
    let config =
        serde_json::to_value(config).expect("a configuration is plain data with text keys");
    collect(String::new(), config, &mut values);
    values
}
