//! Query parameters: every name is a request field that neither the path nor the body fills.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, Value};

use crate::{
    error::{BadRequest, Violations},
    field,
    json::{clip, read, scalar, well_known},
    router::decode_query,
    schema::{Body, Endpoint},
};

/// Reads a query string (without `?`) into the request.
pub(crate) fn read(
    endpoint: &Endpoint,
    query: &str,
    request: &mut DynamicMessage,
    violations: &mut Violations,
) {
    // Full numbers of what was given, so that both spellings of a field count as one.
    let mut given: Vec<Vec<u32>> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (raw_name, raw_value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = match decode_query(raw_name) {
            Ok(name) => name,
            Err(why) => {
                violations.push(clip(raw_name), format!("query parameter name: {why}"));
                continue;
            }
        };
        if let Err(why) = parameter(endpoint, &name, raw_value, request, &mut given) {
            violations.push(clip(&name), why);
        }
    }
}

fn parameter(
    endpoint: &Endpoint,
    name: &str,
    raw_value: &str,
    request: &mut DynamicMessage,
    given: &mut Vec<Vec<u32>>,
) -> Result<(), String> {
    let fields = resolve(endpoint, name)?;
    let leaf = fields.last().expect("a name has at least one part");
    let value = decode_query(raw_value)?;
    let numbers: Vec<u32> = fields.iter().map(FieldDescriptor::number).collect();
    if !leaf.is_list() && given.contains(&numbers) {
        return Err("given more than once, but it takes one value".to_owned());
    }
    let value = from_text(leaf, &value)?;
    let target = descend(request, &fields[..fields.len() - 1]);
    if leaf.is_list() {
        let list = target.get_field_mut(leaf).as_list_mut();
        list.expect("a repeated field holds a list").push(value);
    } else {
        let rival = leaf
            .containing_oneof()
            .and_then(|oneof| read::rival(target, &oneof));
        if let Some(rival) = rival {
            return Err(format!("only one of it and `{rival}` may be given"));
        }
        target.set_field(leaf, value);
    }
    given.push(numbers);
    Ok(())
}

/// Reads one value of a field from text.
pub(crate) fn from_text(field: &FieldDescriptor, text: &str) -> Result<Value, String> {
    match field.kind() {
        Kind::Message(desc) => match field::well_known(&desc) {
            Some(known) => well_known::from_text(known, &desc, text).map(Value::Message),
            None => Err("cannot be written as text".to_owned()),
        },
        kind => scalar::from_text(&kind, text),
    }
}

/// The message that the last of these fields belongs to, made where it is absent.
pub(crate) fn descend<'a>(
    request: &'a mut DynamicMessage,
    fields: &[FieldDescriptor],
) -> &'a mut DynamicMessage {
    fields.iter().fold(request, |message, field| {
        let value = message.get_field_mut(field);
        value
            .as_message_mut()
            .expect("every field but the last is a single message")
    })
}

/// The fields from the request down to the one that a parameter names.
fn resolve(endpoint: &Endpoint, name: &str) -> Result<Vec<FieldDescriptor>, String> {
    const UNKNOWN: &str = "no such query parameter";
    let mut message = endpoint.input.clone();
    let mut fields: Vec<FieldDescriptor> = Vec::new();
    let parts: Vec<&str> = name.split('.').collect();
    for (i, part) in parts.iter().enumerate() {
        let field = field::named(&message, part).ok_or(UNKNOWN)?;
        if i + 1 < parts.len() {
            let kind = field.kind();
            let inner = kind
                .as_message()
                .filter(|_| !field.is_list() && !field.is_map());
            message = inner
                .filter(|m| field::well_known(m).is_none())
                .ok_or(UNKNOWN)?
                .clone();
        }
        fields.push(field);
    }
    match &endpoint.body {
        Body::Whole => return Err(UNKNOWN.to_owned()),
        Body::Field(body) if *body == fields[0] => {
            return Err("belongs to the body, not to the query".to_owned());
        }
        Body::Field(_) | Body::None => {}
    }
    if endpoint.bound.iter().any(|bound| bound.fields == fields) {
        return Err("is part of the path and cannot be given again".to_owned());
    }
    if !field::is_text(fields.last().expect("a split yields at least one part")) {
        return Err(format!(
            "{UNKNOWN}; name one of its fields, as in `{}.field`",
            clip(name)
        ));
    }
    Ok(fields)
}

/// Writes the values of the path's variables into the request; a body that names the same field must agree.
pub(crate) fn bind_path(
    endpoint: &Endpoint,
    captures: &[String],
    request: &mut DynamicMessage,
    violations: &mut Violations,
) {
    for (bound, text) in endpoint.bound.iter().zip(captures) {
        let (leaf, parents) = bound
            .fields
            .split_last()
            .expect("a path has at least one field");
        let value = match from_text(leaf, text) {
            Ok(value) => value,
            Err(why) => {
                violations.push(bound.path(), why);
                continue;
            }
        };
        let target = descend(request, parents);
        if target.has_field(leaf) && *target.get_field(leaf) != value {
            let path = BadRequest::new(bound.path(), "differs from what the path says");
            violations.extend(path);
            continue;
        }
        target.set_field(leaf, value);
    }
}
