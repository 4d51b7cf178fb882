//! Layer: calls are delayed and aborted on purpose, where the configuration says so, to see what those who
//! make them do then.
//!
//! It stands below the overload control: what is injected looks like the handler's own doing. Off unless
//! configured: without a rule, and without leave for headers, it costs one comparison.
//!
//! Deliberately without faults of the transport (resets, half answers): a proxy makes those.

use std::{
    collections::BTreeMap,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, Request, Response};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service, ServiceExt as _};

use super::{metrics::ServerMetrics, pattern};
use crate::{
    contract::is_housekeeping,
    live::Live,
    metrics,
    stack::{Answer, Call, Stack},
    status::Origin,
    wire::{self, header},
};

/// The longest delay, in milliseconds.
const DELAY_MAX_MS: u64 = 60_000;
/// The name of what a header asks for, in errors and metrics.
const BY_HEADER: &str = "header";

/// Faults on purpose. Health and reflection have none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultsConfig {
    /// Whether callers may ask for a fault themselves, by the headers `mesh-fault-delay-ms` and
    /// `mesh-fault-abort` (the name of a gRPC code). Default: false.
    pub headers_allowed: bool,
    /// The rules, by a name that stands in errors and metrics; of those that fit, the first one by name
    /// that chance picks counts. Default: none.
    pub rules: BTreeMap<String, FaultRule>,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultRule {
    /// The methods that it hits: `/package.Service/Method`, or a beginning and `*`. Default: `*`.
    pub methods: Vec<String>,
    /// The callers that it hits, by the name of their principal, or a beginning and `*`. Default: `*`.
    pub callers: Vec<String>,
    /// How many of these calls, in percent. Default: 0.
    pub percent: f64,
    /// How long a call is held up before it is served, or aborted, in milliseconds. Default: 0.
    pub delay_ms: u64,
    /// The gRPC code that it ends with instead of being served, such as UNAVAILABLE. Default: empty, which
    /// serves it.
    pub abort: String,
}

impl Default for FaultRule {
    fn default() -> Self {
        Self {
            methods: vec!["*".to_owned()],
            callers: vec!["*".to_owned()],
            percent: 0.0,
            delay_ms: 0,
            abort: String::new(),
        }
    }
}

impl FaultsConfig {
    /// The first key below `server.faults`, with the reason, whose value cannot work.
    pub(crate) fn refusal(&self) -> Option<(String, String)> {
        self.rules.iter().find_map(|(name, rule)| {
            let (key, reason) = rule.refusal()?;
            Some((format!("rules.{name}.{key}"), reason.to_owned()))
        })
    }

    fn is_off(&self) -> bool {
        self.rules.is_empty() && !self.headers_allowed
    }

    /// What happens to a call. `chance` gives numbers from 0 to below 1, one for each rule that fits.
    fn plan(
        &self,
        path: &str,
        caller: &str,
        headers: &HeaderMap,
        mut chance: impl FnMut() -> f64,
    ) -> Option<Fault> {
        if self.headers_allowed
            && let Some(asked) = Fault::asked(headers)
        {
            return Some(asked);
        }
        let fits = |rule: &FaultRule| {
            pattern::any_matches(&rule.methods, path) && pattern::any_matches(&rule.callers, caller)
        };
        let (name, rule) = self
            .rules
            .iter()
            .find(|(_, rule)| fits(rule) && chance() * 100.0 < rule.percent)?;
        Some(Fault {
            rule: name.clone(),
            delay: Duration::from_millis(rule.delay_ms),
            abort: code_named(&rule.abort),
        })
    }
}

impl FaultRule {
    fn refusal(&self) -> Option<(&'static str, &'static str)> {
        let lists = [("methods", &self.methods), ("callers", &self.callers)];
        let unknown = !self.abort.is_empty() && code_named(&self.abort).is_none();
        lists
            .into_iter()
            .find_map(|(key, patterns)| Some((key, pattern::refusal(patterns)?)))
            .or_else(|| {
                (!(0.0..=100.0).contains(&self.percent))
                    .then_some(("percent", "must be between 0 and 100"))
            })
            .or_else(|| {
                (self.delay_ms > DELAY_MAX_MS).then_some(("delay_ms", "must not be over 60000"))
            })
            .or_else(|| unknown.then_some(("abort", "is no gRPC code, such as UNAVAILABLE")))
    }
}

/// What is done to one call.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    rule: String,
    delay: Duration,
    abort: Option<Code>,
}

impl Fault {
    /// What the headers ask for; what cannot be read asks for nothing.
    fn asked(headers: &HeaderMap) -> Option<Self> {
        let delay = wire::text(headers, &header::FAULT_DELAY).and_then(|text| text.parse().ok());
        let abort = wire::text(headers, &header::FAULT_ABORT).and_then(code_named);
        (delay.is_some() || abort.is_some()).then(|| Self {
            rule: BY_HEADER.to_owned(),
            delay: Duration::from_millis(delay.unwrap_or(0).min(DELAY_MAX_MS)),
            abort,
        })
    }
}

/// An error's code by gRPC's own name.
fn code_named(name: &str) -> Option<Code> {
    (1..=16)
        .map(Code::from_i32)
        .find(|code| metrics::name(*code) == name)
}

/// Injects faults.
pub(crate) fn layer<S>(
    live: Live,
    metrics: ServerMetrics,
) -> impl Layer<S, Service = Inject<S>> + Clone {
    let metrics = Arc::new(metrics); // Each call clones the stack.
    tower::layer::layer_fn(move |inner| Inject {
        inner,
        live: live.clone(),
        metrics: metrics.clone(),
    })
}

#[derive(Clone)]
pub(crate) struct Inject<S> {
    inner: S,
    live: Live,
    metrics: Arc<ServerMetrics>,
}

impl<S: Stack> Service<Request<Body>> for Inject<S> {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let config = self.live.load();
        let faults = &config.server.faults;
        let path = request.uri().path();
        if faults.is_off() || is_housekeeping(path) {
            return self.inner.call(request);
        }
        let caller = Call::of(&request).context.principal().name();
        let Some(fault) = faults.plan(path, caller, request.headers(), rand::random) else {
            return self.inner.call(request);
        };
        self.metrics.fault(&fault.rule);
        let progress = Call::of(&request).progress.clone();
        let inner = self.inner.clone();
        Box::pin(async move {
            sleep(fault.delay).await;
            match fault.abort {
                Some(code) => Err(Origin::of("fault", &fault.rule, &progress).injected(code)),
                None => inner.oneshot(request).await,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use rand::{Rng, SeedableRng, rngs::StdRng};
    use tokio::time::Instant;
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::{CallContext, Config, Principal, stack::handler};

    const READ: &str = "/mesh.test.v1.TestService/Read";

    fn config(rule: FaultRule) -> FaultsConfig {
        FaultsConfig {
            headers_allowed: false,
            rules: BTreeMap::from([("r".to_owned(), rule)]),
        }
    }

    async fn call(faults: FaultsConfig, asked: &[(&'static str, &str)]) -> Result<(), Status> {
        let mut config = Config::default();
        config.server.faults = faults;
        let metrics = ServerMetrics::register(&Registry::new()).unwrap();
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = READ.parse().unwrap();
        for (name, value) in asked {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let context = CallContext::root(Principal::anonymous());
        request.extensions_mut().insert(Call::tested(None, context));
        let service = layer(Live::new(config), metrics)
            .layer(handler(|_| async { Ok(Response::new(Body::empty())) }));
        service.oneshot(request).await.map(drop)
    }

    #[test]
    fn as_many_are_hit_as_the_percentage_says() {
        let faults = config(FaultRule {
            percent: 10.0,
            abort: "UNAVAILABLE".to_owned(),
            ..FaultRule::default()
        });
        let seed = 5;
        let mut random = StdRng::seed_from_u64(seed);
        let headers = HeaderMap::new();
        let hit = (0..10_000)
            .filter(|_| {
                faults
                    .plan(READ, "shop", &headers, || random.random())
                    .is_some()
            })
            .count();
        assert!((900..1_100).contains(&hit), "seed {seed}: {hit} of 10000");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_held_up_and_then_served() {
        let started = Instant::now();
        let rule = FaultRule {
            percent: 100.0,
            delay_ms: 70,
            ..FaultRule::default()
        };
        call(config(rule), &[]).await.unwrap();
        assert_eq!(started.elapsed().as_millis(), 70);
    }

    #[tokio::test(start_paused = true)]
    async fn an_aborted_call_says_who_has_done_it() {
        let rule = FaultRule {
            percent: 100.0,
            abort: "DATA_LOSS".to_owned(),
            ..FaultRule::default()
        };
        let status = call(config(rule.clone()), &[]).await.unwrap_err();
        assert_eq!(status.code(), Code::DataLoss);
        let info = status.get_error_details().error_info().cloned().unwrap();
        assert_eq!(info.reason, "FAULT_INJECTED");
        assert_eq!(info.metadata["policy"], "r");
        let elsewhere = FaultRule {
            methods: vec!["/mesh.test.v1.TestService/Put".to_owned()],
            ..rule
        };
        call(config(elsewhere), &[]).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_is_obeyed_only_where_that_is_allowed() {
        let asked = [
            (header::FAULT_DELAY.as_str(), "20"),
            (header::FAULT_ABORT.as_str(), "ABORTED"),
        ];
        call(FaultsConfig::default(), &asked).await.unwrap();
        let allowed = FaultsConfig {
            headers_allowed: true,
            ..FaultsConfig::default()
        };
        let started = Instant::now();
        let status = call(allowed.clone(), &asked).await.unwrap_err();
        assert_eq!(status.code(), Code::Aborted);
        assert_eq!(started.elapsed().as_millis(), 20);
        let unreadable = [(header::FAULT_ABORT.as_str(), "MAYBE")];
        call(allowed, &unreadable).await.unwrap();
    }

    #[test]
    fn a_rule_that_cannot_work_is_refused_by_its_key() {
        let fine = FaultRule::default();
        assert_eq!(config(fine.clone()).refusal(), None);
        for (wrong, key) in [
            (
                FaultRule {
                    percent: 101.0,
                    ..fine.clone()
                },
                "rules.r.percent",
            ),
            (
                FaultRule {
                    abort: "OK".to_owned(),
                    ..fine.clone()
                },
                "rules.r.abort",
            ),
            (
                FaultRule {
                    delay_ms: 60_001,
                    ..fine
                },
                "rules.r.delay_ms",
            ),
        ] {
            assert_eq!(config(wrong).refusal().unwrap().0, key);
        }
    }
}
