//! The destinations that were ever called, and the client of each.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Client, DestinationSnapshot, Versions, destination::Destination};
use crate::{Config, Inner};

/// Shared by the mesh, which opens them, and by the gauges, which look at them. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Clients(Arc<Mutex<Opened>>);

impl Clients {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Opened> {
        // A map of finished clients is whole even if a thread panicked while it held the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was opened so far.
#[derive(Default)]
pub(crate) struct Opened {
    clients: HashMap<String, One>,
    /// Those that the process cannot do without.
    required: BTreeSet<String>,
}

/// A destination and its client, made at its first use.
#[derive(Clone)]
struct One {
    client: Client,
    destination: Arc<Destination>,
    versions: Versions,
}

impl Opened {
    /// The client of a destination.
    pub(crate) fn client(&mut self, name: &str, mesh: &Inner) -> Client {
        if let Some(opened) = self.clients.get(name) {
            return opened.client.clone();
        }
        let opened = self.open(name, mesh);
        self.split(mesh);
        opened.client
    }

    fn open(&mut self, name: &str, mesh: &Inner) -> One {
        if let Some(opened) = self.clients.get(name) {
            return opened.clone();
        }
        let (live, contract) = (&mesh.live, &mesh.contract);
        let versions = Versions::default();
        let (metrics, identities) = (&mesh.attempt_metrics, mesh.identities.clone());
        let destination = Destination::configured(name, live, contract, metrics, identities);
        let client = Client::new(
            destination.clone(),
            versions.clone(),
            live,
            contract,
            mesh.client_metrics.of(name),
            mesh.traffic.clone(),
        );
        let opened = One {
            client,
            destination,
            versions,
        };
        self.clients.insert(name.to_owned(), opened.clone());
        opened
    }

    /// Shares the calls of the destinations between their versions as the configuration has it now.
    fn split(&mut self, mesh: &Inner) {
        let config = mesh.live.whole();
        let mut names: Vec<_> = self.clients.keys().cloned().collect();
        while let Some(name) = names.pop() {
            let mut versions = Vec::new();
            for (version, weight) in config.splits.get(&name).into_iter().flatten() {
                if !self.clients.contains_key(version) {
                    names.push(version.clone());
                }
                versions.push((*weight, self.open(version, mesh).destination));
            }
            self.open(&name, mesh).versions.replace(versions);
        }
    }

    /// After the configuration was replaced: takes endpoints from where they are now, and splits anew.
    pub(crate) fn follow(&mut self, old: &Config, mesh: &Inner) {
        let new = mesh.live.whole();
        for (name, opened) in &self.clients {
            if old.destinations.get(name) != new.destinations.get(name) {
                opened.destination.reconfigure(&new);
            }
        }
        self.split(mesh);
    }

    /// From now on every configuration has to have these.
    pub(crate) fn require(&mut self, names: &[&str]) {
        let names = names.iter().map(|name| (*name).to_owned());
        self.required.extend(names);
    }

    /// One that is required and that the configuration has not.
    pub(crate) fn missing_in(&self, config: &Config) -> Option<&str> {
        let mut required = self.required.iter().map(String::as_str);
        required.find(|name| !config.knows(name))
    }

    /// What is known of each destination at the moment, by name.
    pub(crate) fn snapshots(&self) -> Vec<DestinationSnapshot> {
        let opened = self.clients.values();
        let mut snapshots: Vec<_> = opened.map(|one| one.destination.snapshot()).collect();
        snapshots.sort_unstable_by(|a, b| a.destination.cmp(&b.destination));
        snapshots
    }
}
