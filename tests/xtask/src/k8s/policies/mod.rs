//! The properties that manifests must have, by subject.

mod availability;
mod configuration;
mod identity;
mod images;
mod monitoring;
mod network;
mod pods;
mod probes;
mod production;
mod release;

use super::policy::Policy;

/// All of them.
pub(super) fn all() -> Vec<&'static Policy> {
    [
        &pods::POLICIES[..],
        &images::POLICIES,
        &probes::POLICIES,
        &configuration::POLICIES,
        &availability::POLICIES,
        &release::POLICIES,
        &network::POLICIES,
        &identity::POLICIES,
        &production::POLICIES,
        &monitoring::POLICIES,
    ]
    .into_iter()
    .flatten()
    .collect()
}
