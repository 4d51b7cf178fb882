//! Requests to Toss Payments' API.

use super::answer::{Problem, problem};
use crate::provider::ProviderError;
use crate::provider::https::Caller;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use kernel::Invalid;
use mesh_runtime::config::Secret;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Calls Toss with one key.
pub(super) struct Client {
    caller: Caller,
    authorization: HeaderValue,
}

impl Client {
    /// With this key: the user of HTTP's basic authentication, without a password.
    pub(super) fn new(caller: Caller, name: &str, key: &Secret) -> Result<Self, Invalid> {
        let basic = format!("Basic {}", STANDARD.encode(format!("{}:", key.expose())));
        let mut authorization =
            HeaderValue::try_from(basic).map_err(|_| Invalid::new(name, "is no header value"))?;
        authorization.set_sensitive(true);
        Ok(Self {
            caller,
            authorization,
        })
    }

    /// A command.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        idempotency_key: &str,
    ) -> Result<T, Problem> {
        let json = serde_json::to_vec(body).expect("texts and numbers are JSON");
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.caller.at(path))
            .header(CONTENT_TYPE, "application/json")
            .header("idempotency-key", idempotency_key);
        self.send(request, json.into()).await
    }

    /// A question.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        let request = Request::builder()
            .method(Method::GET)
            .uri(self.caller.at(path));
        self.send(request, Bytes::new()).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        request: http::request::Builder,
        body: Bytes,
    ) -> Result<T, Problem> {
        let request = request
            .header(AUTHORIZATION, self.authorization.clone())
            .body(Full::new(body))
            .map_err(|error| ProviderError::Unavailable(error.to_string()))?;
        let answer = self.caller.send(request).await?;
        if answer.status == StatusCode::OK {
            return serde_json::from_slice(&answer.body)
                .map_err(|error| ProviderError::Unknown(format!("answer: {error}")).into());
        }
        Err(problem(answer.status, &answer.body))
    }
}

/// A text as a segment of a path or a value of a query.
pub(super) fn segment(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}
