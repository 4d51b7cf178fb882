//! HTTP and JSON for protobuf services, from their descriptors.
//!
//! [`Schema`] reads a descriptor set, [`Router`] finds the method of a verb and a path by its
//! `google.api.http` rules, [`Match::request`] turns path, query and JSON body into the bytes of the
//! request, [`Endpoint::response`] turns the answer's bytes into JSON, and [`openapi`] describes it all.
//!
//! Deliberately without I/O, without async and without knowledge of any service. Values pass through
//! prost-reflect's dynamic messages for now; no signature shows it, so that precompiled plans can take
//! their place.

mod error;
mod field;
mod json;
pub mod openapi;
mod query;
mod request;
mod response;
mod router;
mod schema;
mod template;
#[cfg(test)]
mod testing;

pub use error::{BadRequest, ResponseError, SchemaError, Violation};
pub use request::{Limits, Request, RequestBody};
pub use response::{RawBody, Response};
pub use router::{Match, NoRoute, Router};
pub use schema::{Endpoint, Payload, Rpc, Schema};

/// `unit_price` as JSON spells it: `unitPrice`.
pub fn json_name(name: &str) -> String {
    field::lower_camel(name)
}
