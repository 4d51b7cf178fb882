//! Picks endpoints as calls do, again and again, without calling them.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use super::{
    balance::{Member, Pick, Set, Tried},
    clock::{Clock, millis},
    connect::Network,
    discovery::Target,
    endpoint::Endpoint,
    metrics::ClientMetrics,
    pool::Shared,
};
use crate::{Config, identities::Identities, live::Live};

/// How long a pick takes, on average, among so many endpoints that seem to be connected and to have answered before.
pub(crate) fn pick(endpoints: usize, picks: u32) -> Duration {
    let shared = shared();
    let members = (0..endpoints).map(|index| member(index, &shared)).collect();
    let set = Set::new(members, "");
    let config = &shared.live.whole().client.balance;
    let began = Instant::now();
    for _ in 0..picks {
        let tried = Tried::default();
        let picked = set.pick(shared.clock.now(), config, &tried, &mut rand::rng());
        assert!(
            matches!(black_box(picked), Pick::Endpoint(_)),
            "every endpoint can be used"
        );
    }
    began.elapsed() / picks.max(1)
}

fn shared() -> Arc<Shared> {
    let metrics = ClientMetrics::register(&prometheus::Registry::new())
        .expect("a new registry knows no other metrics");
    let live = Live::new(Config::default());
    Arc::new(Shared {
        live: live.clone(),
        clock: Clock::start(),
        connector: Arc::new(Network::new(Arc::new(Identities::off()), live)),
        metrics: metrics.of("measured"),
        changed: Notify::new(),
        lost: Arc::default(),
        tasks: TaskTracker::new(),
    })
}

fn member(index: usize, shared: &Arc<Shared>) -> Member {
    let address = format!("e{index}:1");
    let target = Target {
        address: Arc::from(address.as_str()),
        authority: address.parse().expect("a name and a port are an authority"),
        zone: Arc::from(""),
        weight: 1,
        tls: false,
        ids: Vec::new().into(),
    };
    let endpoint = Endpoint::new(index as u64, target, shared.clone(), 0);
    endpoint.pool.pretend(true);
    let latency = millis(1) + index as u64 % 1000;
    let decay = millis(shared.live.load().client.balance.decay_ms);
    endpoint.load.answered(latency, shared.clock.now(), decay);
    Member {
        endpoint: Arc::new(endpoint),
        weight: 1,
        zone: Arc::from(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pick_finds_an_endpoint() {
        pick(10, 100);
    }
}
