//! When a destination is looked up and what comes of it, in paused time.

use std::{
    future::{pending, ready},
    sync::Mutex,
};

use tokio::time::Instant;

use super::*;

/// Finds what it is told to find; `None`: it comes to no end.
struct Fake<F> {
    find: F,
    interval: Option<Duration>,
}

impl<F> Discover for Fake<F>
where
    F: Fn() -> Option<Result<Vec<Target>, Failed>> + Send + Sync + 'static,
{
    fn look_up(&self) -> LookUp<'_> {
        match (self.find)() {
            Some(found) => Box::pin(ready(found)),
            None => Box::pin(pending()),
        }
    }

    fn interval(&self) -> Option<Duration> {
        self.interval
    }
}

fn targets(count: usize) -> Vec<Target> {
    let endpoint = |index| format!("http://e{index}:1");
    let listed: Vec<_> = (0..count).map(endpoint).collect();
    source::parse_file(&listed.join("\n")).unwrap()
}

/// What was published and when, in milliseconds from the start: how many endpoints, or why none.
type Published = Vec<(u128, Result<usize, String>)>;

/// Follows until so much was published, or the source says that it never changes.
async fn publish(
    count: usize,
    interval_ms: Option<u64>,
    config: &DiscoveryConfig,
    lost: Arc<Notify>,
    find: impl Fn() -> Option<Result<Vec<Target>, Failed>> + Send + Sync + 'static,
) -> Published {
    let discover = Fake {
        find,
        interval: interval_ms.map(Duration::from_millis),
    };
    let (started, published) = (Instant::now(), Mutex::new(Vec::new()));
    let publish = |found: Result<Vec<Target>, Failed>| {
        let mut published = published.lock().unwrap();
        let found = found.map(|targets| targets.len());
        let found = found.map_err(|failed| failed.to_string());
        published.push((started.elapsed().as_millis(), found));
        published.len() < count
    };
    follow(Box::new(discover), config.clone(), lost, publish).await;
    published.into_inner().unwrap()
}

/// The same with the defaults and one endpoint at each look-up: when.
async fn times(count: usize, interval_ms: Option<u64>, lost: Arc<Notify>) -> Vec<u128> {
    let find = || Some(Ok(targets(1)));
    let config = DiscoveryConfig::default();
    let published = publish(count, interval_ms, &config, lost, find).await;
    let at = |(at, found)| {
        assert_eq!(found, Ok(1));
        at
    };
    published.into_iter().map(at).collect()
}

/// What comes of a look-up that finds this, at most two endpoints being allowed.
async fn outcome(find: fn() -> Result<Vec<Target>, Failed>) -> Result<usize, String> {
    let config = DiscoveryConfig {
        endpoints_max: 2,
        ..DiscoveryConfig::default()
    };
    let published = publish(
        1,
        Some(5_000),
        &config,
        Arc::default(),
        move || Some(find()),
    )
    .await;
    let [(0, outcome)] = &published[..] else {
        panic!("one outcome at once: {published:?}")
    };
    outcome.clone()
}

#[tokio::test(start_paused = true)]
async fn a_source_is_asked_again_after_its_interval() {
    let asked = times(3, Some(5_000), Arc::default()).await;
    assert_eq!(asked, [0, 5_000, 10_000]);
}

#[tokio::test(start_paused = true)]
async fn a_source_without_an_interval_is_asked_once() {
    let lost = Arc::new(Notify::new());
    lost.notify_one();
    assert_eq!(times(3, None, lost).await, [0]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_brings_the_next_look_up_forward_but_not_before_a_pause() {
    let lost = Arc::new(Notify::new());
    let started = Instant::now();
    let lose = async {
        for at_ms in [300, 400, 2_500] {
            tokio::time::sleep_until(started + Duration::from_millis(at_ms)).await;
            lost.notify_one();
        }
    };
    let (asked, ()) = tokio::join!(times(4, Some(5_000), lost.clone()), lose);
    assert_eq!(asked, [0, PAUSE_MIN.as_millis(), 2_500, 7_500]);
}

#[tokio::test(start_paused = true)]
async fn an_interval_below_the_pause_is_kept() {
    let lost = Arc::new(Notify::new());
    lost.notify_one();
    assert_eq!(times(3, Some(10), lost).await, [0, 10, 20]);
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_takes_too_long_is_given_up() {
    let config = DiscoveryConfig {
        timeout_ms: 700,
        ..DiscoveryConfig::default()
    };
    let published = publish(2, Some(5_000), &config, Arc::default(), || None).await;
    let slow = Err(Failed::Slow.to_string());
    assert_eq!(published, [(700, slow.clone()), (700 + 5_000 + 700, slow)]);
}

#[tokio::test(start_paused = true)]
async fn as_many_endpoints_as_allowed_are_taken_and_more_are_refused() {
    assert_eq!(outcome(|| Ok(targets(2))).await, Ok(2));
    let refused = Err(Failed::TooMany(3).to_string());
    assert_eq!(outcome(|| Ok(targets(3))).await, refused);
}

#[tokio::test(start_paused = true)]
async fn nothing_found_is_empty_and_a_failure_is_told_as_it_is() {
    let empty = Err(Failed::Empty.to_string());
    assert_eq!(outcome(|| Ok(Vec::new())).await, empty);
    let broken = outcome(|| Err(Failed::Broken("no server".into()))).await;
    assert_eq!(broken, Err("no server".into()));
}
