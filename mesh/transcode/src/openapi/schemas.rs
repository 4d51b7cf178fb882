//! JSON Schema of messages and fields, apart for what is read and what is written.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Value, json};

use super::{Object, Settings};
use crate::{
    Schema,
    field::{self, WellKnown},
    json::scalar,
};

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// Read from a client.
    In,
    /// Written to a client.
    Out,
}

/// The component schemas that the operations refer to, collected as they are named.
pub(super) struct Schemas<'a> {
    contract: &'a Schema,
    settings: &'a Settings<'a>,
    /// Short names that more than one message has; those go by their full name.
    shared: BTreeSet<String>,
    done: BTreeMap<String, Value>,
}

impl<'a> Schemas<'a> {
    pub(super) fn new(contract: &'a Schema, settings: &'a Settings<'a>) -> Self {
        let mut seen = BTreeSet::new();
        let mut shared = BTreeSet::from(["Status".to_owned()]);
        for message in contract.pool().all_messages() {
            let name = short_name(&message);
            if !seen.insert(name.clone()) {
                shared.insert(name);
            }
        }
        Self {
            contract,
            settings,
            shared,
            done: BTreeMap::new(),
        }
    }

    /// All components, by name.
    pub(super) fn finish(mut self) -> Value {
        self.done.insert("Status".to_owned(), status());
        self.done.into_iter().collect::<Object>().into()
    }

    /// A reference to the schema of a message, which is described where that is still to be done.
    pub(super) fn message(&mut self, message: &MessageDescriptor, way: Way) -> Value {
        if let Some(known) = field::well_known(message) {
            return well_known(known, message, way);
        }
        let name = self.name(message, way);
        if !self.done.contains_key(&name) {
            self.done.insert(name.clone(), Value::Null); // Ends the recursion of recursive messages.
            let schema = self.object(message, way, &|_| true, true);
            self.done.insert(name.clone(), schema);
        }
        json!({"$ref": format!("#/components/schemas/{name}")})
    }

    /// The schema of a message in place, with the fields that `keep` lets through.
    pub(super) fn object(
        &mut self,
        message: &MessageDescriptor,
        way: Way,
        keep: &dyn Fn(&FieldDescriptor) -> bool,
        with_required: bool,
    ) -> Value {
        let mut properties = Object::new();
        let mut required = Vec::new();
        for field in message.fields().filter(|field| keep(field)) {
            let behavior = field::behavior(&field);
            let hidden = match way {
                Way::In => behavior.output_only,
                Way::Out => behavior.input_only && field.supports_presence(),
            };
            if hidden {
                continue;
            }
            let mut schema = self.field(&field, way);
            match way {
                Way::In if behavior.input_only => {
                    schema.insert("writeOnly".to_owned(), true.into())
                }
                Way::Out if behavior.output_only => {
                    schema.insert("readOnly".to_owned(), true.into())
                }
                Way::In | Way::Out => None,
            };
            let always = match way {
                Way::In => behavior.required && with_required,
                Way::Out => !field.supports_presence(),
            };
            if always {
                required.push(Value::from(field.json_name()));
            }
            match way {
                Way::In if behavior.required => refuse_empty(&mut schema),
                Way::In => allow_null(&mut schema),
                Way::Out => {}
            }
            properties.insert(field.json_name().to_owned(), schema.into());
        }
        let mut schema = Object::new();
        schema.insert("type".to_owned(), "object".into());
        self.describe(&mut schema, message.parent_file().name(), message.path());
        schema.insert("properties".to_owned(), properties.into());
        if !required.is_empty() {
            schema.insert("required".to_owned(), required.into());
        }
        if way == Way::In {
            schema.insert("additionalProperties".to_owned(), false.into());
        }
        schema.into()
    }

    /// The schema of a field with its comment: a list, a map or a single value.
    pub(super) fn field(&mut self, field: &FieldDescriptor, way: Way) -> Object {
        let kind = field.kind();
        let mut schema = if field.is_map() {
            let entry = kind
                .as_message()
                .expect("a map is a list of entry messages");
            let values = self.kind(&entry.map_entry_value_field().kind(), way);
            json!({"type": "object", "additionalProperties": values})
        } else if field.is_list() {
            json!({"type": "array", "items": self.kind(&kind, way)})
        } else {
            self.kind(&kind, way)
        };
        let schema = schema
            .as_object_mut()
            .map(std::mem::take)
            .unwrap_or_default();
        let mut schema = Object::from_iter(schema);
        self.describe(&mut schema, field.parent_file().name(), field.path());
        (self.settings.refine)(field.full_name(), &mut schema);
        schema
    }

    fn kind(&mut self, kind: &Kind, way: Way) -> Value {
        match kind {
            Kind::Message(message) => self.message(message, way),
            kind => scalar_schema(kind, way),
        }
    }

    fn describe(&self, schema: &mut Object, file: &str, path: &[i32]) {
        let comment = self.contract.comment(file, path);
        if !comment.is_empty() {
            schema.insert("description".to_owned(), comment.into());
        }
    }

    fn name(&self, message: &MessageDescriptor, way: Way) -> String {
        let short = short_name(message);
        let name = if self.shared.contains(&short) {
            message.full_name().to_owned()
        } else {
            short
        };
        match way {
            Way::Out => name,
            Way::In => format!("{name}Input"),
        }
    }
}

/// The name without its package; nested ones keep their parents.
fn short_name(message: &MessageDescriptor) -> String {
    let full = message.full_name();
    let package = message.package_name();
    full.strip_prefix(package)
        .unwrap_or(full)
        .trim_start_matches('.')
        .to_owned()
}

/// Without presence an empty text or list is an absent one, which a required field must not be.
pub(super) fn refuse_empty(schema: &mut Object) {
    let limit = match schema.get("type").and_then(Value::as_str) {
        Some("string") => "minLength",
        Some("array") => "minItems",
        _ => return,
    };
    if !schema.contains_key("format") && !schema.contains_key("enum") {
        schema.entry(limit).or_insert_with(|| 1.into());
    }
}

/// Makes `null` another way to leave a value out.
fn allow_null(schema: &mut Object) {
    if let Some(reference) = schema.remove("$ref") {
        schema.insert(
            "anyOf".to_owned(),
            json!([{"$ref": reference}, {"type": "null"}]),
        );
        return;
    }
    match schema.get_mut("type") {
        Some(Value::Array(types)) if !types.contains(&"null".into()) => types.push("null".into()),
        Some(one @ Value::String(_)) => *one = json!([one.take(), "null"]),
        _ => return,
    }
    if let Some(Value::Array(names)) = schema.get_mut("enum") {
        names.push(Value::Null);
    }
}

/// The schema of a scalar or an enum.
fn scalar_schema(kind: &Kind, way: Way) -> Value {
    match kind {
        Kind::Bool => json!({"type": "boolean"}),
        Kind::String => json!({"type": "string"}),
        Kind::Bytes => json!({
            "type": "string",
            "contentEncoding": "base64",
            "pattern": "^(?:[A-Za-z0-9+/_-]{4})*(?:[A-Za-z0-9+/_-]{2}(?:==)?|[A-Za-z0-9+/_-]{3}=?)?$",
        }),
        Kind::Enum(desc) => enumeration(desc),
        Kind::Float | Kind::Double => floating(kind, way),
        kind => integer(kind, way),
    }
}

fn enumeration(desc: &EnumDescriptor) -> Value {
    if scalar::is_null_value(desc) {
        return json!({"type": "null"});
    }
    let names: Vec<_> = desc.values().map(|value| value.name().to_owned()).collect();
    json!({"type": "string", "enum": names})
}

fn floating(kind: &Kind, way: Way) -> Value {
    let format = if *kind == Kind::Float {
        "float"
    } else {
        "double"
    };
    let special = json!({"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]});
    let number = match (kind, way) {
        (Kind::Float, Way::In) => json!({
            "type": "number", "format": format, "minimum": f64::from(f32::MIN), "maximum": f64::from(f32::MAX),
        }),
        _ => json!({"type": "number", "format": format}),
    };
    match way {
        Way::Out => json!({"anyOf": [number, special]}),
        Way::In => {
            let text = json!({"type": "string", "pattern": "^-?[0-9]{1,15}(\\.[0-9]{1,15})?$"});
            json!({"anyOf": [number, text, special]})
        }
    }
}

/// 64-bit integers are written as text; all of them are read as numbers and as text.
fn integer(kind: &Kind, way: Way) -> Value {
    let (min, max) = scalar::integer_range(kind).expect("every other kind is an integer");
    let wide = max > i128::from(u32::MAX);
    let format = match (wide, min < 0) {
        (true, true) => "int64",
        (true, false) => "uint64",
        (false, true) => "int32",
        (false, false) => "uint32",
    };
    let sign = if min < 0 { "-?" } else { "" };
    // All digits that fit whatever they are; the few longer numbers that fit too are read as well.
    let digits = max.to_string().len() - 1;
    let pattern = format!("^{sign}[0-9]{{1,{digits}}}$");
    match way {
        Way::Out if wide => {
            json!({"type": "string", "format": format, "pattern": format!("^{sign}[0-9]+$")})
        }
        Way::Out => {
            json!({"type": "integer", "format": format, "minimum": bound(min), "maximum": bound(max)})
        }
        Way::In => {
            let types = if wide {
                ["string", "integer"]
            } else {
                ["integer", "string"]
            };
            json!({
                "type": types,
                "format": format,
                "minimum": bound(min),
                "maximum": bound(max),
                "pattern": pattern,
            })
        }
    }
}

fn bound(value: i128) -> Value {
    match (i64::try_from(value), u64::try_from(value)) {
        (Ok(value), _) => value.into(),
        (_, Ok(value)) => value.into(),
        _ => Value::Null,
    }
}

/// The schema of one value as a path variable or a query parameter: text, so neither null nor a choice.
pub(super) fn text_schema(field: &FieldDescriptor) -> Value {
    match field.kind() {
        Kind::Message(message) => match field::well_known(&message) {
            Some(WellKnown::Wrapper) => {
                let value = message
                    .get_field(1)
                    .expect("a wrapper has the field `value`");
                text_schema(&value)
            }
            Some(known) => well_known(known, &message, Way::In),
            None => json!({"type": "string"}),
        },
        Kind::Float | Kind::Double => json!({"type": "number"}),
        kind => {
            let mut schema = scalar_schema(&kind, Way::In);
            if scalar::integer_range(&kind).is_some() {
                schema["type"] = "integer".into();
                if let Some(schema) = schema.as_object_mut() {
                    schema.remove("pattern");
                }
            }
            schema
        }
    }
}

fn well_known(known: WellKnown, message: &MessageDescriptor, way: Way) -> Value {
    match known {
        WellKnown::Timestamp => json!({"type": "string", "format": "date-time"}),
        WellKnown::Duration => {
            json!({"type": "string", "pattern": "^-?[0-9]{1,11}(\\.[0-9]{1,9})?s$", "examples": ["1.5s"]})
        }
        WellKnown::FieldMask => json!({
            "type": "string",
            "pattern": "^([A-Za-z0-9_]+([.,][A-Za-z0-9_]+)*)?$",
            "examples": ["title,variants"],
        }),
        WellKnown::Wrapper => {
            let value = message
                .get_field(1)
                .expect("a wrapper has the field `value`");
            scalar_schema(&value.kind(), way)
        }
        WellKnown::Struct => json!({"type": "object", "additionalProperties": true}),
        WellKnown::ListValue => json!({"type": "array", "items": {}}),
        WellKnown::Value => json!({}),
        WellKnown::Empty => json!({"type": "object", "additionalProperties": false}),
        WellKnown::Any => any(),
    }
}

fn any() -> Value {
    json!({
        "type": "object",
        "required": ["@type"],
        "properties": {"@type": {"type": "string"}},
        "additionalProperties": true,
    })
}

/// `google.rpc.Status`.
fn status() -> Value {
    json!({
        "type": "object",
        "description": "An error (google.rpc.Status).",
        "required": ["code", "status", "message", "details"],
        "properties": {
            "code": {
                "type": "integer",
                "minimum": 1,
                "maximum": 16,
                "description": "The gRPC status code.",
            },
            "status": {"type": "string", "description": "Its name, such as `INVALID_ARGUMENT`."},
            "message": {"type": "string", "description": "What went wrong, for people."},
            "details": {
                "type": "array",
                "items": any(),
                "description": "What went wrong, for programs: google.rpc.ErrorInfo with a `reason`, \
                    google.rpc.BadRequest with the fields at fault, google.rpc.RetryInfo, and others.",
            },
        },
    })
}
