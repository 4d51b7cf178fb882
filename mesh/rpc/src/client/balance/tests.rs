use std::collections::HashMap;

use prometheus::Registry;
use rand::{SeedableRng as _, rngs::StdRng};

use super::*;
use crate::{
    Config,
    client::{
        clock::{Clock, millis},
        connect::Network,
        discovery::Target,
        metrics::ClientMetrics,
        pool::Shared,
    },
    identities::Identities,
    live::Live,
};

const SEED: u64 = 11;

/// Members that pretend to be connected, with their weights and zones.
pub(crate) fn members(places: &[(u32, &str)]) -> Vec<Member> {
    let metrics = ClientMetrics::register(&Registry::new()).unwrap();
    let live = Live::new(Config::default());
    let shared = Arc::new(Shared {
        live: live.clone(),
        clock: Clock::start(),
        connector: Arc::new(Network::new(Arc::new(Identities::off()), live)),
        metrics: metrics.of("test"),
        changed: tokio::sync::Notify::new(),
        lost: Arc::default(),
        tasks: tokio_util::task::TaskTracker::new(),
    });
    let member = |(index, (weight, zone)): (usize, &(u32, &str))| {
        let address = format!("e{index}:1");
        let target = Target {
            address: Arc::from(address.as_str()),
            authority: address.parse().unwrap(),
            zone: Arc::from(*zone),
            weight: *weight,
            tls: false,
            ids: Arc::default(),
        };
        let endpoint = Endpoint::new(index as u64, target, shared.clone(), 0);
        endpoint.pool.pretend(true);
        Member {
            endpoint: Arc::new(endpoint),
            weight: *weight,
            zone: Arc::from(*zone),
        }
    };
    places.iter().enumerate().map(member).collect()
}

/// How often each endpoint is picked when nothing is in flight.
fn picked(set: &Set, now: Nanos, tried: &Tried, picks: usize) -> HashMap<u64, usize> {
    let mut random = StdRng::seed_from_u64(SEED);
    let mut counts = HashMap::new();
    for _ in 0..picks {
        match set.pick(now, &BalanceConfig::default(), tried, &mut random) {
            Pick::Endpoint(endpoint) => *counts.entry(endpoint.id).or_default() += 1,
            Pick::Wait | Pick::Nothing => {}
        }
    }
    counts
}

#[tokio::test]
async fn equals_are_picked_equally_and_heavy_ones_more_often() {
    let set = Set::new(members(&[(1, ""); 4]), "");
    let counts = picked(&set, 1, &Tried::default(), 40_000);
    for id in 0..4 {
        assert!(
            (9_500..10_500).contains(&counts[&id]),
            "seed {SEED}: {counts:?}"
        );
    }
    let set = Set::new(members(&[(1, ""), (2, ""), (5, "")]), "");
    let counts = picked(&set, 1, &Tried::default(), 80_000);
    for (id, expected) in [(0, 10_000), (1, 20_000), (2, 50_000)] {
        let range = expected - 700..expected + 700;
        assert!(range.contains(&counts[&id]), "seed {SEED}: {counts:?}");
    }
}

#[tokio::test]
async fn the_cheaper_of_two_is_picked_and_the_dearest_never() {
    let members = members(&[(1, ""); 3]);
    for (member, ms) in members.iter().zip([1, 5, 50]) {
        member.endpoint.load.answered(millis(ms), 1, millis(10_000));
    }
    let set = Set::new(members, "");
    let counts = picked(&set, 1, &Tried::default(), 30_000);
    assert!(!counts.contains_key(&2), "{counts:?}");
    // Two of the three pairs hold the cheapest one.
    assert!(
        (19_000..21_000).contains(&counts[&0]),
        "seed {SEED}: {counts:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_used_or_was_tried_is_left_out_while_there_is_another() {
    let members = members(&[(1, ""); 3]);
    members[0].endpoint.pool.pretend(false);
    let tried = Tried::default();
    tried.add(1);
    let set = Set::new(members.clone(), "");
    let counts = picked(&set, 1, &tried, 1000);
    assert_eq!(counts, HashMap::from([(2, 1000)]));
    members[2].endpoint.pool.pretend(false);
    let counts = picked(&set, 1, &tried, 1000);
    assert_eq!(
        counts,
        HashMap::from([(1, 1000)]),
        "better again than never"
    );
    members[1].endpoint.pool.pretend(false);
    let mut random = StdRng::seed_from_u64(SEED);
    let pick = set.pick(1, &BalanceConfig::default(), &tried, &mut random);
    assert!(matches!(pick, Pick::Wait), "they are being connected");
    let pick = Set::default();
    let pick = pick.pick(1, &BalanceConfig::default(), &tried, &mut random);
    assert!(matches!(pick, Pick::Nothing));
}

#[tokio::test]
async fn one_usable_among_many_dead_is_found() {
    let members = members(&vec![(1, ""); 1000]);
    for member in &members[1..] {
        member.endpoint.pool.pretend(false);
    }
    let set = Set::new(members, "");
    let counts = picked(&set, 1, &Tried::default(), 50);
    assert_eq!(counts, HashMap::from([(0, 50)]));
}

#[tokio::test]
async fn the_own_zone_is_preferred_until_it_is_too_dear() {
    let members = members(&[(1, "north"), (1, "north"), (1, "south")]);
    let set = Set::new(members.clone(), "north");
    let counts = picked(&set, 1, &Tried::default(), 1000);
    assert!(!counts.contains_key(&2), "{counts:?}");
    for member in &members[..2] {
        member.endpoint.load.answered(millis(50), 1, millis(10_000));
    }
    members[2]
        .endpoint
        .load
        .answered(millis(10), 1, millis(10_000));
    let counts = picked(&set, 1, &Tried::default(), 1000);
    assert_eq!(counts, HashMap::from([(2, 1000)]));
}

#[tokio::test]
async fn who_is_new_starts_slowly() {
    let mut members = members(&[(1, ""); 2]);
    let Some(Member { endpoint, .. }) = members.pop() else {
        panic!("there are two")
    };
    let target = endpoint.pool.target().clone();
    let shared = endpoint.pool.shared().clone();
    let fresh = Endpoint::new(1, target, shared, millis(1000));
    fresh.pool.pretend(true);
    for endpoint in [&members[0].endpoint, &Arc::new(fresh)] {
        endpoint
            .load
            .answered(millis(10), millis(1000), millis(10_000));
        let cost = |ms| endpoint.cost(millis(ms), &BalanceConfig::default(), 1.0);
        let ratio = cost(1001)
            / members[0]
                .endpoint
                .cost(millis(1001), &BalanceConfig::default(), 1.0);
        let later = cost(6000)
            / members[0]
                .endpoint
                .cost(millis(6000), &BalanceConfig::default(), 1.0);
        let last = cost(11_001)
            / members[0]
                .endpoint
                .cost(millis(11_001), &BalanceConfig::default(), 1.0);
        let expected = if endpoint.id == 0 {
            [1.0, 1.0, 1.0]
        } else {
            [10.0, 2.0, 1.0]
        };
        for (ratio, expected) in [ratio, later, last].into_iter().zip(expected) {
            assert!((ratio - expected).abs() < 0.01, "{ratio} {expected}");
        }
    }
}

/// Prints what a pick costs; run it with `--release --no-capture` for the number. A time is not asserted:
/// that ten thousand need no look at all of them is.
#[tokio::test]
async fn a_pick_among_ten_thousand_costs_what_one_among_ten_does() {
    let mut random = rand::rng();
    for (count, weights) in [
        (10, [1, 1]),
        (10_000, [1, 1]),
        (10, [1, 3]),
        (10_000, [1, 3]),
    ] {
        let places: Vec<_> = (0..count).map(|index| (weights[index % 2], "")).collect();
        let set = Set::new(members(&places), "");
        let (config, tried, picks) = (BalanceConfig::default(), Tried::default(), 100_000);
        let began = std::time::Instant::now();
        let picked = (0..picks)
            .filter(|_| {
                let pick = set.pick(1, &config, &tried, &mut random);
                matches!(pick, Pick::Endpoint(_))
            })
            .count();
        println!(
            "{count} endpoints of weights {weights:?}: {} ns per pick",
            began.elapsed().as_nanos() / picks as u128
        );
        assert_eq!(picked, picks);
    }
}
