//! Requests to Stripe's API, version pinned.

use super::answer::{Problem, problem};
use super::form::Form;
use super::upload::Upload;
use crate::provider::ProviderError;
use crate::provider::https::{Answer, Caller};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use kernel::Invalid;
use mesh_runtime::config::Secret;
use serde::de::DeserializeOwned;

/// The version of the API whose answers `messages` describes.
pub(super) const VERSION: &str = "2026-10-28.endive";

const AGENT: &str = concat!("commerce-mesh-payment/", env!("CARGO_PKG_VERSION"));

/// Calls Stripe with one key.
pub(super) struct Client {
    caller: Caller,
    /// Where files are taken.
    files: Caller,
    authorization: HeaderValue,
}

impl Client {
    /// With this key. `name` is where the key is configured.
    pub(super) fn new(
        caller: Caller,
        files: Caller,
        name: &str,
        key: &Secret,
    ) -> Result<Self, Invalid> {
        let bearer = format!("Bearer {}", key.expose());
        let mut authorization =
            HeaderValue::try_from(bearer).map_err(|_| Invalid::new(name, "is no header value"))?;
        authorization.set_sensitive(true);
        Ok(Self {
            caller,
            files,
            authorization,
        })
    }

    /// A command. Without a key it must be harmless to repeat.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        form: &Form,
        idempotency_key: Option<&str>,
    ) -> Result<T, Problem> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.caller.at(path))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", key);
        }
        self.send(request, form.body().into()).await
    }

    /// A file.
    pub(super) async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        upload: &Upload<'_>,
        idempotency_key: &str,
    ) -> Result<T, Problem> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.files.at(path))
            .header(CONTENT_TYPE, upload.content_type())
            .header("idempotency-key", idempotency_key);
        let request = self.complete(request, upload.body().into())?;
        read(self.files.send(request).await?)
    }

    /// A question.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        form: &Form,
    ) -> Result<T, Problem> {
        let uri = self.caller.at(&format!("{path}{}", form.query()));
        let request = Request::builder().method(Method::GET).uri(uri);
        self.send(request, Bytes::new()).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        request: http::request::Builder,
        body: Bytes,
    ) -> Result<T, Problem> {
        let request = self.complete(request, body)?;
        read(self.caller.send(request).await?)
    }

    /// With what all requests carry.
    fn complete(
        &self,
        request: http::request::Builder,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, ProviderError> {
        request
            .header(AUTHORIZATION, self.authorization.clone())
            .header("stripe-version", VERSION)
            .header(ACCEPT, "*/*")
            .header(USER_AGENT, AGENT)
            .body(Full::new(body))
            .map_err(|error| ProviderError::Unavailable(error.to_string()))
    }
}

fn read<T: DeserializeOwned>(answer: Answer) -> Result<T, Problem> {
    if answer.status == StatusCode::OK {
        return serde_json::from_slice(&answer.body)
            .map_err(|error| ProviderError::Unknown(format!("answer: {error}")).into());
    }
    Err(problem(answer.status, &answer.body))
}
