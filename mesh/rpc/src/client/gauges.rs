//! What the client's decisions rest on, as gauges that are read when somebody looks: states of endpoints, the budgets of
//! retries, attempts in flight. Named by gRFC A79 where it has a name (`grpc.target`), the mesh's own otherwise.
//!
//! Deliberately without anything on the way of a call.

use prometheus::{
    IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{Clients, snapshot::EndpointState};
use crate::metrics::TARGET;

struct Gauges {
    clients: Clients,
    endpoints: IntGaugeVec,
    budget: IntGaugeVec,
    in_flight: IntGaugeVec,
}

/// Shows the gauges of whatever is in `clients` by then.
pub(crate) fn register(clients: &Clients, registry: &Registry) -> prometheus::Result<()> {
    let gauge =
        |name: &str, help: &str, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
    registry.register(Box::new(Gauges {
        clients: clients.clone(),
        endpoints: gauge(
            "mesh_lb_endpoints",
            "Endpoints by state: idle, connecting, ready, ejected, down.",
            &[TARGET, "state"],
        )?,
        budget: gauge(
            "mesh_client_retry_budget_left",
            "Retries and hedges that the budget would pay for now.",
            &[TARGET],
        )?,
        in_flight: gauge(
            "mesh_client_attempts_in_flight",
            "Attempts in flight; the circuit opens at mesh.client.concurrent_max (gRFC A32).",
            &[TARGET],
        )?,
    }))
}

impl Collector for Gauges {
    fn desc(&self) -> Vec<&Desc> {
        let all = [&self.endpoints, &self.budget, &self.in_flight];
        all.into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for snapshot in self.clients.lock().snapshots() {
            let target = snapshot.destination.as_str();
            for state in EndpointState::ALL {
                let held = snapshot.endpoints.iter();
                let count = held.filter(|endpoint| endpoint.state == state).count();
                let gauge = self.endpoints.with_label_values(&[target, state.as_str()]);
                gauge.set(count as i64);
            }
            let left = i64::try_from(snapshot.retries_left).unwrap_or(i64::MAX);
            self.budget.with_label_values(&[target]).set(left);
            let in_flight = self.in_flight.with_label_values(&[target]);
            in_flight.set(snapshot.in_flight as i64);
        }
        let all = [&self.endpoints, &self.budget, &self.in_flight];
        all.into_iter().flat_map(Collector::collect).collect()
    }
}
