//! An OpenAPI 3.1 document of everything that a [`Router`] serves, made of the contract and its comments.
//!
//! The schemas are truthful rather than strict: what they allow is what the transcoder reads, null for
//! optional fields and numbers as text included. Requests and responses therefore have schemas of their
//! own (`Book` is written, `BookInput` is read). What descriptors cannot say, such as the length of a
//! text, comes in through [`Settings::refine`] or stays unsaid.

mod operation;
mod schemas;

use serde_json::{Map, Value, json};

use crate::{Endpoint, Router, Rpc, Schema};
use schemas::Schemas;

/// A JSON object under construction.
pub type Object = Map<String, Value>;

/// What the document says beyond the contract.
pub struct Settings<'a> {
    /// The name of the API.
    pub title: &'a str,
    /// Its version.
    pub version: &'a str,
    /// What it is, in Markdown.
    pub description: &'a str,
    /// The URLs it is served at; `/` for "where this document came from".
    pub servers: &'a [String],
    /// `components.securitySchemes`.
    pub security_schemes: Value,
    /// The `security` of one operation: a list of alternatives, `[]` for none.
    pub security: &'a dyn Fn(&Rpc) -> Value,
    /// Adds to the schema of a field, known by its full name, what the contract cannot say.
    pub refine: &'a dyn Fn(&str, &mut Object),
}

/// Describes every endpoint of the router. The same input gives the same document.
pub fn document(schema: &Schema, router: &Router, settings: &Settings<'_>) -> Value {
    let mut schemas = Schemas::new(schema, settings);
    let mut paths = Object::new();
    let mut tags: Vec<(String, String)> = Vec::new();
    for endpoint in router
        .endpoints()
        .iter()
        .filter(|endpoint| endpoint.verb() != "*")
    {
        let rpc = endpoint.rpc();
        let tag = tag(rpc);
        if tags.iter().all(|(name, _)| *name != tag) {
            tags.push((
                tag.clone(),
                schema.service_comment(rpc.service()).to_owned(),
            ));
        }
        let names = operation::path_names(endpoint);
        let path = endpoint.template.openapi(|variable| {
            let i = endpoint
                .bound
                .iter()
                .position(|bound| bound.variable == *variable);
            names[i.expect("the variables of a template are all bound")].clone()
        });
        let item = paths.entry(path).or_insert_with(|| json!({}));
        let id = operation_id(router, endpoint);
        item[endpoint.verb().to_lowercase()] =
            operation::describe(endpoint, &names, &id, &tag, &mut schemas, settings);
    }
    let tags: Vec<_> = tags
        .into_iter()
        .map(|(name, description)| json!({"name": name, "description": description}))
        .collect();
    let servers: Vec<_> = settings
        .servers
        .iter()
        .map(|url| json!({"url": url}))
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": settings.title,
            "version": settings.version,
            "description": settings.description,
        },
        "servers": servers,
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas.finish(),
            "responses": {"Error": operation::error_response()},
            "securitySchemes": settings.security_schemes,
        },
    })
}

/// `ProductService` is the tag `Product`.
fn tag(rpc: &Rpc) -> String {
    let name = rpc.service().rsplit('.').next().unwrap_or_default();
    name.strip_suffix("Service")
        .filter(|name| !name.is_empty())
        .unwrap_or(name)
        .to_owned()
}

/// The RPC's name, with the service before it where two share it, and a number for further bindings.
fn operation_id(router: &Router, endpoint: &Endpoint) -> String {
    let rpc = endpoint.rpc();
    let of = |other: &&std::sync::Arc<Endpoint>| other.rpc().path() == rpc.path();
    let shared = router
        .endpoints()
        .iter()
        .any(|other| other.rpc().name() == rpc.name() && other.rpc().path() != rpc.path());
    let base = if shared {
        format!("{}_{}", rpc.service().replace('.', "_"), rpc.name())
    } else {
        rpc.name().to_owned()
    };
    let place = router
        .endpoints()
        .iter()
        .filter(of)
        .position(|other| std::ptr::eq(&raw const **other, endpoint))
        .unwrap_or_default();
    if place == 0 {
        base
    } else {
        format!("{base}_{}", place + 1)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
