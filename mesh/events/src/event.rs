//! The envelope that every event travels in. The body stays opaque here: only producer and consumer
//! know its type.

use bytes::Bytes;
use uuid::{NoContext, Timestamp, Uuid};

/// Something that happened, as it is stored in an outbox and carried by a bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// UUIDv7. Inboxes know an event by it, so it stays the same however often it is sent.
    pub message_id: Uuid,
    /// Routing key with the schema version, in the past tense: `payment.PaymentCaptured.v1`. An
    /// incompatible change of the body is a new kind, published beside the old one.
    pub kind: String,
    /// What it happened to: `pay_…`, `prd_…`.
    pub aggregate_id: String,
    /// The aggregate's version after it happened. A projection that replaces state drops older ones.
    pub aggregate_version: i64,
    /// When it happened, in microseconds since the Unix epoch.
    pub occurred_at_us: i64,
    /// W3C trace context of the call that caused it. The handler continues this trace.
    pub traceparent: Option<String>,
    /// Whether a consumer must exist. Then an event that reaches no queue is not published: it stays
    /// in the outbox until a consumer subscribes.
    pub mandatory: bool,
    /// The encoded protobuf message named by `kind`.
    pub body: Bytes,
}

impl Event {
    /// A new mandatory event with a message id of its own, sorted by `occurred_at_us`.
    pub fn new(
        kind: impl Into<String>,
        aggregate_id: impl Into<String>,
        aggregate_version: i64,
        occurred_at_us: i64,
        body: impl Into<Bytes>,
    ) -> Event {
        Event {
            message_id: message_id(occurred_at_us),
            kind: kind.into(),
            aggregate_id: aggregate_id.into(),
            aggregate_version,
            occurred_at_us,
            traceparent: None,
            mandatory: true,
            body: body.into(),
        }
    }

    /// The same event as a part of the given trace: `CallContext::current().traceparent()`.
    #[must_use]
    pub fn with_traceparent(mut self, traceparent: impl Into<String>) -> Event {
        self.traceparent = Some(traceparent.into());
        self
    }

    /// The same event, which nobody has to consume: published even when no queue takes it.
    #[must_use]
    pub fn optional(mut self) -> Event {
        self.mandatory = false;
        self
    }
}

fn message_id(now_us: i64) -> Uuid {
    let now_us = u64::try_from(now_us).unwrap_or(0); // Before 1970: the id sorts first, nothing else.
    let nanoseconds = u32::try_from(now_us % 1_000_000 * 1_000).expect("below a second");
    Uuid::new_v7(Timestamp::from_unix(
        NoContext,
        now_us / 1_000_000,
        nanoseconds,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ids_sort_by_time_and_are_version_7() {
        let earlier = Event::new("a.B.v1", "a_1", 1, 1_700_000_000_000_000, "");
        let later = Event::new("a.B.v1", "a_1", 2, 1_700_000_000_001_000, "");
        assert!(earlier.message_id < later.message_id);
        assert_eq!(earlier.message_id.get_version_num(), 7);
        assert_eq!(message_id(-1).get_version_num(), 7);
    }
}
