//! Numbers, text, bytes, booleans and enums: from JSON, from text, to JSON.
//!
//! Narrower than proto3 JSON in one point, on purpose: an enum is read by name only. Numbers are an
//! implementation detail of the wire, and a number that the contract does not know would slip in.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use prost_reflect::{EnumDescriptor, Kind, Value};

use super::{clip, tree::Node};

/// How many names of an enum an error lists.
const NAMES_MAX: usize = 20;

/// Reads a value of a scalar or enum kind from JSON; the error says what was expected.
pub(crate) fn from_node(kind: &Kind, node: &Node) -> Result<Value, String> {
    match (kind, node) {
        (Kind::Bool, Node::Bool(value)) => Ok(Value::Bool(*value)),
        (Kind::String, Node::Text(text)) => Ok(Value::String(text.clone())),
        (Kind::Bytes, Node::Text(text)) => bytes(text),
        (Kind::Enum(desc), Node::Text(name)) => enum_by_name(desc, name),
        (Kind::Enum(desc), Node::Null) if is_null_value(desc) => Ok(Value::EnumNumber(0)),
        (Kind::Float | Kind::Double, Node::Text(text)) => float(kind, text),
        (Kind::Float | Kind::Double, node) => match number(node) {
            Some(number) => finite(kind, number),
            None => Err(mismatch(kind, node)),
        },
        (_, Node::Text(text)) if integer_range(kind).is_some() => {
            match exponential(text).as_ref().and_then(integral) {
                Some(Integral::Exact(value)) => fit(kind, value).ok_or_else(|| out_of_range(kind)),
                Some(Integral::OutOfRange) => Err(out_of_range(kind)),
                None => integer(kind, text),
            }
        }
        (_, node) => match integral(node) {
            Some(Integral::Exact(value)) => fit(kind, value).ok_or_else(|| mismatch(kind, node)),
            Some(Integral::OutOfRange) => Err(out_of_range(kind)),
            None => Err(mismatch(kind, node)),
        },
    }
}

/// A number in quotes that is written with a point or an exponent, as JSON writes numbers: ProtoJSON takes it for integers
/// too, where it is one.
fn exponential(text: &str) -> Option<Node> {
    let as_json = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    let number = text.contains(['.', 'e', 'E']) && as_json;
    let number = number.then(|| text.parse::<f64>().ok())??;
    number.is_finite().then_some(Node::Float(number))
}

/// Reads a value of a scalar or enum kind from a path segment or a query parameter.
pub(crate) fn from_text(kind: &Kind, text: &str) -> Result<Value, String> {
    match kind {
        Kind::Bool => match text {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(format!("expected true or false, got {:?}", clip(text))),
        },
        Kind::String => Ok(Value::String(text.to_owned())),
        Kind::Bytes => bytes(text),
        Kind::Enum(desc) => enum_by_name(desc, text),
        Kind::Float | Kind::Double => float(kind, text),
        _ => integer(kind, text),
    }
}

/// What a JSON value of this kind looks like, for error messages.
pub(crate) fn expected(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "true or false".to_owned(),
        Kind::String => "a string".to_owned(),
        Kind::Bytes => "a base64 string".to_owned(),
        Kind::Enum(desc) => format!("one of {}", names(desc)),
        Kind::Float | Kind::Double => "a number".to_owned(),
        Kind::Message(_) => "an object".to_owned(),
        _ => {
            let (min, max) = integer_range(kind).expect("every other kind is an integer");
            format!("an integer between {min} and {max}")
        }
    }
}

/// The values that an integer kind can hold; `None` for other kinds.
pub(crate) fn integer_range(kind: &Kind) -> Option<(i128, i128)> {
    match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Some((i32::MIN.into(), i32::MAX.into())),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Some((i64::MIN.into(), i64::MAX.into())),
        Kind::Uint32 | Kind::Fixed32 => Some((0, u32::MAX.into())),
        Kind::Uint64 | Kind::Fixed64 => Some((0, u64::MAX.into())),
        _ => None,
    }
}

/// Whether an enum is `google.protobuf.NullValue`, whose JSON is `null`.
pub(crate) fn is_null_value(desc: &EnumDescriptor) -> bool {
    desc.full_name() == "google.protobuf.NullValue"
}

fn mismatch(kind: &Kind, node: &Node) -> String {
    format!("expected {}, got {}", expected(kind), node.kind())
}

fn out_of_range(kind: &Kind) -> String {
    format!("out of range: expected {}", expected(kind))
}

fn integer(kind: &Kind, text: &str) -> Result<Value, String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("expected {}, got {:?}", expected(kind), clip(text)));
    }
    // Digits that overflow even 128 bits are out of range too.
    text.parse()
        .ok()
        .and_then(|value| fit(kind, value))
        .ok_or_else(|| out_of_range(kind))
}

fn fit(kind: &Kind, value: i128) -> Option<Value> {
    Some(match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(value.try_into().ok()?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(value.try_into().ok()?),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(value.try_into().ok()?),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(value.try_into().ok()?),
        _ => return None,
    })
}

enum Integral {
    Exact(i128),
    OutOfRange,
}

/// The integer that a JSON number is: `1.0` and `1e2` are integers, `1.5` is not.
fn integral(node: &Node) -> Option<Integral> {
    /// Beyond it neighbouring integers share one double, so that the text may have meant another.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    match node {
        Node::Int(value) => Some(Integral::Exact((*value).into())),
        Node::UInt(value) => Some(Integral::Exact((*value).into())),
        Node::Float(value) if value.fract() != 0.0 => None,
        Node::Float(value) if value.abs() > EXACT_MAX => Some(Integral::OutOfRange),
        #[expect(clippy::cast_possible_truncation, reason = "integral and below 2^53")]
        Node::Float(value) => Some(Integral::Exact(*value as i128)),
        _ => None,
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "JSON numbers for double fields are doubles"
)]
fn number(node: &Node) -> Option<f64> {
    match node {
        Node::Int(value) => Some(*value as f64),
        Node::UInt(value) => Some(*value as f64),
        Node::Float(value) => Some(*value),
        _ => None,
    }
}

fn float(kind: &Kind, text: &str) -> Result<Value, String> {
    let special = match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    };
    if let Some(value) = special {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "NaN and infinities exist in both"
        )]
        return Ok(if *kind == Kind::Float {
            Value::F32(value as f32)
        } else {
            Value::F64(value)
        });
    }
    let plain = text
        .bytes()
        .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    match text.parse::<f64>() {
        Ok(value) if plain => finite(kind, value),
        _ => Err(format!("expected a number, got {:?}", clip(text))),
    }
}

fn finite(kind: &Kind, value: f64) -> Result<Value, String> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "overflow is checked on the result"
    )]
    let small = value as f32;
    match kind {
        _ if !value.is_finite() => Err("out of range: too large for a double".to_owned()),
        Kind::Float if small.is_finite() => Ok(Value::F32(small)),
        Kind::Float => Err("out of range: too large for a float".to_owned()),
        _ => Ok(Value::F64(value)),
    }
}

/// Standard and URL-safe base64, padded or not.
fn bytes(text: &str) -> Result<Value, String> {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let engine = GeneralPurpose::new(&alphabet::STANDARD, config);
    let standard = text.replace('-', "+").replace('_', "/");
    let decoded = engine
        .decode(standard)
        .map_err(|e| format!("expected a base64 string: {e}"))?;
    Ok(Value::Bytes(decoded.into()))
}

fn enum_by_name(desc: &EnumDescriptor, name: &str) -> Result<Value, String> {
    match desc.get_value_by_name(name) {
        Some(value) => Ok(Value::EnumNumber(value.number())),
        None => Err(format!(
            "expected one of {}, got {:?}",
            names(desc),
            clip(name)
        )),
    }
}

fn names(desc: &EnumDescriptor) -> String {
    let mut names: Vec<_> = desc
        .values()
        .take(NAMES_MAX)
        .map(|value| value.name().to_owned())
        .collect();
    if desc.values().len() > NAMES_MAX {
        names.push("…".to_owned());
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_in_quotes_may_have_an_exponent() {
        for (text, expected) in [("1e2", 100), ("1.0", 1), ("-2.50E1", -25), ("7", 7)] {
            let node = Node::Text(text.to_owned());
            assert_eq!(from_node(&Kind::Int32, &node), Ok(Value::I32(expected)));
            let expected = Value::I64(expected.into());
            assert_eq!(from_node(&Kind::Int64, &node), Ok(expected));
        }
    }
}
