//! One operation: its parameters, its body and its answers.

use prost_reflect::{FieldDescriptor, MessageDescriptor};
use serde_json::{Value, json};

use super::{
    Object, Settings,
    schemas::{Schemas, Way, refuse_empty, text_schema},
};
use crate::{Endpoint, Payload, field, request::mask_field, schema::Body};

/// How deep query parameters of nested messages are listed; deeper ones work all the same.
const QUERY_DEPTH_MAX: usize = 3;

/// What the path variables are called: the leaf's name, or the whole path where two leaves share it.
pub(super) fn path_names(endpoint: &Endpoint) -> Vec<String> {
    let leaf = |fields: &[FieldDescriptor]| {
        fields
            .last()
            .map(|field| field.json_name().to_owned())
            .unwrap_or_default()
    };
    let leaves: Vec<_> = endpoint
        .bound
        .iter()
        .map(|bound| leaf(&bound.fields))
        .collect();
    let name = |(i, name): (usize, &String)| {
        let shared = leaves.iter().filter(|other| *other == name).count() > 1;
        if shared {
            endpoint.bound[i].variable.field.join("_")
        } else {
            name.clone()
        }
    };
    leaves.iter().enumerate().map(name).collect()
}

/// The operation object of an endpoint.
pub(super) fn describe(
    endpoint: &Endpoint,
    path_names: &[String],
    id: &str,
    tag: &str,
    schemas: &mut Schemas<'_>,
    settings: &Settings<'_>,
) -> Value {
    let rpc = endpoint.rpc();
    let mut parameters = path_parameters(endpoint, path_names, schemas);
    query_parameters(endpoint, schemas, &mut parameters);
    header_parameters(endpoint, &mut parameters);
    let mut operation = Object::new();
    operation.insert("operationId".to_owned(), id.into());
    operation.insert("tags".to_owned(), json!([tag]));
    operation.insert("summary".to_owned(), rpc.summary().into());
    operation.insert("description".to_owned(), rpc.comment().into());
    if !parameters.is_empty() {
        operation.insert("parameters".to_owned(), parameters.into());
    }
    if let Some(body) = request_body(endpoint, schemas) {
        operation.insert("requestBody".to_owned(), body);
    }
    operation.insert(
        "responses".to_owned(),
        json!({
            "200": answer(endpoint, schemas),
            "default": {"$ref": "#/components/responses/Error"},
        }),
    );
    operation.insert("security".to_owned(), (settings.security)(rpc));
    operation.into()
}

/// The response that every operation may give instead of its own.
pub(super) fn error_response() -> Value {
    json!({
        "description": "The request failed; the HTTP status follows the code.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Status"}}},
    })
}

fn parameter(name: &str, place: &str, mut schema: Object, required: bool) -> Value {
    let description = schema.remove("description");
    let mut parameter = Object::new();
    parameter.insert("name".to_owned(), name.into());
    parameter.insert("in".to_owned(), place.into());
    parameter.extend(description.map(|text| ("description".to_owned(), text)));
    if required {
        parameter.insert("required".to_owned(), true.into());
    }
    parameter.insert("schema".to_owned(), schema.into());
    parameter.into()
}

/// The schema of a field as a parameter, with its comment.
fn as_text(field: &FieldDescriptor, schemas: &mut Schemas<'_>) -> Object {
    let text = text_schema(field);
    let text = if field.is_list() {
        json!({"type": "array", "items": text})
    } else {
        text
    };
    let mut schema = schemas.field(field, Way::In);
    schema.retain(|key, _| !matches!(key.as_str(), "type" | "pattern" | "items" | "anyOf"));
    schema.extend(text.as_object().cloned().unwrap_or_default());
    schema
}

fn path_parameters(endpoint: &Endpoint, names: &[String], schemas: &mut Schemas<'_>) -> Vec<Value> {
    let described = |(bound, name): (&crate::schema::Bound, &String)| {
        let leaf = bound
            .fields
            .last()
            .expect("a variable names at least one field");
        let mut schema = as_text(leaf, schemas);
        refuse_empty(&mut schema);
        parameter(name, "path", schema, true)
    };
    endpoint.bound.iter().zip(names).map(described).collect()
}

fn query_parameters(endpoint: &Endpoint, schemas: &mut Schemas<'_>, out: &mut Vec<Value>) {
    if matches!(endpoint.body, Body::Whole) {
        return;
    }
    let mut fields = Vec::new();
    leaves(endpoint, &endpoint.input, &mut Vec::new(), &mut fields);
    for path in fields {
        let leaf = path.last().expect("a parameter names at least one field");
        let names: Vec<_> = path.iter().map(FieldDescriptor::json_name).collect();
        let required = path.iter().all(|field| field::behavior(field).required);
        let mut schema = as_text(leaf, schemas);
        if required {
            refuse_empty(&mut schema);
        }
        out.push(parameter(&names.join("."), "query", schema, required));
    }
}

/// The fields that can be query parameters, each as the path that leads to it.
fn leaves(
    endpoint: &Endpoint,
    message: &MessageDescriptor,
    above: &mut Vec<FieldDescriptor>,
    out: &mut Vec<Vec<FieldDescriptor>>,
) {
    for field in message.fields() {
        let in_body =
            matches!(&endpoint.body, Body::Field(body) if *body == field && above.is_empty());
        above.push(field.clone());
        let in_path = endpoint.bound.iter().any(|bound| bound.fields == *above);
        if in_body || in_path {
            // Filled already.
        } else if field::is_text(&field) {
            out.push(above.clone());
        } else if let Some(inner) = field.kind().as_message()
            && !field.is_list()
            && !field.is_map()
            && field::well_known(inner).is_none()
            && above.len() < QUERY_DEPTH_MAX
        {
            leaves(endpoint, inner, above, out);
        }
        above.pop();
    }
}

fn header_parameters(endpoint: &Endpoint, out: &mut Vec<Value>) {
    if endpoint.has_field("request_id") {
        out.push(json!({
            "name": "Idempotency-Key",
            "in": "header",
            "description": "The caller's key for this command: the same request with the same key is \
                carried out once and gets the same answer again. The same as `requestId`.",
            "schema": {"type": "string", "pattern": "^[!-~]{1,200}$"},
        }));
    }
    if endpoint.takes_etag() {
        out.push(json!({
            "name": "If-Match",
            "in": "header",
            "description": "The `etag` last seen, in double quotes; if the resource has changed since, \
                nothing is done and the answer is 412. `*` for any. The same as `etag`.",
            "schema": {"type": "string", "pattern": "^(\\*|\"[!#-~]{1,200}\")$"},
        }));
    }
}

fn request_body(endpoint: &Endpoint, schemas: &mut Schemas<'_>) -> Option<Value> {
    let (schema, required) = match (&endpoint.body, endpoint.request_payload()) {
        (_, Payload::None) | (Body::None, _) => return None,
        (_, Payload::Raw) => {
            let schema = json!({"type": "string", "format": "binary"});
            let content = json!({"application/octet-stream": {"schema": schema}});
            return Some(json!({
                "description": "The bytes, passed on as they are with their media type.",
                "content": content,
                "required": true,
            }));
        }
        (Body::Whole, Payload::Json) => {
            let keep = |field: &FieldDescriptor| {
                !endpoint
                    .bound
                    .iter()
                    .any(|bound| bound.fields == [field.clone()])
            };
            let required = endpoint
                .input
                .fields()
                .any(|f| keep(&f) && field::behavior(&f).required);
            let schema = if endpoint.bound.is_empty() {
                schemas.message(&endpoint.input, Way::In)
            } else {
                schemas.object(&endpoint.input, Way::In, &keep, true)
            };
            (schema, required)
        }
        (Body::Field(field), Payload::Json) => (
            body_field(endpoint, field, schemas),
            field::behavior(field).required,
        ),
    };
    Some(json!({"content": {"application/json": {"schema": schema}}, "required": required}))
}

/// The schema of a body that fills one field. Fields of it that the path fills are left out, and a PATCH
/// requires none: it changes what it names.
fn body_field(endpoint: &Endpoint, body: &FieldDescriptor, schemas: &mut Schemas<'_>) -> Value {
    let partial = mask_field(endpoint).is_some();
    let bound_below = |field: &FieldDescriptor| {
        endpoint
            .bound
            .iter()
            .any(|bound| bound.fields == [body.clone(), field.clone()])
    };
    let kind = body.kind();
    let message = kind
        .as_message()
        .filter(|m| !body.is_list() && field::well_known(m).is_none());
    match message {
        Some(message) if partial || message.fields().any(|field| bound_below(&field)) => {
            schemas.object(message, Way::In, &|field| !bound_below(field), !partial)
        }
        _ => schemas.field(body, Way::In).into(),
    }
}

fn answer(endpoint: &Endpoint, schemas: &mut Schemas<'_>) -> Value {
    if endpoint.response_payload() == Payload::Raw {
        let schema = json!({"type": "string", "format": "binary"});
        return json!({"description": "The bytes.", "content": {"*/*": {"schema": schema}}});
    }
    let schema = match &endpoint.response_field {
        None => schemas.message(&endpoint.output, Way::Out),
        Some(field) => schemas.field(field, Way::Out).into(),
    };
    if endpoint.rpc().server_streaming() {
        return json!({
            "description": "One JSON value after another: a line each, or an event each. A WebSocket \
                upgrade of the same path gets a text message each.",
            "content": {
                "application/x-ndjson": {"schema": schema},
                "text/event-stream": {"schema": schema},
            },
        });
    }
    let description = match &endpoint.response_field {
        Some(field) => schemas.field(field, Way::Out).get("description").cloned(),
        None => None,
    };
    json!({
        "description": description.unwrap_or_else(|| "Done.".into()),
        "content": {"application/json": {"schema": schema}},
    })
}
