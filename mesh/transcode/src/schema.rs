//! The contract: descriptors with their comments, and the HTTP rules bound to the methods they sit on.
//!
//! Everything that can be wrong with a rule is found here, once, before anything is served. It is one file, because a
//! rule is checked against the descriptors while these are read.

use std::{collections::HashMap, sync::Arc};

use mesh_proto::google_api::{HttpRule, http_rule::Pattern};
use prost_reflect::{
    DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, Value,
};

use crate::{
    error::SchemaError,
    field,
    template::{Template, Variable},
};

/// A contract: all messages and services of a descriptor set, with comments.
#[derive(Debug, Clone)]
pub struct Schema {
    pool: DescriptorPool,
    comments: Arc<HashMap<(String, Vec<i32>), String>>,
}

impl Schema {
    /// Reads an encoded `google.protobuf.FileDescriptorSet`, options and source information included.
    pub fn decode(descriptor_set: &[u8]) -> Result<Self, SchemaError> {
        let pool = DescriptorPool::decode(descriptor_set).map_err(SchemaError::Descriptors)?;
        let mut comments = HashMap::new();
        for file in pool.file_descriptor_protos() {
            for location in file.source_code_info.iter().flat_map(|info| &info.location) {
                if let Some(text) = &location.leading_comments {
                    comments.insert((file.name().to_owned(), location.path.clone()), tidy(text));
                }
            }
        }
        Ok(Self {
            pool,
            comments: Arc::new(comments),
        })
    }

    pub(crate) fn pool(&self) -> &DescriptorPool {
        &self.pool
    }

    /// The comment that leads a declaration, its lines joined to paragraphs; empty where there is none.
    pub(crate) fn comment(&self, file: &str, path: &[i32]) -> &str {
        self.comments
            .get(&(file.to_owned(), path.to_vec()))
            .map_or("", String::as_str)
    }

    /// Whether a message of this full name is part of the contract.
    pub fn has_message(&self, full_name: &str) -> bool {
        self.pool.get_message_by_name(full_name).is_some()
    }

    /// The documentation of a service, by its full name; empty where there is none.
    pub fn service_comment(&self, full_name: &str) -> &str {
        self.pool
            .get_service_by_name(full_name)
            .map_or("", |service| {
                self.comment(service.parent_file().name(), service.path())
            })
    }

    /// Every endpoint of the methods that `served` lets through (by gRPC path, `/pkg.Service/Method`).
    pub(crate) fn endpoints(
        &self,
        served: impl Fn(&str) -> bool,
    ) -> Result<Vec<Arc<Endpoint>>, SchemaError> {
        let mut endpoints = Vec::new();
        let Some(extension) = self.pool.get_extension_by_name("google.api.http") else {
            return Ok(endpoints);
        };
        for descriptor in self
            .pool
            .services()
            .flat_map(|s| s.methods().collect::<Vec<_>>())
        {
            let options = descriptor.options();
            let rpc = Arc::new(Rpc::new(self, &descriptor));
            if !options.has_extension(&extension) || !served(&rpc.path) {
                continue;
            }
            let rule = match options.get_extension(&extension).into_owned() {
                Value::Message(rule) => {
                    rule.transcode_to::<HttpRule>()
                        .map_err(|source| SchemaError::Option {
                            method: descriptor.full_name().to_owned(),
                            source,
                        })?
                }
                other => unreachable!("google.api.http is a message, got {other:?}"),
            };
            let error = |reason| SchemaError::Rule {
                method: descriptor.full_name().to_owned(),
                reason,
            };
            for (i, binding) in std::iter::once(&rule)
                .chain(&rule.additional_bindings)
                .enumerate()
            {
                if i > 0 && !binding.additional_bindings.is_empty() {
                    return Err(error("additional_bindings nest one level only".to_owned()));
                }
                let endpoint = Endpoint::bind(Arc::clone(&rpc), &descriptor, binding, i > 0);
                endpoints.push(Arc::new(endpoint.map_err(error)?));
            }
        }
        Ok(endpoints)
    }
}

/// Joins the lines of a comment: what was wrapped for the editor flows, blank lines stay paragraphs.
fn tidy(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines().map(str::trim) {
        match (line.is_empty(), out.is_empty() || out.ends_with("\n\n")) {
            (true, false) => out.push_str("\n\n"),
            (true, true) => {}
            (false, start) => {
                if !start {
                    out.push(' ');
                }
                out.push_str(line);
            }
        }
    }
    out.trim_end().to_owned()
}

/// One remote procedure.
#[derive(Debug)]
pub struct Rpc {
    path: String,
    package: String,
    service: String,
    name: String,
    comment: String,
    client_streaming: bool,
    server_streaming: bool,
}

impl Rpc {
    fn new(schema: &Schema, method: &MethodDescriptor) -> Self {
        let service = method.parent_service();
        Self {
            path: format!("/{}/{}", service.full_name(), method.name()),
            package: service.package_name().to_owned(),
            service: service.full_name().to_owned(),
            name: method.name().to_owned(),
            comment: schema
                .comment(method.parent_file().name(), method.path())
                .to_owned(),
            client_streaming: method.is_client_streaming(),
            server_streaming: method.is_server_streaming(),
        }
    }

    /// The gRPC path, `/package.Service/Method`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The package of its service, `commerce.product.v1`.
    pub fn package(&self) -> &str {
        &self.package
    }

    /// The full name of its service.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Its own name, `GetProduct`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its documentation, as the contract has it.
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// The first sentence of its documentation, without the full stop.
    pub fn summary(&self) -> &str {
        let paragraph = self.comment.split("\n\n").next().unwrap_or_default();
        paragraph
            .split(". ")
            .next()
            .unwrap_or_default()
            .trim_end_matches('.')
    }

    /// Whether the request is a stream.
    pub fn client_streaming(&self) -> bool {
        self.client_streaming
    }

    /// Whether the response is a stream.
    pub fn server_streaming(&self) -> bool {
        self.server_streaming
    }
}

/// What the HTTP body of a request or a response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// There is none.
    None,
    /// proto3 JSON.
    Json,
    /// The bytes of a `google.api.HttpBody`, as they are.
    Raw,
}

/// What the HTTP body fills.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    None,
    Whole,
    Field(FieldDescriptor),
}

/// A path variable and the request field that it fills.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) variable: Variable,
    /// The fields from the request down to the leaf.
    pub(crate) fields: Vec<FieldDescriptor>,
}

impl Bound {
    /// The path of the field, in proto spelling.
    pub(crate) fn path(&self) -> String {
        self.variable.field.join(".")
    }
}

/// One way to reach an RPC over HTTP: a verb, a path template and where body and answer belong.
#[derive(Debug)]
pub struct Endpoint {
    rpc: Arc<Rpc>,
    verb: String,
    text: String,
    additional: bool,
    pub(crate) template: Template,
    pub(crate) bound: Vec<Bound>,
    pub(crate) body: Body,
    pub(crate) input: MessageDescriptor,
    pub(crate) output: MessageDescriptor,
    pub(crate) response_field: Option<FieldDescriptor>,
}

impl Endpoint {
    fn bind(
        rpc: Arc<Rpc>,
        method: &MethodDescriptor,
        rule: &HttpRule,
        additional: bool,
    ) -> Result<Self, String> {
        let (verb, text) = verb_and_path(rule)?;
        let template = Template::parse(&text)?;
        let (input, output) = (method.input(), method.output());
        let bound = template
            .variables
            .iter()
            .map(|variable| bind_variable(&input, variable))
            .collect::<Result<Vec<_>, _>>()?;
        let body = match rule.body.as_str() {
            "" => Body::None,
            _ if verb == "GET" || verb == "HEAD" => return Err(format!("{verb} takes no body")),
            "*" => Body::Whole,
            name => Body::Field(top_level(&input, name, "body")?),
        };
        let response_field = match rule.response_body.as_str() {
            "" => None,
            name => Some(top_level(&output, name, "response_body")?),
        };
        if let Some(field) = response_field.as_ref().filter(|field| field.is_map()) {
            return Err(format!("response_body `{}` is a map", field.name()));
        }
        let endpoint = Self {
            rpc,
            verb,
            text,
            additional,
            template,
            bound,
            body,
            input,
            output,
            response_field,
        };
        if endpoint.rpc.client_streaming && endpoint.request_payload() != Payload::Raw {
            return Err("a client stream needs a body of type google.api.HttpBody".to_owned());
        }
        Ok(endpoint)
    }

    /// The RPC behind it.
    pub fn rpc(&self) -> &Rpc {
        &self.rpc
    }

    /// The HTTP verb in capitals; `*` for any.
    pub fn verb(&self) -> &str {
        &self.verb
    }

    /// The path template as the contract writes it.
    pub fn path_template(&self) -> &str {
        &self.text
    }

    /// Whether it is one of the RPC's additional bindings.
    pub fn is_additional(&self) -> bool {
        self.additional
    }

    /// What the body of a request is.
    pub fn request_payload(&self) -> Payload {
        match &self.body {
            Body::None => Payload::None,
            Body::Whole if field::is_http_body(&self.input) => Payload::Raw,
            Body::Field(f) if f.kind().as_message().is_some_and(field::is_http_body) => {
                Payload::Raw
            }
            Body::Whole | Body::Field(_) => Payload::Json,
        }
    }

    /// What the body of a response, or of each message of a stream, is.
    pub fn response_payload(&self) -> Payload {
        let message = match &self.response_field {
            Some(field) if !field.is_list() => field.kind().as_message().cloned(),
            Some(_) => None,
            None => Some(self.output.clone()),
        };
        if message.is_some_and(|m| field::is_http_body(&m)) {
            Payload::Raw
        } else {
            Payload::Json
        }
    }

    /// Whether the request has a top-level field of this name (proto spelling).
    pub fn has_field(&self, name: &str) -> bool {
        self.input.get_field_by_name(name).is_some()
    }

    /// Where the request carries an etag: in itself, or in the resource that its body changes. A resource
    /// that is being made has no version yet.
    pub(crate) fn etag_field(&self) -> Option<Vec<FieldDescriptor>> {
        let text = |field: &FieldDescriptor| field.kind() == Kind::String && !field.is_list();
        if let Some(etag) = self.input.get_field_by_name("etag").filter(text) {
            return Some(vec![etag]);
        }
        let Body::Field(body) = &self.body else {
            return None;
        };
        if self.verb == "POST" {
            return None;
        }
        let etag = body
            .kind()
            .as_message()?
            .get_field_by_name("etag")
            .filter(text)?;
        (!body.is_list() && !body.is_map()).then(|| vec![body.clone(), etag])
    }

    /// Whether a request can say which version of a resource it means (`If-Match`).
    pub fn takes_etag(&self) -> bool {
        self.etag_field().is_some()
    }
}

fn verb_and_path(rule: &HttpRule) -> Result<(String, String), String> {
    let (verb, path) = match &rule.pattern {
        Some(Pattern::Get(path)) => ("GET", path),
        Some(Pattern::Put(path)) => ("PUT", path),
        Some(Pattern::Post(path)) => ("POST", path),
        Some(Pattern::Delete(path)) => ("DELETE", path),
        Some(Pattern::Patch(path)) => ("PATCH", path),
        Some(Pattern::Custom(custom)) => (custom.kind.as_str(), &custom.path),
        None => return Err("http rule without a verb".to_owned()),
    };
    if verb.is_empty()
        || (verb != "*" && !verb.bytes().all(|b| b.is_ascii_uppercase() || b == b'-'))
    {
        return Err(format!("`{verb}` is not an HTTP verb"));
    }
    Ok((verb.to_owned(), path.clone()))
}

fn bind_variable(input: &MessageDescriptor, variable: &Variable) -> Result<Bound, String> {
    let mut message = input.clone();
    let mut fields = Vec::new();
    for (i, name) in variable.field.iter().enumerate() {
        let path = variable.field[..=i].join(".");
        let Some(field) = message.get_field_by_name(name) else {
            return Err(format!(
                "path variable `{path}`: {} has no such field",
                message.full_name()
            ));
        };
        if field.is_list() || field.is_map() {
            return Err(format!("path variable `{path}` is repeated"));
        }
        if i + 1 < variable.field.len() {
            let kind = field.kind();
            let Some(inner) = kind.as_message() else {
                return Err(format!("path variable `{path}` is not a message"));
            };
            message = inner.clone();
        } else if !field::is_text(&field) {
            return Err(format!("path variable `{path}` cannot be written as text"));
        }
        fields.push(field);
    }
    Ok(Bound {
        variable: variable.clone(),
        fields,
    })
}

fn top_level(
    message: &MessageDescriptor,
    name: &str,
    option: &str,
) -> Result<FieldDescriptor, String> {
    message.get_field_by_name(name).ok_or_else(|| {
        format!(
            "{option} `{name}`: {} has no such field",
            message.full_name()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn comments_flow_and_keep_paragraphs() {
        assert_eq!(tidy(" One\n line.\n\n\n Two.\n"), "One line.\n\nTwo.");
        assert_eq!(tidy("\n\n"), "");
    }

    #[test]
    fn rules_that_name_wrong_things_are_refused() {
        for (rule, why) in [
            (
                r#"get: "/v1/{nope}""#,
                "path variable `nope`: t.Request has no such field",
            ),
            (
                r#"get: "/v1/{name.x}""#,
                "path variable `name` is not a message",
            ),
            (r#"get: "/v1/{names}""#, "path variable `names` is repeated"),
            (
                r#"get: "/v1/{inner}""#,
                "path variable `inner` cannot be written as text",
            ),
            (
                r#"get: "/v1/{inner.nope}""#,
                "path variable `inner.nope`: t.Inner has no such field",
            ),
            (
                r#"get: "/v1/{name""#,
                "path template `/v1/{name`: expected `}` at byte 9",
            ),
            (r#"get: "/v1" body: "*""#, "GET takes no body"),
            (
                r#"post: "/v1" body: "nope""#,
                "body `nope`: t.Request has no such field",
            ),
            (
                r#"get: "/v1" response_body: "no""#,
                "response_body `no`: t.Request has no such field",
            ),
            (
                r#"get: "/v1" response_body: "map""#,
                "response_body `map` is a map",
            ),
            (
                r#"custom: { kind: "get" path: "/" }"#,
                "`get` is not an HTTP verb",
            ),
            (r#"body: "*""#, "http rule without a verb"),
            (
                r#"get: "/v1" additional_bindings { get: "/v2" additional_bindings { get: "/v3" } }"#,
                "additional_bindings nest one level only",
            ),
        ] {
            let schema = testing::schema_with_rule(rule, "");
            let error = schema.endpoints(|_| true).unwrap_err();
            assert_eq!(error.to_string(), format!("method t.S.M: {why}"), "{rule}");
        }
    }

    #[test]
    fn a_client_stream_needs_raw_bodies() {
        let schema = testing::schema_with_rule(r#"post: "/v1" body: "*""#, "stream");
        let error = schema.endpoints(|_| true).unwrap_err().to_string();
        assert!(
            error.ends_with("a client stream needs a body of type google.api.HttpBody"),
            "{error}"
        );
    }

    #[test]
    fn methods_that_are_not_served_are_not_bound() {
        let schema = testing::schema_with_rule(r#"get: "/v1""#, "");
        assert_eq!(schema.endpoints(|path| path != "/t.S/M").unwrap().len(), 0);
        assert_eq!(schema.endpoints(|path| path == "/t.S/M").unwrap().len(), 1);
    }

    #[test]
    fn bytes_that_are_no_descriptor_set_are_refused() {
        assert!(matches!(
            Schema::decode(b"\xff\xff"),
            Err(SchemaError::Descriptors(_))
        ));
    }
}
