//! The messages of `google.protobuf` that have a JSON form of their own.

use std::collections::HashMap;

use prost::Message as _;
use prost_reflect::{DynamicMessage, Kind, MapKey, MessageDescriptor, Value};

use super::{Path, clip, read::Reader, scalar, time, tree::Node};
use crate::field::{self, WellKnown};

/// Reads a well-known message from JSON; `None` after reporting what is wrong.
pub(crate) fn from_node(
    reader: &mut Reader<'_>,
    known: WellKnown,
    desc: &MessageDescriptor,
    node: Node,
    path: Path<'_>,
) -> Option<DynamicMessage> {
    let outcome = match (known, node) {
        (WellKnown::Timestamp | WellKnown::Duration | WellKnown::FieldMask, Node::Text(text)) => {
            from_text(known, desc, &text)
        }
        (WellKnown::Timestamp, node) => Err(expected("an RFC 3339 time", &node)),
        (WellKnown::Duration, node) => Err(expected("a duration such as \"1.5s\"", &node)),
        (WellKnown::FieldMask, node) => Err(expected("field names joined by commas", &node)),
        (WellKnown::Wrapper, node) => {
            let value = scalar::from_node(&value_kind(desc), &node);
            value.map(|value| with(desc, [(1, value)]))
        }
        (WellKnown::Empty, Node::Object(members)) => return reader.message(desc, members, path),
        (WellKnown::Struct, Node::Object(members)) => Ok(structure(desc, members)),
        (WellKnown::ListValue, Node::List(items)) => Ok(list(desc, items)),
        (WellKnown::Value, node) => Ok(value(desc, node)),
        (WellKnown::Any, Node::Object(members)) => return any(reader, desc, members, path),
        (WellKnown::Empty | WellKnown::Struct | WellKnown::Any, node) => {
            Err(expected("an object", &node))
        }
        (WellKnown::ListValue, node) => Err(expected("an array", &node)),
    };
    outcome
        .map_err(|why| reader.violations.push(path, why))
        .ok()
}

/// Reads those that are text in JSON from a path segment or a query parameter.
pub(crate) fn from_text(
    known: WellKnown,
    desc: &MessageDescriptor,
    text: &str,
) -> Result<DynamicMessage, String> {
    let seconds = |(seconds, nanos)| with(desc, [(1, Value::I64(seconds)), (2, Value::I32(nanos))]);
    let got = |why: &str| format!("{why}, got {:?}", clip(text));
    match known {
        WellKnown::Timestamp => time::parse_timestamp(text).map(seconds).map_err(got),
        WellKnown::Duration => time::parse_duration(text).map(seconds).map_err(got),
        WellKnown::FieldMask => mask(desc, text).map_err(got),
        WellKnown::Wrapper => {
            scalar::from_text(&value_kind(desc), text).map(|value| with(desc, [(1, value)]))
        }
        WellKnown::Struct
        | WellKnown::Value
        | WellKnown::ListValue
        | WellKnown::Any
        | WellKnown::Empty => Err("cannot be written as text".to_owned()),
    }
}

/// A field mask of these paths, in proto spelling.
pub(crate) fn mask_of(desc: &MessageDescriptor, paths: Vec<String>) -> DynamicMessage {
    with(
        desc,
        [(
            1,
            Value::List(paths.into_iter().map(Value::String).collect()),
        )],
    )
}

fn mask(desc: &MessageDescriptor, text: &str) -> Result<DynamicMessage, &'static str> {
    if text.is_empty() {
        return Ok(mask_of(desc, Vec::new()));
    }
    let name = |segment: &str| {
        !segment.is_empty()
            && segment
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    if !text.split([',', '.']).all(name) {
        return Err("expected field names joined by commas");
    }
    Ok(mask_of(desc, text.split(',').map(field::snake).collect()))
}

fn expected(what: &str, node: &Node) -> String {
    format!("expected {what}, got {}", node.kind())
}

fn value_kind(wrapper: &MessageDescriptor) -> Kind {
    wrapper
        .get_field(1)
        .expect("a wrapper has the field `value`")
        .kind()
}

fn with<const N: usize>(desc: &MessageDescriptor, fields: [(u32, Value); N]) -> DynamicMessage {
    let mut message = DynamicMessage::new(desc.clone());
    for (number, value) in fields {
        message.set_field_by_number(number, value);
    }
    message
}

/// The message type of a field of Struct, Value or ListValue.
fn inner(desc: &MessageDescriptor, number: u32) -> MessageDescriptor {
    let kind = desc
        .get_field(number)
        .expect("a field of google.protobuf.Struct and kin")
        .kind();
    kind.as_message().expect("which is a message").clone()
}

fn structure(desc: &MessageDescriptor, members: Vec<(String, Node)>) -> DynamicMessage {
    let value_desc = inner(&inner(desc, 1), 2);
    let fields: HashMap<_, _> = members
        .into_iter()
        .map(|(name, node)| {
            (
                MapKey::String(name),
                Value::Message(value(&value_desc, node)),
            )
        })
        .collect();
    with(desc, [(1, Value::Map(fields))])
}

fn list(desc: &MessageDescriptor, items: Vec<Node>) -> DynamicMessage {
    let value_desc = inner(desc, 1);
    let items = items
        .into_iter()
        .map(|node| Value::Message(value(&value_desc, node)))
        .collect();
    with(desc, [(1, Value::List(items))])
}

fn value(desc: &MessageDescriptor, node: Node) -> DynamicMessage {
    #[expect(
        clippy::cast_precision_loss,
        reason = "google.protobuf.Value holds doubles only"
    )]
    let (number, value) = match node {
        Node::Null => (1, Value::EnumNumber(0)),
        Node::Int(value) => (2, Value::F64(value as f64)),
        Node::UInt(value) => (2, Value::F64(value as f64)),
        Node::Float(value) => (2, Value::F64(value)),
        Node::Text(text) => (3, Value::String(text)),
        Node::Bool(value) => (4, Value::Bool(value)),
        Node::Object(members) => (5, Value::Message(structure(&inner(desc, 5), members))),
        Node::List(items) => (6, Value::Message(list(&inner(desc, 6), items))),
    };
    with(desc, [(number, value)])
}

/// `{"@type": "…/full.Name", fields…}`; a well-known type stands under `value`.
fn any(
    reader: &mut Reader<'_>,
    desc: &MessageDescriptor,
    mut members: Vec<(String, Node)>,
    path: Path<'_>,
) -> Option<DynamicMessage> {
    let at = path.field("@type");
    let Some(i) = members.iter().position(|(name, _)| name == "@type") else {
        reader
            .violations
            .push(at, "expected the type of the message");
        return None;
    };
    let (_, Node::Text(url)) = members.remove(i) else {
        reader.violations.push(at, "expected a string");
        return None;
    };
    let name = url.rsplit_once('/').map(|(_, name)| name);
    let Some(of) = name.and_then(|name| desc.parent_pool().get_message_by_name(name)) else {
        reader
            .violations
            .push(at, format!("no such type: {:?}", clip(&url)));
        return None;
    };
    let message = match field::well_known(&of) {
        None => reader.message(&of, members, path)?,
        Some(known) => {
            let position = members.iter().position(|(name, _)| name == "value");
            let value = position.map(|i| members.remove(i).1);
            if let Some((name, _)) = members.first() {
                reader.violations.push(path.field(name), "no such field");
                return None;
            }
            let Some(value) = value else {
                reader
                    .violations
                    .push(path.field("value"), "expected a value");
                return None;
            };
            from_node(reader, known, &of, value, path.field("value"))?
        }
    };
    let value = Value::Bytes(message.encode_to_vec().into());
    Some(with(desc, [(1, Value::String(url)), (2, value)]))
}
