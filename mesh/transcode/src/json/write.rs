//! Message to JSON, the same bytes for the same message: fields by number, map keys sorted.
//!
//! Fields without presence are always written, so that clients need no defaults of their own.

use std::fmt::Write as _;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value};

use super::{Path, scalar, time};
use crate::{
    error::ResponseError,
    field::{self, WellKnown},
};

/// Writes a message of any type.
pub(crate) fn message(
    out: &mut String,
    message: &DynamicMessage,
    path: Path<'_>,
) -> Result<(), ResponseError> {
    let desc = message.descriptor();
    if let Some(known) = field::well_known(&desc) {
        return well_known(out, known, message, path);
    }
    out.push('{');
    members(out, message, path, true)?;
    out.push('}');
    Ok(())
}

/// Writes the value of a field: a list, a map or a single value.
pub(crate) fn field(
    out: &mut String,
    field: &FieldDescriptor,
    value: &Value,
    path: Path<'_>,
) -> Result<(), ResponseError> {
    match value {
        Value::List(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                separate(out, i == 0);
                single(out, &field.kind(), item, path.index(i))?;
            }
            out.push(']');
            Ok(())
        }
        Value::Map(entries) => {
            let kind = field.kind();
            let entry = kind
                .as_message()
                .expect("a map is a list of entry messages");
            let value_kind = entry.map_entry_value_field().kind();
            let mut entries: Vec<_> = entries.iter().map(|(k, v)| (k, key_text(k), v)).collect();
            entries.sort_by(|(a, a_text, _), (b, b_text, _)| {
                key_number(a)
                    .cmp(&key_number(b))
                    .then_with(|| a_text.cmp(b_text))
            });
            out.push('{');
            for (i, (_, key, value)) in entries.iter().enumerate() {
                separate(out, i == 0);
                text(out, key);
                out.push(':');
                single(out, &value_kind, value, path.key(key))?;
            }
            out.push('}');
            Ok(())
        }
        value => single(out, &field.kind(), value, path),
    }
}

fn members(
    out: &mut String,
    message: &DynamicMessage,
    path: Path<'_>,
    mut first: bool,
) -> Result<(), ResponseError> {
    let desc = message.descriptor();
    for f in desc.fields() {
        if f.supports_presence() && !message.has_field(&f) {
            continue;
        }
        separate(out, first);
        first = false;
        text(out, f.json_name());
        out.push(':');
        field(out, &f, &message.get_field(&f), path.field(f.json_name()))?;
    }
    Ok(())
}

fn single(
    out: &mut String,
    kind: &Kind,
    value: &Value,
    path: Path<'_>,
) -> Result<(), ResponseError> {
    match value {
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::I32(value) => display(out, value),
        Value::U32(value) => display(out, value),
        Value::I64(value) => quoted(out, value),
        Value::U64(value) => quoted(out, value),
        Value::F32(value) if value.is_finite() => json(out, value),
        Value::F64(value) if value.is_finite() => json(out, value),
        Value::F32(value) => special(out, f64::from(*value)),
        Value::F64(value) => special(out, *value),
        Value::String(value) => text(out, value),
        Value::Bytes(value) => text(out, &BASE64_STANDARD.encode(value)),
        Value::EnumNumber(number) => {
            let desc = kind
                .as_enum()
                .expect("an enum number is the value of an enum");
            match desc.get_value(*number) {
                _ if scalar::is_null_value(desc) => out.push_str("null"),
                Some(value) => text(out, value.name()),
                None => display(out, number),
            }
        }
        Value::Message(inner) => message(out, inner, path)?,
        Value::List(_) | Value::Map(_) => unreachable!("lists and maps do not nest"),
    }
    Ok(())
}

fn well_known(
    out: &mut String,
    known: WellKnown,
    message: &DynamicMessage,
    path: Path<'_>,
) -> Result<(), ResponseError> {
    let get = |number| {
        message
            .get_field_by_number(number)
            .expect("a field of a well-known type")
    };
    let seconds = || {
        (
            get(1).as_i64().unwrap_or_default(),
            get(2).as_i32().unwrap_or_default(),
        )
    };
    match known {
        WellKnown::Timestamp => {
            let (seconds, nanos) = seconds();
            let printed = time::format_timestamp(seconds, nanos);
            text(
                out,
                &printed.ok_or_else(|| broken(path, "timestamp out of range"))?,
            );
        }
        WellKnown::Duration => {
            let (seconds, nanos) = seconds();
            let printed = time::format_duration(seconds, nanos);
            text(
                out,
                &printed.ok_or_else(|| broken(path, "duration out of range"))?,
            );
        }
        WellKnown::FieldMask => {
            let paths = get(1);
            let names = paths
                .as_list()
                .unwrap_or_default()
                .iter()
                .filter_map(Value::as_str);
            text(
                out,
                &names.map(field::lower_camel).collect::<Vec<_>>().join(","),
            );
        }
        WellKnown::Wrapper => {
            let value_field = message
                .descriptor()
                .get_field(1)
                .expect("a wrapper has a value");
            single(out, &value_field.kind(), &get(1), path)?;
        }
        WellKnown::Struct | WellKnown::ListValue => {
            let values = message
                .descriptor()
                .get_field(1)
                .expect("as named by google.protobuf");
            field(out, &values, &get(1), path)?;
        }
        WellKnown::Value => match message.fields().next() {
            None => out.push_str("null"),
            Some((_, Value::F64(number))) if !number.is_finite() => {
                return Err(broken(path, "a number that is not finite"));
            }
            Some((kind, value)) => single(out, &kind.kind(), value, path)?,
        },
        WellKnown::Empty => out.push_str("{}"),
        WellKnown::Any => any(out, message, path)?,
    }
    Ok(())
}

fn any(out: &mut String, message: &DynamicMessage, path: Path<'_>) -> Result<(), ResponseError> {
    let (url, bytes) = (
        message.get_field_by_number(1),
        message.get_field_by_number(2),
    );
    let url = url
        .as_ref()
        .and_then(|url| url.as_str())
        .unwrap_or_default();
    let bytes = bytes
        .as_ref()
        .and_then(|bytes| bytes.as_bytes())
        .cloned()
        .unwrap_or_default();
    if url.is_empty() {
        out.push_str("{}");
        return Ok(());
    }
    let name = url.rsplit('/').next().unwrap_or(url);
    let desc = message.descriptor().parent_pool().get_message_by_name(name);
    let desc = desc.ok_or_else(|| broken(path, "a type that is not in the contract"))?;
    let known = field::well_known(&desc);
    let inner = DynamicMessage::decode(desc, bytes).map_err(|_| broken(path, "broken Any"))?;
    out.push_str("{\"@type\":");
    text(out, url);
    if let Some(known) = known {
        out.push_str(",\"value\":");
        well_known(out, known, &inner, path)?;
    } else {
        members(out, &inner, path, false)?;
    }
    out.push('}');
    Ok(())
}

fn broken(path: Path<'_>, reason: &str) -> ResponseError {
    ResponseError::Value {
        field: path.to_string(),
        reason: reason.to_owned(),
    }
}

fn separate(out: &mut String, first: bool) {
    if !first {
        out.push(',');
    }
}

fn display(out: &mut String, value: impl std::fmt::Display) {
    write!(out, "{value}").expect("a String takes everything");
}

fn quoted(out: &mut String, value: impl std::fmt::Display) {
    write!(out, "\"{value}\"").expect("a String takes everything");
}

fn special(out: &mut String, value: f64) {
    let name = match value {
        v if v.is_nan() => "NaN",
        v if v > 0.0 => "Infinity",
        _ => "-Infinity",
    };
    text(out, name);
}

fn text(out: &mut String, value: &str) {
    json(out, value);
}

fn json(out: &mut String, value: impl serde::Serialize) {
    let printed = serde_json::to_string(&value);
    out.push_str(&printed.expect("text and finite numbers always have a JSON form"));
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

/// Numbers sort as numbers; text by its bytes.
fn key_number(key: &MapKey) -> i128 {
    match key {
        MapKey::Bool(key) => i128::from(*key),
        MapKey::I32(key) => i128::from(*key),
        MapKey::I64(key) => i128::from(*key),
        MapKey::U32(key) => i128::from(*key),
        MapKey::U64(key) => i128::from(*key),
        MapKey::String(_) => 0,
    }
}
