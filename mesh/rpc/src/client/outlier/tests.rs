use prometheus::Registry;

use super::*;
use crate::client::{balance::testing::members, metrics::ClientMetrics};

const INTERVAL: Nanos = millis(10_000);

fn watched(count: usize, config: OutlierConfig) -> (Set, Outliers) {
    let metrics = ClientMetrics::register(&Registry::new()).unwrap();
    let set = Set::new(members(&vec![(1, ""); count]), "");
    (set, Outliers::new(config, metrics.of("test"), 1))
}

/// Records calls of each endpoint within the first interval, and one after it.
fn interval(set: &Set, outliers: &Outliers, failed_of_100: &[u32]) {
    for (member, failed) in set.members().iter().zip(failed_of_100) {
        for call in 0..100 {
            // Late: so that none is ejected for failures in a row.
            let outcome = if call < *failed {
                Outcome::Late
            } else {
                Outcome::Success
            };
            outliers.record(set, &member.endpoint, outcome, 2);
        }
    }
    let first = &set.members()[0].endpoint;
    outliers.record(set, first, Outcome::Success, INTERVAL + 1);
}

fn ejected(set: &Set, now: Nanos) -> Vec<u64> {
    let members = set.members().iter();
    members
        .filter(|member| member.endpoint.reputation.is_ejected(now))
        .map(|member| member.endpoint.id)
        .collect()
}

#[tokio::test]
async fn the_one_far_below_the_mean_is_ejected() {
    let (set, outliers) = watched(6, OutlierConfig::default());
    interval(&set, &outliers, &[0, 1, 0, 2, 40, 0]);
    assert_eq!(ejected(&set, INTERVAL + 2), [4]);
    let (set, outliers) = watched(4, OutlierConfig::default());
    interval(&set, &outliers, &[0, 1, 0, 40]);
    assert!(ejected(&set, INTERVAL + 2).is_empty(), "too few to compare");
}

#[tokio::test]
async fn those_where_almost_everything_fails_are_ejected() {
    let config = OutlierConfig {
        success_stdev_thousandths: 0,
        ..OutlierConfig::default()
    };
    let (set, outliers) = watched(5, config.clone());
    interval(&set, &outliers, &[0, 84, 85, 0, 100]);
    assert_eq!(ejected(&set, INTERVAL + 2), [2, 4]);
    let (set, outliers) = watched(5, config);
    interval(&set, &outliers, &[100; 5]);
    assert_eq!(ejected(&set, INTERVAL + 2).len(), 2, "at most half");
}

#[tokio::test]
async fn failures_in_a_row_eject_and_a_success_between_does_not() {
    let (set, outliers) = watched(3, OutlierConfig::default());
    let endpoint = &set.members()[1].endpoint;
    for outcome in [Outcome::Failure; 4] {
        outliers.record(&set, endpoint, outcome, 2);
    }
    outliers.record(&set, endpoint, Outcome::Success, 2);
    for outcome in [Outcome::Failure; 4] {
        outliers.record(&set, endpoint, outcome, 2);
    }
    assert!(ejected(&set, 3).is_empty());
    outliers.record(&set, endpoint, Outcome::Failure, 2);
    assert_eq!(ejected(&set, 3), [1]);
}

#[tokio::test]
async fn the_last_one_is_not_ejected_and_looked_at_only_after_as_many_failures_again() {
    let registry = Registry::new();
    let metrics = ClientMetrics::register(&registry).unwrap();
    let set = Set::new(members(&[(1, "")]), "");
    let outliers = Outliers::new(OutlierConfig::default(), metrics.of("test"), 1);
    for outcome in [Outcome::Failure; 14] {
        outliers.record(&set, &set.members()[0].endpoint, outcome, 2);
    }
    assert!(ejected(&set, 3).is_empty());
    let text = prometheus::TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap();
    let looks = text
        .lines()
        .find(|line| line.contains("unenforced_total{"))
        .unwrap();
    assert!(looks.ends_with(" 2"), "{looks}");
}

#[tokio::test]
async fn each_ejection_lasts_longer_and_good_times_are_remembered() {
    let (set, outliers) = watched(3, OutlierConfig::default());
    let endpoint = &set.members()[1].endpoint;
    let mut now = 2;
    for times in 1..=12 {
        for outcome in [Outcome::Failure; 5] {
            outliers.record(&set, endpoint, outcome, now);
        }
        let lasts = endpoint.reputation.returned_at() - now;
        // Ten seconds of interval take one back when they fall between two ejections.
        assert!(lasts <= millis(30_000 * times), "{lasts}");
        assert!(lasts <= millis(300_000), "{lasts}");
        assert!(lasts >= millis(30_000), "{lasts}");
        now = endpoint.reputation.returned_at();
        assert!(!endpoint.reputation.is_ejected(now), "its time is over");
    }
    let other = &set.members()[0].endpoint;
    for _ in 0..20 {
        now += INTERVAL;
        outliers.record(&set, other, Outcome::Success, now);
    }
    for outcome in [Outcome::Failure; 5] {
        outliers.record(&set, endpoint, outcome, now);
    }
    assert_eq!(endpoint.reputation.returned_at() - now, millis(30_000));
}

#[tokio::test]
async fn below_the_panic_floor_all_are_used() {
    let config = OutlierConfig {
        ejected_max_percent: 100,
        panic_percent: 50,
        ..OutlierConfig::default()
    };
    let (set, outliers) = watched(4, config);
    let fail = |index: usize| {
        for outcome in [Outcome::Failure; 5] {
            outliers.record(&set, &set.members()[index].endpoint, outcome, 2);
        }
    };
    fail(0);
    fail(1);
    assert_eq!(ejected(&set, 3), [0, 1]);
    fail(2);
    assert!(ejected(&set, 3).is_empty(), "one of four would be left");
}

#[tokio::test]
async fn an_only_endpoint_is_never_ejected() {
    let (set, outliers) = watched(1, OutlierConfig::default());
    for outcome in [Outcome::Failure; 50] {
        outliers.record(&set, &set.members()[0].endpoint, outcome, 2);
    }
    assert!(ejected(&set, 3).is_empty());
}

#[tokio::test]
async fn what_was_under_way_at_an_ejection_is_not_counted_after_it() {
    let (set, outliers) = watched(3, OutlierConfig::default());
    let endpoint = &set.members()[1].endpoint;
    for outcome in [Outcome::Failure; 20] {
        outliers.record(&set, endpoint, outcome, 2);
    }
    let now = endpoint.reputation.returned_at();
    outliers.record(&set, endpoint, Outcome::Failure, now);
    assert!(!endpoint.reputation.is_ejected(now + 1), "one in a row");
}
