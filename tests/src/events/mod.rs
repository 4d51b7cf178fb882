//! Events between real processes over real servers, with nothing of the shop in it: relays and consumers that
//! can be killed ([`worker`]), what consumers make of events ([`effect`]), and the database and broker between
//! them ([`stage`]), which knows afterwards what was lost and what happened twice.

pub mod effect;
pub mod stage;
pub mod worker;

use mesh_events::Event;
use mesh_rabbitmq::RabbitMqConfig;

/// What a consumer is bound to from the start.
pub const KIND: &str = "test.Happened.v1";
/// What its queue is bound to later, if at all.
pub const LATE: &str = "test.HappenedLate.v1";

/// An event about an aggregate with a number as its body.
pub fn event(kind: &str, aggregate: &str, version: i64, number: i64) -> Event {
    let body = number.to_be_bytes().to_vec();
    Event::new(kind, aggregate, version, version, body)
}

/// The number in the body of an event.
pub fn number(event: &Event) -> Result<i64, String> {
    let bytes = <[u8; 8]>::try_from(&event.body[..]);
    bytes
        .map(i64::from_be_bytes)
        .map_err(|_| format!("a body of {} bytes is no number", event.body.len()))
}

/// The same for everybody who takes part: queues are made of it.
pub(crate) fn broker(addresses: &str, exchange: &str) -> RabbitMqConfig {
    RabbitMqConfig {
        url: addresses.to_owned(),
        exchange: exchange.to_owned(),
        backoff_max_ms: 500, // The broker is away for seconds, not for minutes.
        connect_timeout_ms: 2_000,
        publish_timeout_ms: 3_000,
        retry_ladder_ms: vec![100, 400],
        quiet_ms: 5_000,
        ..RabbitMqConfig::default()
    }
}
