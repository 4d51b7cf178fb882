//! Where the broker is, how to get in, and every limit.

use std::path::PathBuf;

use lapin::uri::AMQPUri;
use mesh_events::Backoff;
use serde::{Deserialize, Serialize};

use crate::RabbitMqError;

/// How a service reaches RabbitMQ.
///
/// The keys from `queue_length_max` on become arguments of queues. A queue that exists keeps its own:
/// what differs is refused at start by name, and a new retry ladder makes new retry queues.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RabbitMqConfig {
    /// Where the broker is: `amqp://host:port/vhost`, or `amqps://…` for TLS; never with a password. The nodes of a
    /// cluster with commas between them: connections spread over them, and go to the next when one is lost.
    pub url: String,
    /// Who connects.
    pub user: String,
    /// The file that holds the password, read again for each connection. Without one the password is
    /// `guest`, whom a broker lets in from its own machine only.
    pub password_file: Option<PathBuf>,
    /// Certificates (PEM) to trust for `amqps` besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// The topic exchange that events are published to. Queues begin with its name.
    pub exchange: String,
    /// How long connecting to an address may take until the broker has let us in, in milliseconds.
    pub connect_timeout_ms: u64,
    /// How often a silent connection is probed, in seconds; after two missed probes it is dead.
    pub heartbeat_seconds: u16,
    /// The first pause between two attempts to connect, in milliseconds; each further one doubles it.
    pub backoff_min_ms: u64,
    /// The longest such pause in milliseconds.
    pub backoff_max_ms: u64,
    /// The random part of such a pause, from 0 (none) to 1.
    pub backoff_jitter: f64,
    /// How long the broker may take to confirm a window, in milliseconds; below the relay's own limit,
    /// so that what was confirmed in time counts.
    pub publish_timeout_ms: u64,
    /// Windows that are published at the same time; each has a channel of its own.
    pub channels_max: usize,
    /// The longest body of an event in bytes; a longer one is refused.
    pub message_bytes_max: usize,
    /// Messages in one queue; more are refused and stay in the outbox.
    pub queue_length_max: u32,
    /// How often the broker delivers a message whose consumer dies before settling it; then it becomes
    /// a dead letter. High, because each restart counts for everything that was being handled.
    pub delivery_limit: u32,
    /// How long nothing may come before a consumer subscribes again, in milliseconds. A quorum queue whose leader
    /// dies forgets what was on its way to a consumer until the next delivery, or until the consumer goes.
    pub quiet_ms: u64,
    /// The waits between attempts in milliseconds, ascending: one queue each. A wait is rounded up to
    /// the next of them, or down to the last.
    pub retry_ladder_ms: Vec<u32>,
}

impl Default for RabbitMqConfig {
    fn default() -> RabbitMqConfig {
        RabbitMqConfig {
            url: "amqp://127.0.0.1:5672/%2f".into(),
            user: "guest".into(),
            password_file: None,
            ca_file: None,
            exchange: "commerce.events".into(),
            connect_timeout_ms: 5_000,
            heartbeat_seconds: 10,
            backoff_min_ms: 100,
            backoff_max_ms: 10_000,
            backoff_jitter: 0.5,
            publish_timeout_ms: 8_000,
            channels_max: 16,
            message_bytes_max: 1 << 20,
            queue_length_max: 1_000_000,
            delivery_limit: 100,
            quiet_ms: 30_000,
            retry_ladder_ms: vec![250, 1_000, 5_000, 20_000, 60_000],
        }
    }
}

/// Longest name of an exchange, in bytes: AMQP's 255 less what queues append to it.
const EXCHANGE_BYTES_MAX: usize = 120;

impl RabbitMqConfig {
    /// Fails with the key that makes no sense.
    pub fn check(&self) -> Result<(), RabbitMqError> {
        self.uris()?;
        let refuse = |what: &str| Err(RabbitMqError::Config(what.to_owned()));
        if self.exchange.is_empty() || self.exchange.len() > EXCHANGE_BYTES_MAX {
            return refuse(&format!("`exchange` has 1 to {EXCHANGE_BYTES_MAX} bytes"));
        }
        if self.channels_max == 0 {
            return refuse("`channels_max` is at least 1");
        }
        if self.queue_length_max > i32::MAX as u32 || self.delivery_limit > i32::MAX as u32 {
            return refuse("`queue_length_max` and `delivery_limit` fit into 31 bits");
        }
        if self.quiet_ms == 0 {
            return refuse("`quiet_ms` is at least 1");
        }
        let ladder = &self.retry_ladder_ms;
        if ladder.is_empty() || ladder[0] == 0 || !ladder.is_sorted_by(|a, b| a < b) {
            return refuse("`retry_ladder_ms` holds one or more ascending waits above 0");
        }
        Ok(())
    }

    /// The addresses without credentials; at least one.
    pub(crate) fn uris(&self) -> Result<Vec<AMQPUri>, RabbitMqError> {
        self.url.split(',').map(|url| uri(url.trim())).collect()
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff {
            min_ms: self.backoff_min_ms,
            max_ms: self.backoff_max_ms,
            jitter: self.backoff_jitter,
        }
    }
}

fn uri(url: &str) -> Result<AMQPUri, RabbitMqError> {
    let authority = url.split_once("://").map_or("", |(_, rest)| rest);
    let authority = authority.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        let what = "`url` holds no user and no password: use `user` and `password_file`";
        return Err(RabbitMqError::Config(what.into()));
    }
    // The address itself may be shown: it holds no secret.
    let broken = |error| RabbitMqError::Config(format!("`url` {url:?}: {error}"));
    url.parse().map_err(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut RabbitMqConfig)) -> String {
        let mut config = RabbitMqConfig::default();
        change(&mut config);
        config.check().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_accepted() {
        RabbitMqConfig::default().check().unwrap();
    }

    #[test]
    fn a_cluster_is_its_nodes_with_commas_between() {
        let ports = |url: &str| {
            let config = RabbitMqConfig {
                url: url.into(),
                ..RabbitMqConfig::default()
            };
            let uris = config.uris().map_err(|error| error.to_string())?;
            Ok::<_, String>(
                uris.iter()
                    .map(|uri| uri.authority.port)
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(ports("amqp://a:1/%2f").unwrap(), [1]);
        assert_eq!(ports("amqp://a:1/%2f, amqps://b:2/%2f").unwrap(), [1, 2]);
        for broken in ["", "amqp://a:1/%2f,", "amqp://a:1/%2f,http://b"] {
            assert!(ports(broken).unwrap_err().contains("`url`"), "{broken}");
        }
        let hidden = ports("amqp://a:1/%2f,amqp://shop:hunter2@b/%2f").unwrap_err();
        assert!(!hidden.contains("hunter2"), "{hidden}");
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_key() {
        let with_password = refused(|c| c.url = "amqp://shop:hunter2@broker:5672/%2f".into());
        assert!(with_password.contains("password_file"), "{with_password}");
        assert!(!with_password.contains("hunter2"), "{with_password}");
        assert!(refused(|c| c.url = "http://broker".into()).contains("`url`"));
        assert!(refused(|c| c.exchange.clear()).contains("`exchange`"));
        assert!(refused(|c| c.channels_max = 0).contains("`channels_max`"));
        assert!(refused(|c| c.quiet_ms = 0).contains("`quiet_ms`"));
        assert!(refused(|c| c.delivery_limit = u32::MAX).contains("`delivery_limit`"));
        for ladder in [vec![], vec![0, 5], vec![5, 5], vec![9, 5]] {
            assert!(refused(|c| c.retry_ladder_ms = ladder).contains("`retry_ladder_ms`"));
        }
    }
}
