//! Path, query and body of an HTTP request to the protobuf bytes of an RPC's request.

use bytes::{BufMut, Bytes, BytesMut};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, ReflectMessage, Value};

use crate::{
    error::{BadRequest, Violations},
    field,
    json::{
        Path,
        read::Reader,
        tree::{self, Node},
        well_known,
    },
    query,
    router::Match,
    schema::{Body, Endpoint, Payload},
};

/// How much of a JSON body is read.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest JSON body, in bytes.
    pub body_bytes_max: usize,
    /// The deepest nesting of arrays and objects; at most 120 whatever is set.
    pub depth_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 1024 * 1024,
            depth_max: 32,
        }
    }
}

/// The body of an HTTP request.
#[derive(Debug, Clone, Copy)]
pub enum RequestBody<'a> {
    /// None, or one of no bytes.
    Empty,
    /// JSON text.
    Json(&'a [u8]),
    /// The first, or only, piece of a body that goes through as it is.
    Raw {
        /// The media type.
        content_type: &'a str,
        /// The bytes.
        data: &'a [u8],
    },
}

/// The request of an RPC, complete and still open to what the edge adds.
#[derive(Debug, Clone)]
pub struct Request {
    message: DynamicMessage,
    etag: Option<Vec<FieldDescriptor>>,
}

impl Match {
    /// Reads a request: path variables, query string (without `?`) and body.
    pub fn request(
        &self,
        query: Option<&str>,
        body: RequestBody<'_>,
        limits: &Limits,
    ) -> Result<Request, BadRequest> {
        let endpoint = &*self.endpoint;
        let mut violations = Violations::default();
        let mut message = DynamicMessage::new(endpoint.input.clone());
        let mut named = Vec::new();
        match body {
            RequestBody::Empty => {}
            RequestBody::Json(text) => {
                let json = JsonBody {
                    text,
                    limits,
                    named: &mut named,
                };
                json.read(endpoint, &mut message, &mut violations)?;
            }
            RequestBody::Raw { content_type, data } => {
                raw_body(endpoint, &mut message, content_type, data, &mut violations);
            }
        }
        query::bind_path(endpoint, &self.captures, &mut message, &mut violations);
        query::read(
            endpoint,
            query.unwrap_or_default(),
            &mut message,
            &mut violations,
        );
        infer_mask(endpoint, &mut message, &named);
        violations.or(Request {
            message,
            etag: endpoint.etag_field(),
        })
    }
}

impl Endpoint {
    /// A further message of a client stream: nothing but bytes of the raw body.
    ///
    /// Empty where the endpoint has no raw body.
    pub fn chunk(&self, data: &[u8]) -> Bytes {
        /// `google.api.HttpBody.data`.
        const DATA: u32 = 2;
        if self.request_payload() != Payload::Raw {
            return Bytes::new();
        }
        let data_len = data.len() as u64;
        let inner = key_len(DATA) + encoded_len_varint(data_len) + data.len();
        let mut out = BytesMut::with_capacity(inner + 16);
        if let Body::Field(field) = &self.body {
            encode_key(field.number(), WireType::LengthDelimited, &mut out);
            encode_varint(inner as u64, &mut out);
        }
        encode_key(DATA, WireType::LengthDelimited, &mut out);
        encode_varint(data_len, &mut out);
        out.put_slice(data);
        out.freeze()
    }
}

impl Request {
    /// The text of a top-level string field; `None` where there is no such field or it is empty.
    pub fn text(&self, field: &str) -> Option<String> {
        let value = self.message.get_field_by_name(field)?;
        value
            .as_str()
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    }

    /// Fills a top-level string field; whether there is one.
    pub fn set_text(&mut self, field: &str, text: &str) -> bool {
        self.message
            .try_set_field_by_name(field, Value::String(text.to_owned()))
            .is_ok()
    }

    /// Whether a top-level field of this name is set.
    pub fn is_set(&self, field: &str) -> bool {
        self.message.has_field_by_name(field)
    }

    /// Fills a top-level field of any kind that can be written as text.
    pub fn set_from_text(&mut self, field: &str, text: &str) -> Result<(), BadRequest> {
        let Some(desc) = self.message.descriptor().get_field_by_name(field) else {
            return Err(BadRequest::new(field, "no such field"));
        };
        let value = query::from_text(&desc, text).map_err(|why| BadRequest::new(field, why))?;
        self.message.set_field(&desc, value);
        Ok(())
    }

    /// The etag that the request carries; `None` where it carries none or it is empty.
    pub fn etag(&self) -> Option<String> {
        let (leaf, parents) = self.etag.as_deref()?.split_last()?;
        let mut message = self.message.clone();
        for field in parents {
            message = message.get_field(field).as_message()?.clone();
        }
        let value = message.get_field(leaf);
        value
            .as_str()
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    }

    /// Sets the etag, in the request or in the resource that it carries; whether it takes one.
    pub fn set_etag(&mut self, etag: &str) -> bool {
        let Some((leaf, parents)) = self.etag.as_deref().and_then(<[_]>::split_last) else {
            return false;
        };
        let target = query::descend(&mut self.message, parents);
        target.set_field(leaf, Value::String(etag.to_owned()));
        true
    }

    /// The request as it goes over the wire.
    pub fn encode(&self) -> Bytes {
        self.message.encode_to_vec().into()
    }
}

struct JsonBody<'a> {
    text: &'a [u8],
    limits: &'a Limits,
    /// The members of the outermost object, for the mask of a PATCH.
    named: &'a mut Vec<String>,
}

impl JsonBody<'_> {
    fn read(
        self,
        endpoint: &Endpoint,
        request: &mut DynamicMessage,
        violations: &mut Violations,
    ) -> Result<(), BadRequest> {
        if self.text.is_empty() {
            return Ok(());
        }
        let bytes_max = self.limits.body_bytes_max;
        if self.text.len() > bytes_max {
            return Err(BadRequest::new(
                "body",
                format!("longer than {bytes_max} bytes"),
            ));
        }
        let node = tree::parse(self.text, self.limits.depth_max)?;
        if let Node::Object(members) = &node {
            self.named
                .extend(members.iter().map(|(name, _)| name.clone()));
        }
        let mut reader = Reader { violations };
        match &endpoint.body {
            Body::None => return Err(BadRequest::new("body", "this request takes no body")),
            Body::Whole => {
                if let Some(message) = reader.any_message(&endpoint.input, node, Path::Root) {
                    *request = message;
                }
            }
            Body::Field(field) => {
                if let Some(value) = reader.field(field, node, Path::Root.field(field.name())) {
                    request.set_field(field, value);
                }
            }
        }
        Ok(())
    }
}

fn raw_body(
    endpoint: &Endpoint,
    request: &mut DynamicMessage,
    content_type: &str,
    data: &[u8],
    violations: &mut Violations,
) {
    if endpoint.request_payload() != Payload::Raw {
        violations.push("body", "this request takes no raw body");
        return;
    }
    let target = match &endpoint.body {
        Body::Field(field) => query::descend(request, std::slice::from_ref(field)),
        Body::Whole | Body::None => request,
    };
    target.set_field_by_name("content_type", Value::String(content_type.to_owned()));
    target.set_field_by_name("data", Value::Bytes(Bytes::copy_from_slice(data)));
}

/// A PATCH without a mask changes the fields that its body names (AIP-134), except those that say which
/// resource and version is meant and those that only the service sets.
fn infer_mask(endpoint: &Endpoint, request: &mut DynamicMessage, named: &[String]) {
    const NOT_CHANGED: [&str; 3] = ["id", "name", "etag"];
    let Some(mask) = mask_field(endpoint) else {
        return;
    };
    let Body::Field(body) = &endpoint.body else {
        return;
    };
    let kind = body.kind();
    let Some(resource) = kind.as_message() else {
        return;
    };
    if request.has_field(&mask) {
        return;
    }
    let mut fields: Vec<_> = named
        .iter()
        .filter_map(|n| field::named(resource, n))
        .collect();
    fields.retain(|f| !NOT_CHANGED.contains(&f.name()) && !field::behavior(f).output_only);
    fields.sort_by_key(FieldDescriptor::number);
    fields.dedup();
    let paths = fields.iter().map(|field| field.name().to_owned()).collect();
    let kind = mask.kind();
    let desc = kind.as_message().expect("a mask field holds a FieldMask");
    request.set_field(&mask, Value::Message(well_known::mask_of(desc, paths)));
}

/// The field `update_mask` of a PATCH, if its request has one.
pub(crate) fn mask_field(endpoint: &Endpoint) -> Option<FieldDescriptor> {
    let field = endpoint.input.get_field_by_name("update_mask")?;
    let is_mask = match field.kind() {
        Kind::Message(desc) => field::well_known(&desc) == Some(field::WellKnown::FieldMask),
        _ => false,
    };
    (is_mask && !field.is_list() && endpoint.verb() == "PATCH").then_some(field)
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
