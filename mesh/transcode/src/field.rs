//! What kind of value a field holds, as JSON and as text.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

/// The messages of `google.protobuf` whose JSON is not an object of their fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WellKnown {
    Timestamp,
    Duration,
    FieldMask,
    /// One of the nine wrappers: JSON is that of its `value`.
    Wrapper,
    Struct,
    Value,
    ListValue,
    Any,
    Empty,
}

/// The well-known type that a message is, if it is one.
pub(crate) fn well_known(message: &MessageDescriptor) -> Option<WellKnown> {
    Some(
        match message.full_name().strip_prefix("google.protobuf.")? {
            "Timestamp" => WellKnown::Timestamp,
            "Duration" => WellKnown::Duration,
            "FieldMask" => WellKnown::FieldMask,
            "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value"
            | "UInt32Value" | "BoolValue" | "StringValue" | "BytesValue" => WellKnown::Wrapper,
            "Struct" => WellKnown::Struct,
            "Value" => WellKnown::Value,
            "ListValue" => WellKnown::ListValue,
            "Any" => WellKnown::Any,
            "Empty" => WellKnown::Empty,
            _ => return None,
        },
    )
}

/// Whether a message is `google.api.HttpBody`.
pub(crate) fn is_http_body(message: &MessageDescriptor) -> bool {
    message.full_name() == "google.api.HttpBody"
}

/// Whether one value of the field can be written as text: in a path or as a query parameter.
pub(crate) fn is_text(field: &FieldDescriptor) -> bool {
    match field.kind() {
        Kind::Message(message) => matches!(
            well_known(&message),
            Some(
                WellKnown::Timestamp
                    | WellKnown::Duration
                    | WellKnown::FieldMask
                    | WellKnown::Wrapper
            )
        ),
        _ => !field.is_map(),
    }
}

/// The field that a client means: by lowerCamelCase name or by its original one.
pub(crate) fn named(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message
        .get_field_by_json_name(name)
        .or_else(|| message.get_field_by_name(name))
}

/// The behaviours of AIP-203 that the contract gives a field.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Behavior {
    pub(crate) required: bool,
    pub(crate) output_only: bool,
    pub(crate) input_only: bool,
}

/// Reads `google.api.field_behavior`.
pub(crate) fn behavior(field: &FieldDescriptor) -> Behavior {
    use mesh_proto::google_api::FieldBehavior;
    let mut behavior = Behavior::default();
    let extension = field
        .parent_pool()
        .get_extension_by_name("google.api.field_behavior");
    let Some(extension) = extension else {
        return behavior;
    };
    let options = field.options();
    for value in options
        .get_extension(&extension)
        .as_list()
        .unwrap_or_default()
    {
        let number = value.as_enum_number().unwrap_or_default();
        match FieldBehavior::try_from(number) {
            Ok(FieldBehavior::Required) => behavior.required = true,
            Ok(FieldBehavior::OutputOnly) => behavior.output_only = true,
            Ok(FieldBehavior::InputOnly) => behavior.input_only = true,
            _ => {}
        }
    }
    behavior
}

/// `unit_price` as `unitPrice`: the rule of protobuf's default JSON names.
pub(crate) fn lower_camel(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut upper = false;
    for c in name.chars() {
        if c == '_' {
            upper = true;
        } else if upper {
            out.push(c.to_ascii_uppercase());
            upper = false;
        } else {
            out.push(c);
        }
    }
    out
}

/// `unitPrice` as `unit_price`; a name without capitals stays as it is.
pub(crate) fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
            out.push(c.to_ascii_lowercase());
        } else {
            out.push(c);
        }
    }
    out
}
