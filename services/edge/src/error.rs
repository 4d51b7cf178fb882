//! Why a request is refused, as an HTTP answer: one status, one `google.rpc.Status` in JSON.
//!
//! Texts of services reach clients only where they are meant for them: an internal error is logged here
//! and answered without its words.

use axum::response::Response;
use http::{HeaderName, HeaderValue, StatusCode, header};
use mesh_transcode::BadRequest;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::status_json;

/// `ErrorInfo.domain` of every error made here.
const DOMAIN: &str = "edge";
/// The seconds after which a client may try again when there was no room.
const RETRY_SECONDS: &str = "1";

/// A request that is not carried out, or failed.
#[derive(Debug)]
pub(crate) struct Refusal(Box<Parts>);

#[derive(Debug)]
struct Parts {
    http: StatusCode,
    code: Code,
    message: String,
    details: Vec<Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// What a request said about itself that decides how an error is shown.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asked {
    /// It had an `If-Match` header.
    pub(crate) if_match: bool,
}

impl Refusal {
    /// An error of the edge itself.
    pub(crate) fn new(
        http: StatusCode,
        code: Code,
        reason: &str,
        message: impl Into<String>,
    ) -> Self {
        let info = status_json::error_info(reason, DOMAIN);
        Self(Box::new(Parts {
            http,
            code,
            message: message.into(),
            details: vec![info],
            headers: Vec::new(),
        }))
    }

    /// 400 with the fields at fault.
    pub(crate) fn bad_request(why: &BadRequest) -> Self {
        let message = format!("invalid request: {why}");
        let mut refusal = Self::new(
            StatusCode::BAD_REQUEST,
            Code::InvalidArgument,
            "INVALID_REQUEST",
            message,
        );
        let violations = why
            .violations()
            .iter()
            .map(|v| (v.field.as_str(), v.description.as_str()));
        refusal.0.details.push(status_json::bad_request(violations));
        refusal
    }

    /// 400 for one header, parameter or field.
    pub(crate) fn bad_field(field: &str, description: impl Into<String>) -> Self {
        Self::bad_request(&BadRequest::new(field, description))
    }

    /// 404.
    pub(crate) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            Code::NotFound,
            "NO_SUCH_PATH",
            "no such path",
        )
    }

    /// 405 with the verbs that the path has.
    pub(crate) fn method_not_allowed(allow: &str) -> Self {
        let message = format!("the path allows only {allow}");
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            Code::Unimplemented,
            "METHOD_NOT_ALLOWED",
            message,
        )
        .with_header(header::ALLOW, allow)
    }

    /// 401.
    pub(crate) fn unauthenticated(message: &str) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            Code::Unauthenticated,
            "INVALID_API_KEY",
            message,
        )
        .with_header(header::WWW_AUTHENTICATE, "Bearer")
    }

    /// 413.
    pub(crate) fn too_large(bytes_max: u64) -> Self {
        let message = format!("body: longer than {bytes_max} bytes");
        let http = StatusCode::PAYLOAD_TOO_LARGE;
        Self::new(http, Code::InvalidArgument, "BODY_TOO_LARGE", message)
    }

    /// 408.
    pub(crate) fn body_timeout() -> Self {
        let message = "body: not received in time";
        let http = StatusCode::REQUEST_TIMEOUT;
        Self::new(http, Code::DeadlineExceeded, "BODY_TIMEOUT", message)
            .with_header(header::CONNECTION, "close")
    }

    /// 503: no room for one more.
    pub(crate) fn overloaded() -> Self {
        let message = "too many requests at a time; try again";
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            Code::Unavailable,
            "OVERLOADED",
            message,
        )
        .with_header(header::RETRY_AFTER, RETRY_SECONDS)
    }

    /// 500 without words; what went wrong goes to the log.
    pub(crate) fn internal(why: &dyn std::fmt::Display) -> Self {
        tracing::error!(%why, "request failed inside");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            Code::Internal,
            "INTERNAL",
            "internal error",
        )
    }

    /// What a service, or the mesh on the way to it, answered.
    pub(crate) fn from_status(status: &Status, asked: Asked) -> Self {
        let details = status_json::Details::of(status);
        let http = http_status(status.code(), details.reason.as_deref(), asked);
        let message = match status.code() {
            Code::Internal | Code::Unknown | Code::DataLoss => return Self::internal(status),
            Code::Unavailable if details.domain.as_deref() == Some("mesh") => {
                tracing::warn!(%status, "a service cannot be reached");
                "a service that this request needs is unavailable; try again"
            }
            _ => status.message(),
        };
        let refusal = Self(Box::new(Parts {
            http,
            code: status.code(),
            message: message.to_owned(),
            details: details.json,
            headers: Vec::new(),
        }));
        match details.retry_seconds {
            Some(seconds) => refusal.with_header(header::RETRY_AFTER, &seconds.to_string()),
            None => refusal,
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.0.http
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        self.0
            .headers
            .extend(HeaderValue::from_str(value).map(|value| (name, value)));
        self
    }

    /// The `google.rpc.Status` with the request's id.
    pub(crate) fn json(&self, request_id: &str) -> Value {
        let Parts {
            code,
            message,
            details,
            ..
        } = &*self.0;
        let mut details = details.clone();
        details.push(status_json::request_info(request_id));
        json!({
            "code": i32::from(*code),
            "status": mesh::code_name(*code),
            "message": message,
            "details": details,
        })
    }

    /// The HTTP answer.
    pub(crate) fn response(&self, request_id: &str) -> Response {
        let mut response = Response::new(self.json(request_id).to_string().into());
        *response.status_mut() = self.0.http;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        headers.extend(self.0.headers.iter().cloned());
        response
    }
}

/// The mapping of google/rpc/code.proto, with two exceptions: 412 answers a failed `If-Match` and nothing
/// else, 422 a reused idempotency key and nothing else.
fn http_status(code: Code, reason: Option<&str>, asked: Asked) -> StatusCode {
    const CLIENT_CLOSED_REQUEST: u16 = 499;
    match (code, reason) {
        (Code::Aborted, Some("ETAG_MISMATCH")) if asked.if_match => StatusCode::PRECONDITION_FAILED,
        (Code::InvalidArgument, Some("IDEMPOTENCY_KEY_REUSED")) => StatusCode::UNPROCESSABLE_ENTITY,
        (Code::Ok, _) => StatusCode::OK,
        (Code::Cancelled, _) => {
            StatusCode::from_u16(CLIENT_CLOSED_REQUEST).expect("a number of three digits")
        }
        (Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange, _) => {
            StatusCode::BAD_REQUEST
        }
        (Code::Unauthenticated, _) => StatusCode::UNAUTHORIZED,
        (Code::PermissionDenied, _) => StatusCode::FORBIDDEN,
        (Code::NotFound, _) => StatusCode::NOT_FOUND,
        (Code::Aborted | Code::AlreadyExists, _) => StatusCode::CONFLICT,
        (Code::ResourceExhausted, _) => StatusCode::TOO_MANY_REQUESTS,
        (Code::Unimplemented, _) => StatusCode::NOT_IMPLEMENTED,
        (Code::Unavailable, _) => StatusCode::SERVICE_UNAVAILABLE,
        (Code::DeadlineExceeded, _) => StatusCode::GATEWAY_TIMEOUT,
        (Code::Unknown | Code::Internal | Code::DataLoss, _) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    fn with_reason(code: Code, reason: &str) -> Status {
        let details = ErrorDetails::with_error_info(reason, "t.commerce", []);
        Status::with_error_details(code, "text", details)
    }

    #[test]
    fn codes_have_their_http_status() {
        let plain = Asked::default();
        let if_match = Asked { if_match: true };
        for (code, reason, asked, expected) in [
            (Code::Cancelled, "X", plain, 499),
            (Code::InvalidArgument, "X", plain, 400),
            (Code::FailedPrecondition, "X", plain, 400),
            (Code::OutOfRange, "X", plain, 400),
            (Code::Unauthenticated, "X", plain, 401),
            (Code::PermissionDenied, "X", plain, 403),
            (Code::NotFound, "X", plain, 404),
            (Code::Aborted, "X", if_match, 409),
            (Code::AlreadyExists, "X", plain, 409),
            (Code::ResourceExhausted, "X", plain, 429),
            (Code::Unimplemented, "X", plain, 501),
            (Code::Unavailable, "X", plain, 503),
            (Code::DeadlineExceeded, "X", plain, 504),
            (Code::Internal, "X", plain, 500),
            (Code::Unknown, "X", plain, 500),
            (Code::DataLoss, "X", plain, 500),
            (Code::Aborted, "ETAG_MISMATCH", plain, 409),
            (Code::Aborted, "ETAG_MISMATCH", if_match, 412),
            (Code::InvalidArgument, "IDEMPOTENCY_KEY_REUSED", plain, 422),
            (Code::Aborted, "IDEMPOTENCY_KEY_REUSED", plain, 409),
        ] {
            let refusal = Refusal::from_status(&with_reason(code, reason), asked);
            assert_eq!(
                refusal.response("r").status(),
                expected,
                "{code:?} {reason}"
            );
        }
    }

    #[test]
    fn internal_words_stay_inside() {
        let status = Status::internal("SELECT secret FROM t");
        let json = Refusal::from_status(&status, Asked::default()).json("r-1");
        assert_eq!(json["message"], "internal error");
        assert_eq!(json["code"], 13);
        assert_eq!(json["details"][1]["requestId"], "r-1");
        assert!(!json.to_string().contains("secret"));
    }

    #[test]
    fn a_delay_becomes_retry_after_in_whole_seconds() {
        let mut details = ErrorDetails::with_error_info("REQUEST_IN_FLIGHT", "t.commerce", []);
        details.set_retry_info(Some(Duration::from_millis(1_200)));
        let status = Status::with_error_details(Code::Aborted, "in flight", details);
        let response = Refusal::from_status(&status, Asked::default()).response("r");
        assert_eq!(response.status(), 409);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    }

    #[test]
    fn a_bad_request_names_its_fields_twice() {
        let refusal = Refusal::bad_field("items[1].colour", "no such field");
        let json = refusal.json("r");
        assert_eq!(
            json["message"],
            "invalid request: items[1].colour: no such field"
        );
        assert_eq!(json["status"], "INVALID_ARGUMENT");
        assert_eq!(
            json["details"][1]["fieldViolations"][0]["field"],
            "items[1].colour"
        );
    }
}
