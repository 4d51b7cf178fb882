//! Layer: no caller makes more calls than the rules of the configuration allow.
//!
//! The generic cell rate algorithm as virtual scheduling (ATM Forum, "Traffic Management Specification"
//! 4.1, 1999; "Rate Limiting, Cells, and GCRA", Brandur Leach 2015): of each caller one time is kept, at
//! which it has used up what it was allowed. It needs no timer, and a rule that changes while calls run
//! goes on from where each caller is.
//!
//! A refusal is RESOURCE_EXHAUSTED with the exact time until the next call in RetryInfo and
//! `grpc-retry-pushback-ms`. Deliberately without counting across replicas: each allows its own rate.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use serde::{Deserialize, Serialize};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::{metrics::ServerMetrics, pattern};
use crate::{
    client::clock::{Clock, Nanos, whole},
    contract::is_housekeeping,
    live::Live,
    stack::{Answer, Call, Progress, Stack},
    status,
};

/// The table of callers is cut into so many parts, each with a lock of its own.
const SHARDS: usize = 16;
/// The highest rate: a call each nanosecond.
const PER_S_MAX: f64 = 1e9;

/// Limits of how often methods are called. Health and reflection have none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimitsConfig {
    /// How many callers are remembered at a time, all rules together; beyond, the one that has used least
    /// is forgotten. Default: 65536.
    pub callers_max: usize,
    /// The rules, by a name that stands in errors and metrics. A call has to be allowed by each rule that
    /// fits it. Default: none.
    pub rules: BTreeMap<String, RateLimitRule>,
}

impl Default for RateLimitsConfig {
    fn default() -> Self {
        Self {
            callers_max: 65_536,
            rules: BTreeMap::new(),
        }
    }
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimitRule {
    /// The methods that it counts, together: `/package.Service/Method`, or a beginning and `*`.
    /// Default: `*`.
    pub methods: Vec<String>,
    /// The callers that it counts, by the name of their principal, or a beginning and `*`. Default: `*`.
    pub callers: Vec<String>,
    /// Whether all these callers share the rate; otherwise each has it for itself. Default: false.
    pub shared: bool,
    /// How many calls per second. Has to be given.
    pub per_s: f64,
    /// How many calls may come at once. Default: 1.
    pub burst: u32,
}

impl Default for RateLimitRule {
    fn default() -> Self {
        Self {
            methods: vec!["*".to_owned()],
            callers: vec!["*".to_owned()],
            shared: false,
            per_s: 0.0,
            burst: 1,
        }
    }
}

impl RateLimitsConfig {
    /// The first key below `server.rate_limits`, with the reason, whose value cannot work.
    pub(crate) fn refusal(&self) -> Option<(String, String)> {
        if self.callers_max == 0 {
            return Some(("callers_max".to_owned(), "must not be 0".to_owned()));
        }
        self.rules.iter().find_map(|(name, rule)| {
            let (key, reason) = rule.refusal()?;
            Some((format!("rules.{name}.{key}"), reason.to_owned()))
        })
    }
}

impl RateLimitRule {
    fn refusal(&self) -> Option<(&'static str, &'static str)> {
        let rate = self.per_s > 0.0 && self.per_s <= PER_S_MAX;
        let lists = [("methods", &self.methods), ("callers", &self.callers)];
        lists
            .into_iter()
            .find_map(|(key, patterns)| Some((key, pattern::refusal(patterns)?)))
            .or_else(|| (!rate).then_some(("per_s", "must be above 0 and at most 1000000000")))
            .or_else(|| (self.burst == 0).then_some(("burst", "must not be 0")))
    }

    /// The time between two calls, and how far the calls may run ahead of it.
    fn pace(&self) -> (Nanos, Nanos) {
        let increment = whole(1e9 / self.per_s).max(1);
        let ahead = increment.saturating_mul(u64::from(self.burst) - 1);
        (increment, ahead)
    }
}

/// Refuses calls that come too often.
pub(crate) fn layer<S>(
    live: Live,
    metrics: ServerMetrics,
) -> impl Layer<S, Service = RateLimit<S>> + Clone {
    let limits = Arc::new(Limits {
        live,
        metrics,
        clock: Clock::start(),
        hasher: RandomState::new(),
        used: Used::default(),
    });
    tower::layer::layer_fn(move |inner| RateLimit {
        inner,
        limits: limits.clone(),
    })
}

#[derive(Clone)]
pub(crate) struct RateLimit<S> {
    inner: S,
    limits: Arc<Limits>,
}

impl<S: Stack> Service<Request<Body>> for RateLimit<S> {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        match self.limits.check(&request) {
            Ok(()) => self.inner.call(request),
            Err(refused) => Box::pin(std::future::ready(Err(refused))),
        }
    }
}

struct Limits {
    live: Live,
    metrics: ServerMetrics,
    clock: Clock,
    hasher: RandomState,
    used: Used,
}

impl Limits {
    fn check(&self, request: &Request<Body>) -> Result<(), Status> {
        let config = self.live.load();
        let config = &config.server.rate_limits;
        let path = request.uri().path();
        if config.rules.is_empty() || is_housekeeping(path) {
            return Ok(());
        }
        let call = Call::of(request);
        let caller = call.context.principal().name();
        let fits = |rule: &RateLimitRule| {
            pattern::any_matches(&rule.methods, path) && pattern::any_matches(&rule.callers, caller)
        };
        let now = self.clock.now();
        let mut taken = Vec::new();
        for (name, rule) in config.rules.iter().filter(|(_, rule)| fits(rule)) {
            let key = self
                .hasher
                .hash_one((name, (!rule.shared).then_some(caller)));
            let (increment, ahead) = rule.pace();
            match self
                .used
                .take(key, now, increment, ahead, config.callers_max)
            {
                Ok(()) => taken.push((key, increment)),
                Err(pause) => {
                    // A call that is not made counts for no rule.
                    for (key, increment) in taken {
                        self.used.give_back(key, increment);
                    }
                    self.metrics.rate_limited(name);
                    return Err(refusal(name, pause, &call.progress));
                }
            }
        }
        Ok(())
    }
}

fn refusal(rule: &str, pause: Nanos, progress: &Progress) -> Status {
    status::refused(status::Refusal {
        progress,
        layer: "rate_limit",
        policy: rule,
        reason: "RATE_LIMITED",
        message: format!("calls come more often than rate limit \"{rule}\" allows"),
        pause: Duration::from_nanos(pause),
    })
}

/// When each caller has used up what it was allowed, by a hash of rule and name.
#[derive(Debug, Default)]
struct Used {
    shards: [Mutex<HashMap<u64, Nanos>>; SHARDS],
}

impl Used {
    /// Counts a call, or says after how many nanoseconds it may come again.
    fn take(
        &self,
        key: u64,
        now: Nanos,
        increment: Nanos,
        ahead: Nanos,
        callers_max: usize,
    ) -> Result<(), Nanos> {
        let mut used = self.shard(key);
        // No further than this rule can put it: the one before it may have been narrower.
        let furthest = now.saturating_add(ahead).saturating_add(increment);
        let mut until = now;
        if let Some(used) = used.get_mut(&key) {
            *used = (*used).min(furthest);
            until = until.max(*used);
        }
        let early = (until - now).saturating_sub(ahead);
        if early > 0 {
            return Err(early);
        }
        if !used.contains_key(&key) && used.len() >= callers_max.div_ceil(SHARDS) {
            make_room(&mut used, now);
        }
        used.insert(key, until.saturating_add(increment));
        Ok(())
    }

    fn give_back(&self, key: u64, increment: Nanos) {
        if let Some(until) = self.shard(key).get_mut(&key) {
            *until = until.saturating_sub(increment);
        }
    }

    fn shard(&self, key: u64) -> std::sync::MutexGuard<'_, HashMap<u64, Nanos>> {
        let index = usize::try_from(key % SHARDS as u64).unwrap_or(0);
        // Times are whole whatever has panicked.
        self.shards[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets those who are as good as new; if there is none, whoever will be next.
fn make_room(used: &mut HashMap<u64, Nanos>, now: Nanos) {
    let before = used.len();
    used.retain(|_, until| *until > now);
    if used.len() < before {
        return;
    }
    let least = used.iter().min_by_key(|(_, until)| **until);
    if let Some(key) = least.map(|(key, _)| *key) {
        used.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use tonic::Code;
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::{
        CallContext, Config, Principal,
        client::clock::{float, millis},
        wire::header,
    };

    const READ: &str = "/mesh.test.v1.TestService/Read";
    const PUT: &str = "/mesh.test.v1.TestService/Put";

    fn rule(per_s: f64, burst: u32) -> RateLimitRule {
        RateLimitRule {
            per_s,
            burst,
            ..RateLimitRule::default()
        }
    }

    fn limits(rules: &[(&str, RateLimitRule)]) -> Limits {
        let mut config = Config::default();
        let named = |(name, rule): &(&str, RateLimitRule)| ((*name).to_owned(), rule.clone());
        config.server.rate_limits.rules = rules.iter().map(named).collect();
        Limits {
            live: Live::new(config),
            metrics: ServerMetrics::register(&Registry::new()).unwrap(),
            clock: Clock::start(),
            hasher: RandomState::new(),
            used: Used::default(),
        }
    }

    fn request(path: &str, caller: &str) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = path.parse().unwrap();
        let context = CallContext::root(Principal::new(caller, [""; 0]));
        request.extensions_mut().insert(Call::tested(None, context));
        request
    }

    #[test]
    fn a_burst_is_let_through_and_then_the_rate() {
        let used = Used::default();
        let (increment, ahead) = rule(100.0, 5).pace();
        let (mut now, mut passed) = (1, 0);
        let take = |now| used.take(7, now, increment, ahead, 10);
        while take(now).is_ok() {
            passed += 1;
        }
        assert_eq!(passed, 5);
        assert_eq!(take(now), Err(increment), "says exactly when");
        let began = now;
        for _ in 0..1_000 {
            now += millis(1);
            passed += u32::from(take(now).is_ok());
        }
        let rate = f64::from(passed - 5) / float(now - began) * 1e9;
        assert!((99.0..=101.0).contains(&rate), "{rate}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_caller_uses_up_its_own_rate_and_nobody_elses() {
        let limits = limits(&[("reads", rule(1.0, 2))]);
        for _ in 0..2 {
            limits.check(&request(READ, "greedy")).unwrap();
        }
        let refused = limits.check(&request(READ, "greedy")).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        let details = refused.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(info.reason, "RATE_LIMITED");
        assert_eq!(info.metadata["layer"], "rate_limit");
        assert_eq!(info.metadata["policy"], "reads");
        let pause = details.retry_info().unwrap().retry_delay;
        assert_eq!(pause, Some(Duration::from_secs(1)));
        let pushback = refused
            .metadata()
            .get(header::RETRY_PUSHBACK.as_str())
            .unwrap();
        assert_eq!(pushback, "1000");
        limits.check(&request(READ, "modest")).unwrap();
        tokio::time::advance(Duration::from_millis(1_001)).await;
        limits.check(&request(READ, "greedy")).unwrap();
        limits.check(&request(READ, "greedy")).unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a_rule_counts_what_it_names_and_a_shared_one_everybody_together() {
        let puts = RateLimitRule {
            methods: vec![PUT.to_owned()],
            callers: vec!["batch-*".to_owned()],
            shared: true,
            ..rule(1.0, 1)
        };
        let limits = limits(&[("puts", puts)]);
        limits.check(&request(PUT, "batch-1")).unwrap();
        limits.check(&request(PUT, "batch-2")).unwrap_err();
        limits.check(&request(PUT, "shop")).unwrap();
        limits.check(&request(READ, "batch-2")).unwrap();
        let health = "/grpc.health.v1.Health/Check";
        limits.check(&request(health, "batch-2")).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_one_rule_refuses_counts_for_no_other() {
        let narrow = RateLimitRule {
            methods: vec![PUT.to_owned()],
            ..rule(1.0, 1)
        };
        // In the order of their names.
        let limits = limits(&[("a-all", rule(1.0, 3)), ("b-puts", narrow)]);
        limits.check(&request(PUT, "shop")).unwrap();
        for _ in 0..10 {
            limits.check(&request(PUT, "shop")).unwrap_err();
        }
        limits.check(&request(READ, "shop")).unwrap();
        limits.check(&request(READ, "shop")).unwrap();
        limits.check(&request(READ, "shop")).unwrap_err();
    }

    #[test]
    fn the_table_of_callers_is_bounded_and_forgets_who_has_used_least() {
        let used = Used::default();
        let callers_max = 4 * SHARDS;
        let key = |caller: u64| caller * SHARDS as u64; // All in one part.
        for _ in 0..100 {
            used.take(key(0), 1, 1_000, millis(1), callers_max).unwrap();
        }
        for caller in 1..1_000 {
            used.take(key(caller), 1, 1_000, millis(1), callers_max)
                .unwrap();
            assert!(used.shard(0).len() <= 4);
        }
        assert!(used.shard(0).contains_key(&key(0)), "it has used most");
    }

    #[test]
    fn a_rule_that_cannot_work_is_refused_by_its_key() {
        for (wrong, key) in [
            (rule(0.0, 1), "rules.r.per_s"),
            (rule(f64::NAN, 1), "rules.r.per_s"),
            (rule(1.0, 0), "rules.r.burst"),
            (
                RateLimitRule {
                    methods: Vec::new(),
                    ..rule(1.0, 1)
                },
                "rules.r.methods",
            ),
        ] {
            let config = RateLimitsConfig {
                rules: BTreeMap::from([("r".to_owned(), wrong)]),
                ..RateLimitsConfig::default()
            };
            assert_eq!(config.refusal().unwrap().0, key);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rule_that_was_loosened_holds_from_then_on() {
        let limits = limits(&[("reads", rule(0.001, 1))]);
        limits.check(&request(READ, "caller")).unwrap();
        limits.check(&request(READ, "caller")).unwrap_err();
        let mut config = Config::default();
        let looser = [("reads".to_owned(), rule(100.0, 1))];
        config.server.rate_limits.rules = looser.into();
        limits.live.replace(config);
        limits.check(&request(READ, "caller")).unwrap_err();
        tokio::time::advance(Duration::from_millis(11)).await;
        limits.check(&request(READ, "caller")).unwrap();
    }
}
