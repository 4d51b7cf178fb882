//! An event as an AMQP message and back.
//!
//! The kind, which carries the schema version, is the routing key and the property `type`: on the way
//! through a retry queue the routing key is replaced. Message id, content type and persistence are
//! properties too; the rest are headers.

use std::str::FromStr as _;

use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use mesh_events::{DeadLetter, Event};
use uuid::Uuid;

const CONTENT_TYPE: &str = "application/protobuf";
/// Written to disk before it is confirmed.
const PERSISTENT: u8 = 2;

const AGGREGATE_ID: &str = "mesh-aggregate-id";
const AGGREGATE_VERSION: &str = "mesh-aggregate-version";
const OCCURRED_AT_US: &str = "mesh-occurred-at-us";
const MANDATORY: &str = "mesh-mandatory";
const TRACEPARENT: &str = "traceparent"; // Its name in W3C Trace Context, which other tools know.
const ATTEMPT: &str = "mesh-attempt";
pub(crate) const DEAD_REASON: &str = "mesh-dead-reason";
pub(crate) const DEAD_AT_US: &str = "mesh-dead-at-us";

/// By these the broker routes a message to further queues.
const ROUTING_HEADERS: [&str; 2] = ["CC", "BCC"];
/// How much of a reason, and of a stranger's headers, a dead letter has: all headers of a message are one frame, and one
/// that is longer than the broker allows (128 KiB) ends the connection.
const REASON_BYTES_MAX: usize = 4 << 10;
const KEPT_HEADER_BYTES_MAX: usize = 64 << 10;

/// The properties of an event on its way to attempt number `attempt`. Fails with what AMQP can not
/// carry.
pub(crate) fn encode(event: &Event, attempt: u32) -> Result<BasicProperties, String> {
    let mut headers = FieldTable::default();
    let mut text = |name: &str, value: &str| {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    };
    text(AGGREGATE_ID, &event.aggregate_id);
    if let Some(traceparent) = &event.traceparent {
        text(TRACEPARENT, traceparent);
    }
    let mut number = |name: &str, value: i64| {
        headers.insert(name.into(), AMQPValue::LongLongInt(value));
    };
    number(AGGREGATE_VERSION, event.aggregate_version);
    number(OCCURRED_AT_US, event.occurred_at_us);
    number(ATTEMPT, i64::from(attempt));
    headers.insert(MANDATORY.into(), AMQPValue::Boolean(event.mandatory));
    Ok(BasicProperties::default()
        .with_message_id(event.message_id.to_string().into())
        .with_type(short("kind", &event.kind)?)
        .with_content_type(CONTENT_TYPE.into())
        .with_delivery_mode(PERSISTENT)
        .with_headers(headers))
}

/// The properties of a dead letter: those of its event, with the last attempt and the reason.
pub(crate) fn encode_letter(letter: &DeadLetter) -> Result<BasicProperties, String> {
    let properties = encode(&letter.event, letter.attempts)?;
    Ok(dead(properties, &letter.reason, Some(letter.dead_at_us)))
}

/// The same message as a dead letter. Whatever the message was, people can name it by its id. Of a stranger's properties
/// only those are kept by which the broker does nothing: a user id that is not ours is refused, an expiration ends the
/// letter, `CC` and `BCC` are routed by once more.
pub(crate) fn dead(
    properties: BasicProperties,
    reason: &str,
    dead_at_us: Option<i64>,
) -> BasicProperties {
    let mut headers = FieldTable::default();
    let mut room = KEPT_HEADER_BYTES_MAX;
    for (name, value) in properties.headers().iter().flat_map(FieldTable::inner) {
        let bytes = name.as_str().len() + bytes_of(value);
        if !ROUTING_HEADERS.contains(&name.as_str()) && bytes <= room {
            room -= bytes;
            headers.insert(name.clone(), value.clone());
        }
    }
    let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
    headers.insert(DEAD_REASON.into(), AMQPValue::LongString(reason.into()));
    if let Some(dead_at_us) = dead_at_us {
        headers.insert(DEAD_AT_US.into(), AMQPValue::LongLongInt(dead_at_us));
    }
    let id = match properties.message_id() {
        Some(id) if !id.as_str().is_empty() => id.clone(),
        _ => Uuid::now_v7().to_string().into(),
    };
    let mut kept = BasicProperties::default()
        .with_headers(headers)
        .with_message_id(id)
        .with_delivery_mode(PERSISTENT);
    if let Some(kind) = properties.kind() {
        kept = kept.with_type(kind.clone());
    }
    if let Some(content_type) = properties.content_type() {
        kept = kept.with_content_type(content_type.clone());
    }
    kept
}

/// About how many bytes a header takes.
fn bytes_of(value: &AMQPValue) -> usize {
    const OVERHEAD: usize = 16;
    let more = match value {
        AMQPValue::ShortString(text) => text.as_str().len(),
        AMQPValue::LongString(text) => text.as_bytes().len(),
        AMQPValue::ByteArray(bytes) => bytes.as_slice().len(),
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(bytes_of).sum(),
        AMQPValue::FieldTable(table) => {
            let entries = table.inner().iter();
            entries
                .map(|(name, value)| name.as_str().len() + bytes_of(value))
                .sum()
        }
        _ => 0,
    };
    OVERHEAD + more
}

/// The event in a message, with the number of the attempt; or what is wrong with its envelope.
pub(crate) fn decode(properties: &BasicProperties, body: Bytes) -> Result<(Event, u32), String> {
    let id = properties.message_id().as_ref().map(ShortString::as_str);
    let id = id.ok_or("property message-id is missing")?;
    let message_id = Uuid::from_str(id)
        .map_err(|error| format!("property message-id is not a UUID: {error}"))?;
    let kind = properties.kind().as_ref().map(ShortString::as_str);
    let kind = kind
        .filter(|kind| !kind.is_empty())
        .ok_or("property type is missing")?;
    let attempt = u32::try_from(number(properties, ATTEMPT)?).ok();
    let event = Event {
        message_id,
        kind: kind.to_owned(),
        aggregate_id: text(properties, AGGREGATE_ID)?,
        aggregate_version: number(properties, AGGREGATE_VERSION)?,
        occurred_at_us: number(properties, OCCURRED_AT_US)?,
        // A trace that can not be read is no reason to lose the event.
        traceparent: text(properties, TRACEPARENT).ok(),
        mandatory: !matches!(
            header(properties, MANDATORY),
            Some(AMQPValue::Boolean(false))
        ),
        body,
    };
    let attempt = attempt
        .filter(|attempt| *attempt > 0)
        .ok_or_else(|| format!("header {ATTEMPT} is no count"))?;
    Ok((event, attempt))
}

pub(crate) fn text(properties: &BasicProperties, name: &str) -> Result<String, String> {
    match header(properties, name) {
        Some(AMQPValue::LongString(text)) => String::from_utf8(text.as_bytes().to_vec())
            .map_err(|_| format!("header {name} is not UTF-8")),
        Some(_) => Err(format!("header {name} is not text")),
        None => Err(format!("header {name} is missing")),
    }
}

pub(crate) fn number(properties: &BasicProperties, name: &str) -> Result<i64, String> {
    match header(properties, name) {
        Some(AMQPValue::LongLongInt(number)) => Ok(*number),
        // What people send by hand comes in the width that their client chose.
        Some(AMQPValue::LongInt(number)) => Ok(i64::from(*number)),
        Some(_) => Err(format!("header {name} is not an integer")),
        None => Err(format!("header {name} is missing")),
    }
}

/// Why the broker itself made this a dead letter, where it did: the newest entry of `x-death`.
pub(crate) fn broker_reason(properties: &BasicProperties) -> Option<String> {
    let Some(AMQPValue::FieldArray(deaths)) = header(properties, "x-death") else {
        return None;
    };
    let Some(AMQPValue::FieldTable(newest)) = deaths.as_slice().first() else {
        return None;
    };
    match newest.inner().get("reason") {
        Some(AMQPValue::LongString(reason)) => Some(format!("{reason}, says the broker")),
        _ => None,
    }
}

fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
    properties.headers().as_ref()?.inner().get(name)
}

/// A name as AMQP carries it; `ShortString`'s own conversion would panic.
pub(crate) fn short(what: &str, text: &str) -> Result<ShortString, String> {
    ShortString::try_new(text).map_err(|_| format!("{what} {text:?} is longer than 255 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event::new("shop.Sold.v1", "prd_1", 7, 1_700_000_000_000_000, "body")
            .with_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    }

    #[test]
    fn an_event_survives_the_wire_with_its_attempt() {
        for event in [event(), event().optional()] {
            let properties = encode(&event, 3).unwrap();
            assert_eq!(decode(&properties, event.body.clone()), Ok((event, 3)));
        }
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let whole = encode(&event(), 1).unwrap();
        let wrong = |properties: BasicProperties| decode(&properties, Bytes::new()).unwrap_err();
        let without = |name: &str| {
            let mut headers = whole.headers().clone().unwrap().inner().clone();
            headers.remove(name);
            whole.clone().with_headers(headers.into())
        };
        let with = |name: &str, value: AMQPValue| {
            let mut headers = whole.headers().clone().unwrap();
            headers.insert(name.into(), value);
            whole.clone().with_headers(headers)
        };
        assert!(wrong(BasicProperties::default()).contains("message-id"));
        let id = wrong(whole.clone().with_message_id("7".into()));
        assert!(id.contains("UUID"), "{id}");
        assert!(wrong(whole.clone().with_type("".into())).contains("type"));
        for name in [AGGREGATE_ID, AGGREGATE_VERSION, OCCURRED_AT_US, ATTEMPT] {
            assert_eq!(wrong(without(name)), format!("header {name} is missing"));
        }
        let zero = wrong(with(ATTEMPT, AMQPValue::LongLongInt(0)));
        assert!(zero.contains("no count"), "{zero}");
        let number = wrong(with(AGGREGATE_ID, AMQPValue::LongLongInt(1)));
        assert!(number.ends_with("is not text"), "{number}");
        let latin = wrong(with(AGGREGATE_ID, AMQPValue::LongString(vec![0xe4].into())));
        assert!(latin.ends_with("not UTF-8"), "{latin}");
    }

    #[test]
    fn a_kind_that_amqp_can_not_carry_is_refused() {
        let mut event = event();
        event.kind = "x".repeat(256);
        assert!(encode(&event, 1).unwrap_err().contains("255 bytes"));
    }

    #[test]
    fn every_dead_letter_has_an_id_and_a_reason() {
        let letter = dead(BasicProperties::default(), "no envelope", None);
        assert!(Uuid::from_str(letter.message_id().as_ref().unwrap().as_str()).is_ok());
        assert_eq!(text(&letter, DEAD_REASON).unwrap(), "no envelope");
        let kept = dead(encode(&event(), 2).unwrap(), "poison", Some(9));
        let (event, attempts) = decode(&kept, Bytes::new()).unwrap();
        assert_eq!(
            kept.message_id().as_ref().unwrap().as_str(),
            event.message_id.to_string()
        );
        assert_eq!((attempts, number(&kept, DEAD_AT_US).unwrap()), (2, 9));
    }

    #[test]
    fn the_broker_does_nothing_by_what_a_dead_letter_keeps_of_a_stranger() {
        let mut headers = FieldTable::default();
        let long = "x".repeat(100 << 10);
        for (name, value) in [
            ("CC", "again"),
            ("BCC", "again"),
            ("x-long", &long),
            ("x-own", "y"),
        ] {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        let stranger = BasicProperties::default()
            .with_user_id("alice".into())
            .with_expiration("1".into())
            .with_headers(headers);
        let letter = dead(stranger, &"é".repeat(1 << 20), None);
        assert_eq!((letter.user_id(), letter.expiration()), (&None, &None));
        let kept: Vec<&str> = letter
            .headers()
            .iter()
            .flat_map(FieldTable::inner)
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(kept, [DEAD_REASON, "x-own"]);
        let reason = text(&letter, DEAD_REASON).unwrap();
        assert!(reason.len() <= REASON_BYTES_MAX && reason.ends_with('é'));
    }
}
