//! What the client knows of its destinations at one moment, to be looked at: read-only, and not for
//! decisions.

use serde::Serialize;

use super::{
    clock::{Nanos, millis, whole},
    destination::Destination,
    endpoint::Endpoint,
};

/// A destination and its endpoints.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct DestinationSnapshot {
    /// The name in `mesh.destinations`.
    pub destination: String,
    /// Why the last look-up changed nothing, where it failed.
    pub discovery_trouble: Option<String>,
    /// Attempts in flight, streams included.
    pub in_flight: usize,
    /// How many retries and hedges the budget would pay for now.
    pub retries_left: u64,
    /// In no particular order.
    pub endpoints: Vec<EndpointSnapshot>,
}

/// One endpoint.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct EndpointSnapshot {
    /// `host:port`.
    pub address: String,
    /// Empty: not known.
    pub zone: String,
    /// Its share beside the others'.
    pub weight: u32,
    /// Whether calls go there.
    pub state: EndpointState,
    /// Attempts in flight there, streams included.
    pub in_flight: u32,
    /// Open HTTP/2 connections.
    pub connections: usize,
    /// The latency that the balancer reckons with, in microseconds; 0: not known.
    pub latency_us: u64,
    /// How long the ejection still lasts, in milliseconds; 0: it is not ejected.
    pub ejected_for_ms: u64,
    /// Why the last attempt to connect failed; nothing once one has succeeded.
    pub trouble: Option<String>,
}

/// Whether calls go to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    /// Not connected, because no call has wanted it.
    Idle,
    /// Being connected.
    Connecting,
    /// Connected: calls go there.
    Ready,
    /// Connected, and left out because calls failed there.
    Ejected,
    /// The last attempt to connect failed.
    Down,
}

impl EndpointState {
    pub(crate) const ALL: [Self; 5] = [
        Self::Idle,
        Self::Connecting,
        Self::Ready,
        Self::Ejected,
        Self::Down,
    ];

    /// As JSON and metrics have it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Ready => "ready",
            Self::Ejected => "ejected",
            Self::Down => "down",
        }
    }
}

impl Destination {
    pub(crate) fn snapshot(&self) -> DestinationSnapshot {
        let now = self.shared.clock.now();
        let decay = millis(self.shared.live.load().client.balance.decay_ms);
        let set = self.set();
        let endpoints = set.members().iter().map(|member| EndpointSnapshot {
            zone: member.zone.to_string(),
            weight: member.weight,
            ..member.endpoint.snapshot(now, decay)
        });
        DestinationSnapshot {
            destination: self.name.to_string(),
            discovery_trouble: self.discovery_trouble().map(|trouble| trouble.to_string()),
            in_flight: self.circuit.in_flight(),
            retries_left: self.budget.retries_left(now),
            endpoints: endpoints.collect(),
        }
    }
}

impl Endpoint {
    fn snapshot(&self, now: Nanos, decay: Nanos) -> EndpointSnapshot {
        let ejected_for = self.reputation.returned_at().saturating_sub(now);
        let state = match (self.pool.is_live(), ejected_for) {
            (true, 0) => EndpointState::Ready,
            (true, _) => EndpointState::Ejected,
            (false, _) if self.pool.is_dialing() => EndpointState::Connecting,
            (false, _) if self.pool.is_down() => EndpointState::Down,
            (false, _) => EndpointState::Idle,
        };
        EndpointSnapshot {
            address: self.address().to_string(),
            zone: String::new(),
            weight: 0,
            state,
            in_flight: self.load.in_flight(),
            connections: self.pool.connections(),
            latency_us: whole(self.load.latency(now, decay) / 1000.0),
            ejected_for_ms: ejected_for / millis(1),
            trouble: self.pool.trouble().map(|trouble| trouble.to_string()),
        }
    }
}
