//! The client stack's configuration: every limit, with its unit and default.

use serde::{Deserialize, Serialize};

/// Configuration of the client stack.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientConfig {
    /// How long one attempt to connect may take, and how long calls wait for an endpoint after the last one was lost, in
    /// milliseconds. The call's deadline covers both. Default: 2000.
    pub connect_timeout_ms: u64,
    /// How many calls to one destination may wait for a connection, and how many to one connection for
    /// a stream of it. Default: 1024.
    pub waiting_max: usize,
    /// How many attempts to one destination may be in flight, streams included; more are UNAVAILABLE at
    /// once. Default: 4096.
    pub concurrent_max: usize,
    /// The zone that this process runs in; endpoints of the same zone are preferred. Default: empty,
    /// which prefers none.
    pub zone: String,
    /// The connections to each endpoint.
    pub pool: PoolConfig,
    /// Which endpoint a call goes to.
    pub balance: BalanceConfig,
    /// Which endpoints get no calls for a while.
    pub outlier: OutlierConfig,
    /// How the endpoints of a destination are found.
    pub discovery: DiscoveryConfig,
    /// Repeating calls that failed.
    pub retry: RetryConfig,
    /// Sending slow reads a second time.
    pub hedge: HedgeConfig,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 2_000,
            waiting_max: 1024,
            concurrent_max: 4096,
            zone: String::new(),
            pool: PoolConfig::default(),
            balance: BalanceConfig::default(),
            outlier: OutlierConfig::default(),
            discovery: DiscoveryConfig::default(),
            retry: RetryConfig::default(),
            hedge: HedgeConfig::default(),
        }
    }
}

/// The HTTP/2 connections to one endpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    /// How many connections one endpoint may have. Default: 4.
    pub connections_max: usize,
    /// From how many calls in flight on a connection another one is opened, and from three quarters of the streams
    /// that the peer allows. Default: 100.
    pub calls_per_connection: usize,
    /// How long a connection may be without calls before it is closed, in milliseconds. Default: 300000.
    pub idle_ms: u64,
    /// The mean pause after the first failed attempt to connect, in milliseconds; it doubles from then
    /// on. Default: 20.
    pub backoff_ms: u64,
    /// The longest mean pause between two attempts to connect, in milliseconds. With twice this a call waits for the next
    /// attempt, as long as that is no more than `retry.backoff_max_ms`; then it fails at once. Default: 250.
    pub backoff_max_ms: u64,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            connections_max: 4,
            calls_per_connection: 100,
            idle_ms: 300_000,
            backoff_ms: 20,
            backoff_max_ms: 250,
        }
    }
}

/// Which endpoint a call goes to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BalanceConfig {
    /// How fast a measured latency is forgotten: after this time it counts 1/e, in milliseconds.
    /// Default: 10000.
    pub decay_ms: u64,
    /// How long a new endpoint, or one that returns after an ejection, takes to get its full share, in
    /// milliseconds; 0: none. Default: 10000.
    pub slow_start_ms: u64,
    /// How many times cheaper an endpoint of another zone has to be before a call leaves this zone, in
    /// percent. Default: 200.
    pub zone_spill_percent: u32,
}

impl Default for BalanceConfig {
    fn default() -> Self {
        Self {
            decay_ms: 10_000,
            slow_start_ms: 10_000,
            zone_spill_percent: 200,
        }
    }
}

/// Which endpoints get no calls for a while (gRFC A50, and Envoy's consecutive failures).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutlierConfig {
    /// How many failures in a row eject an endpoint; 0: no number does. Default: 5.
    pub consecutive_failures: u32,
    /// How often success rates are compared, in milliseconds. Default: 10000.
    pub interval_ms: u64,
    /// How long the first ejection lasts, in milliseconds; each further one lasts as much longer.
    /// Default: 30000.
    pub ejection_ms: u64,
    /// The longest ejection, in milliseconds. Default: 300000.
    pub ejection_max_ms: u64,
    /// How many of a destination's endpoints may be ejected, in percent; one always may where there are
    /// several. Default: 50.
    pub ejected_max_percent: u32,
    /// When fewer endpoints than this are left, in percent, no ejection counts any more: better all of
    /// them than an overload of the rest. Default: 30.
    pub panic_percent: u32,
    /// Success rate: how many thousandths of a standard deviation below the mean eject; 0: none do.
    /// Default: 1900.
    pub success_stdev_thousandths: u32,
    /// Success rate: how many endpoints with enough calls it takes. Default: 5.
    pub success_hosts_min: u32,
    /// Success rate: how many calls in an interval are enough. Default: 100.
    pub success_calls_min: u32,
    /// Failure percentage: from how many percent of failed calls an endpoint is ejected; 0: none.
    /// Default: 85.
    pub failure_percent: u32,
    /// Failure percentage: how many endpoints with enough calls it takes. Default: 5.
    pub failure_hosts_min: u32,
    /// Failure percentage: how many calls in an interval are enough. Default: 50.
    pub failure_calls_min: u32,
}

impl Default for OutlierConfig {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            interval_ms: 10_000,
            ejection_ms: 30_000,
            ejection_max_ms: 300_000,
            ejected_max_percent: 50,
            panic_percent: 30,
            success_stdev_thousandths: 1_900,
            success_hosts_min: 5,
            success_calls_min: 100,
            failure_percent: 85,
            failure_hosts_min: 5,
            failure_calls_min: 50,
        }
    }
}

/// How the endpoints of a destination are found.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiscoveryConfig {
    /// How often the file of a `file:///` destination is read again, in milliseconds. Default: 1000.
    pub file_interval_ms: u64,
    /// How often the name of a `dns://` or `srv://` destination is resolved again, in milliseconds; sooner after
    /// a lost connection. Default: 5000.
    pub dns_interval_ms: u64,
    /// How long one look-up may take, in milliseconds. Default: 5000.
    pub timeout_ms: u64,
    /// How many endpoints a destination may have; a look-up that finds more is refused as failed.
    /// Default: 10000.
    pub endpoints_max: usize,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self {
            file_interval_ms: 1_000,
            dns_interval_ms: 5_000,
            timeout_ms: 5_000,
            endpoints_max: 10_000,
        }
    }
}

/// When a call is tried again. Always within its deadline.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// How often a request is tried in all; 1: never again, except where it provably reached no handler.
    /// Default: 4.
    pub attempts_max: u32,
    /// The mean pause before the second attempt, in milliseconds; it doubles from then on. Default: 25.
    pub backoff_ms: u64,
    /// The longest mean pause, in milliseconds. Default: 500.
    pub backoff_max_ms: u64,
    /// The longest request that is kept for another attempt, in bytes. Default: 65536.
    pub replay_bytes_max: usize,
    /// The budget of a destination: how many retries and hedges its calls earn, in percent of their
    /// number. Default: 20.
    pub budget_percent: u32,
    /// The budget: how many retries and hedges per second are free. Default: 10.
    pub budget_min_per_s: u32,
    /// The budget: how long what was earned can be spent, in milliseconds. Default: 10000.
    pub budget_ttl_ms: u64,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts_max: 4,
            backoff_ms: 25,
            backoff_max_ms: 500,
            replay_bytes_max: 64 << 10,
            budget_percent: 20,
            budget_min_per_s: 10,
            budget_ttl_ms: 10_000,
        }
    }
}

/// When a read that is slow is sent a second time, to another endpoint. Only methods whose contract says
/// NO_SIDE_EFFECTS, only unary ones, only within the budget of the retries, and only where a second
/// endpoint is connected.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HedgeConfig {
    /// Whether it is done at all: it costs about `100 - percentile` percent more reads, and nothing where
    /// a destination has one endpoint. Default: true.
    pub enabled: bool,
    /// After which percentile of the method's own latency. Default: 99.0.
    pub percentile: f64,
    /// Never sooner than this, in milliseconds: below it a second attempt costs more than it gains.
    /// Default: 5.
    pub delay_min_ms: u64,
    /// How many calls of a method have to be measured first. Default: 200.
    pub calls_min: u32,
}

impl Default for HedgeConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            percentile: 99.0,
            delay_min_ms: 5,
            calls_min: 200,
        }
    }
}

impl ClientConfig {
    /// The keys whose value must not be 0.
    pub(crate) fn limits(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("client.connect_timeout_ms", self.connect_timeout_ms),
            ("client.waiting_max", self.waiting_max as u64),
            ("client.concurrent_max", self.concurrent_max as u64),
            (
                "client.pool.connections_max",
                self.pool.connections_max as u64,
            ),
            (
                "client.pool.calls_per_connection",
                self.pool.calls_per_connection as u64,
            ),
            ("client.pool.idle_ms", self.pool.idle_ms),
            ("client.balance.decay_ms", self.balance.decay_ms),
            ("client.outlier.interval_ms", self.outlier.interval_ms),
            ("client.outlier.ejection_ms", self.outlier.ejection_ms),
            (
                "client.discovery.file_interval_ms",
                self.discovery.file_interval_ms,
            ),
            (
                "client.discovery.dns_interval_ms",
                self.discovery.dns_interval_ms,
            ),
            ("client.discovery.timeout_ms", self.discovery.timeout_ms),
            (
                "client.discovery.endpoints_max",
                self.discovery.endpoints_max as u64,
            ),
            ("client.retry.attempts_max", self.retry.attempts_max.into()),
            ("client.retry.budget_ttl_ms", self.retry.budget_ttl_ms),
        ]
        .into_iter()
    }

    /// The first key, with the reason, whose value is out of its range.
    pub(crate) fn out_of_range(&self) -> Option<(&'static str, &'static str)> {
        let percents = [
            (
                "client.outlier.ejected_max_percent",
                self.outlier.ejected_max_percent,
            ),
            ("client.outlier.panic_percent", self.outlier.panic_percent),
            (
                "client.outlier.failure_percent",
                self.outlier.failure_percent,
            ),
        ];
        if let Some((key, _)) = percents.into_iter().find(|(_, percent)| *percent > 100) {
            return Some((key, "must not be over 100"));
        }
        if self.balance.zone_spill_percent < 100 {
            let reason = "must be at least 100, which knows no preference";
            return Some(("client.balance.zone_spill_percent", reason));
        }
        if !(50.0..100.0).contains(&self.hedge.percentile) {
            return Some((
                "client.hedge.percentile",
                "must be at least 50 and below 100",
            ));
        }
        None
    }
}
