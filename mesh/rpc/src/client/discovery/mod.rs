//! Who serves a destination: one trait, and a task that follows it.
//!
//! An empty or failed look-up changes nothing: the last good endpoints stay, and the log and a metric
//! say so. (An outage of the name service must not become one of the service.)
//!
//! SRV records only with the cargo feature `srv`: ports of a headless Service are known, and a resolver of our own
//! weighs more than everything else here. Deliberately without inotify: a mounted ConfigMap is a symbolic link that
//! changes, and reading a small file once a second costs nothing.

mod dns;
mod file;
mod source;
#[cfg(feature = "srv")]
mod srv;
#[cfg(test)]
mod tests;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

pub(crate) use source::{Source, Target, parse_destination};

use super::config::DiscoveryConfig;

/// How soon after a look-up another one may be asked for.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Why a look-up brought nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error("the look-up found no endpoint")]
    Empty,
    #[error("the look-up found {0} endpoints, which are too many")]
    TooMany(usize),
    #[error("the look-up took too long")]
    Slow,
    #[error("{0}")]
    Broken(String),
}

pub(crate) type LookUp<'a> = Pin<Box<dyn Future<Output = Result<Vec<Target>, Failed>> + Send + 'a>>;

/// A way to find the endpoints of a destination.
pub(crate) trait Discover: Send + Sync + 'static {
    /// All endpoints there are now.
    fn look_up(&self) -> LookUp<'_>;

    /// How long until they are asked for again; `None`: they never change.
    fn interval(&self) -> Option<Duration>;
}

/// What a configured source is in action.
pub(crate) fn of(source: Source, config: &DiscoveryConfig) -> Box<dyn Discover> {
    match source {
        Source::List(targets) => Box::new(List(targets)),
        Source::Dns(named) => Box::new(dns::Dns {
            named,
            interval: Duration::from_millis(config.dns_interval_ms),
        }),
        #[cfg(feature = "srv")]
        Source::Srv(named) => Box::new(srv::Srv {
            named,
            interval: Duration::from_millis(config.dns_interval_ms),
            servers: None,
        }),
        Source::File(path) => Box::new(file::File {
            path,
            interval: Duration::from_millis(config.file_interval_ms),
        }),
    }
}

/// Reads the file of endpoints that a destination names, where it names one. The error is the end of a sentence.
pub(crate) async fn read_destination(text: &str) -> Result<(), String> {
    let Ok(Source::File(path)) = parse_destination(text) else {
        return Ok(());
    };
    let read = of(Source::File(path), &DiscoveryConfig::default());
    let endpoints = read.look_up().await;
    endpoints
        .map(drop)
        .map_err(|failed| format!("cannot be used: {failed}"))
}

/// Endpoints that stand in the configuration.
struct List(Vec<Target>);

impl Discover for List {
    fn look_up(&self) -> LookUp<'_> {
        Box::pin(std::future::ready(Ok(self.0.clone())))
    }

    fn interval(&self) -> Option<Duration> {
        None
    }
}

/// Follows the endpoints until `publish` says that nobody wants them any more. `lost` asks for a
/// look-up before its time.
pub(crate) async fn follow(
    discover: Box<dyn Discover>,
    config: DiscoveryConfig,
    lost: Arc<Notify>,
    publish: impl Fn(Result<Vec<Target>, Failed>) -> bool,
) {
    let patience = Duration::from_millis(config.timeout_ms);
    loop {
        let found = match timeout(patience, discover.look_up()).await {
            Ok(Ok(targets)) if targets.is_empty() => Err(Failed::Empty),
            Ok(Ok(targets)) if targets.len() > config.endpoints_max => {
                Err(Failed::TooMany(targets.len()))
            }
            Ok(found) => found,
            Err(_) => Err(Failed::Slow),
        };
        if !publish(found) {
            return;
        }
        let Some(interval) = discover.interval() else {
            return;
        };
        let pause = PAUSE_MIN.min(interval);
        sleep(pause).await;
        tokio::select! {
            () = sleep(interval.saturating_sub(pause)) => {}
            () = lost.notified() => {}
        }
    }
}
