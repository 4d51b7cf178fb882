//! The details of `google.rpc` as JSON, each with its `@type`.

use serde_json::{Map, Value, json};
use tonic::Status;
use tonic_types::{ErrorDetail, StatusExt as _};

/// What a status carries beside its code and message.
#[derive(Debug, Default)]
pub(crate) struct Details {
    /// Every detail that clients may see.
    pub(crate) json: Vec<Value>,
    /// `ErrorInfo.reason`.
    pub(crate) reason: Option<String>,
    /// `ErrorInfo.domain`.
    pub(crate) domain: Option<String>,
    /// `RetryInfo.retry_delay`, rounded up.
    pub(crate) retry_seconds: Option<u64>,
}

impl Details {
    pub(crate) fn of(status: &Status) -> Self {
        let mut found = Self::default();
        for detail in status.get_error_details_vec() {
            match &detail {
                ErrorDetail::ErrorInfo(info) => {
                    found.reason = Some(info.reason.clone());
                    found.domain = Some(info.domain.clone());
                }
                ErrorDetail::RetryInfo(info) => {
                    let delay = info.retry_delay.unwrap_or_default();
                    let part = u64::from(delay.subsec_nanos() > 0);
                    found.retry_seconds = Some((delay.as_secs() + part).max(1));
                }
                _ => {}
            }
            found.json.extend(detail_json(detail));
        }
        found
    }
}

fn typed(name: &str, mut fields: Value) -> Value {
    let mut object = Map::new();
    object.insert(
        "@type".to_owned(),
        format!("type.googleapis.com/google.rpc.{name}").into(),
    );
    if let Some(fields) = fields.as_object_mut() {
        object.append(fields);
    }
    object.into()
}

/// `google.rpc.ErrorInfo`.
pub(crate) fn error_info(reason: &str, domain: &str) -> Value {
    typed(
        "ErrorInfo",
        json!({"reason": reason, "domain": domain, "metadata": {}}),
    )
}

/// `google.rpc.BadRequest`.
pub(crate) fn bad_request<'a>(violations: impl Iterator<Item = (&'a str, &'a str)>) -> Value {
    let violations: Vec<_> = violations
        .map(|(field, description)| json!({"field": field, "description": description}))
        .collect();
    typed("BadRequest", json!({"fieldViolations": violations}))
}

/// `google.rpc.RequestInfo`.
pub(crate) fn request_info(id: &str) -> Value {
    typed("RequestInfo", json!({"requestId": id}))
}

/// `None` for what is not meant for clients.
fn detail_json(detail: ErrorDetail) -> Option<Value> {
    Some(match detail {
        ErrorDetail::ErrorInfo(info) => {
            // Sorted, so that equal errors have equal bytes. What the mesh knows of a call stays inside.
            let inside = info.domain == mesh::ERROR_DOMAIN;
            let metadata = info.metadata.into_iter().filter(|_| !inside);
            let metadata: std::collections::BTreeMap<_, _> = metadata.collect();
            let fields =
                json!({"reason": info.reason, "domain": info.domain, "metadata": metadata});
            typed("ErrorInfo", fields)
        }
        ErrorDetail::RetryInfo(info) => {
            let delay = info.retry_delay.unwrap_or_default();
            typed(
                "RetryInfo",
                json!({"retryDelay": format!("{:.3}s", delay.as_secs_f64())}),
            )
        }
        ErrorDetail::BadRequest(bad) => {
            // Services name fields as the contract does; clients know their JSON names.
            let fields: Vec<_> = bad
                .field_violations
                .iter()
                .map(|v| mesh_transcode::json_name(&v.field))
                .collect();
            let texts = bad.field_violations.iter().map(|v| v.description.as_str());
            bad_request(fields.iter().map(String::as_str).zip(texts))
        }
        ErrorDetail::PreconditionFailure(failure) => {
            let violations: Vec<_> = failure
                .violations
                .iter()
                .map(|v| json!({"type": v.r#type, "subject": v.subject, "description": v.description}))
                .collect();
            typed("PreconditionFailure", json!({"violations": violations}))
        }
        ErrorDetail::QuotaFailure(failure) => {
            let violations: Vec<_> = failure
                .violations
                .iter()
                .map(|v| json!({"subject": v.subject, "description": v.description}))
                .collect();
            typed("QuotaFailure", json!({"violations": violations}))
        }
        ErrorDetail::ResourceInfo(info) => typed(
            "ResourceInfo",
            json!({
                "resourceType": info.resource_type,
                "resourceName": info.resource_name,
                "owner": info.owner,
                "description": info.description,
            }),
        ),
        ErrorDetail::Help(help) => {
            let links: Vec<_> = help
                .links
                .iter()
                .map(|link| json!({"description": link.description, "url": link.url}))
                .collect();
            typed("Help", json!({"links": links}))
        }
        ErrorDetail::LocalizedMessage(text) => typed(
            "LocalizedMessage",
            json!({"locale": text.locale, "message": text.message}),
        ),
        // The request id is added by the edge; stack traces stay inside; what comes new is not yet known
        // to be harmless.
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn addresses_stay_inside() {
        let known = [("endpoint".to_owned(), "10.0.0.7:50051".to_owned())];
        let details = ErrorDetails::with_error_info("CIRCUIT_OPEN", mesh::ERROR_DOMAIN, known);
        let status = Status::with_error_details(Code::Unavailable, "text", details);
        let found = Details::of(&status);
        assert_eq!(found.reason.as_deref(), Some("CIRCUIT_OPEN"));
        assert_eq!(found.json[0]["metadata"], json!({}));
    }

    #[test]
    fn details_carry_their_type_and_json_names() {
        let mut details = ErrorDetails::with_error_info(
            "OUT_OF_STOCK",
            "product.commerce",
            [
                ("sku".to_owned(), "A".to_owned()),
                ("available".to_owned(), "0".to_owned()),
            ],
        );
        details.add_bad_request_violation("items[0].unit_price", "must not be negative");
        details.set_debug_info(vec!["at secret.rs".to_owned()], "secret");
        let status = Status::with_error_details(Code::InvalidArgument, "text", details);
        let found = Details::of(&status);
        assert_eq!(found.reason.as_deref(), Some("OUT_OF_STOCK"));
        assert_eq!(
            found.json,
            [
                json!({
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "OUT_OF_STOCK",
                    "domain": "product.commerce",
                    "metadata": {"available": "0", "sku": "A"},
                }),
                json!({
                    "@type": "type.googleapis.com/google.rpc.BadRequest",
                    "fieldViolations": [
                        {"field": "items[0].unitPrice", "description": "must not be negative"},
                    ],
                }),
            ]
        );
    }
}
