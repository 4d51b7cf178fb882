//! From an HTTP request to the request of an RPC: body, idempotency key, version and forwarded headers.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, header, request::Parts};
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use mesh::Audience;
use mesh_transcode::{Limits, Match, Payload, Request, RequestBody};
use tonic::metadata::MetadataMap;
use uuid::Uuid;

use crate::{
    app::{App, Room},
    error::{Asked, Refusal},
    negotiate,
};

pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(crate) const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The request field that carries the idempotency key.
const KEY_FIELD: &str = "request_id";
/// The longest idempotency key, in characters.
const KEY_CHARS_MAX: usize = 200;
/// The request field that says where a stream goes on.
const RESUME_FIELD: &str = "resume_revision";

/// A request that is ready to be sent to its service.
pub(crate) struct Prepared {
    pub(crate) message: Bytes,
    pub(crate) metadata: MetadataMap,
    /// The idempotency key, the client's own or a new one.
    pub(crate) key: Option<String>,
    pub(crate) asked: Asked,
    /// What its body takes, for as long as it is answered.
    _room: Option<Room>,
}

/// Reads a whole request.
pub(crate) async fn read(
    app: &App,
    audience: Audience,
    found: &Match,
    parts: &Parts,
    body: Body,
) -> Result<Prepared, Refusal> {
    let limits = &app.config.limits;
    let query = parts.uri.query();
    let transcode = Limits {
        body_bytes_max: limits.body_bytes_max,
        depth_max: limits.depth_max,
    };
    let raw = found.endpoint.request_payload() == Payload::Raw;
    let bytes_max = if raw {
        limits.raw_body_bytes_max
    } else {
        limits.body_bytes_max
    };
    let mut room = if body.is_end_stream() {
        None
    } else {
        let longest = bytes_max as u64;
        let bytes = body.size_hint().exact().unwrap_or(longest).min(longest);
        Some(app.room(audience, bytes)?)
    };
    let bytes = collect(body, bytes_max, limits.body_timeout_ms).await?;
    if let Some(room) = &mut room {
        room.shrink(bytes.len());
    }
    let body = match found.endpoint.request_payload() {
        Payload::Raw => RequestBody::Raw {
            content_type: content_type(&parts.headers),
            data: &bytes,
        },
        Payload::None | Payload::Json if bytes.is_empty() => RequestBody::Empty,
        Payload::None => RequestBody::Json(&bytes),
        Payload::Json => {
            negotiate::check_json(&parts.headers)?;
            RequestBody::Json(&bytes)
        }
    };
    let request = found
        .request(query, body, &transcode)
        .map_err(|e| Refusal::bad_request(&e))?;
    let prepared = complete(app, found, &parts.headers, request)?;
    Ok(Prepared {
        _room: room,
        ..prepared
    })
}

/// Adds what headers say to a request that has been read.
pub(crate) fn complete(
    app: &App,
    found: &Match,
    headers: &HeaderMap,
    mut request: Request,
) -> Result<Prepared, Refusal> {
    let key = idempotency_key(found, headers, &mut request)?;
    let if_match = if_match(headers, &mut request)?;
    // A browser that reconnects repeats its URL and says in this header where it was.
    if let Some(last) = one(headers, &HeaderName::from_static("last-event-id"))?
        && found.endpoint.has_field(RESUME_FIELD)
    {
        request.set_from_text(RESUME_FIELD, last).map_err(|e| {
            Refusal::bad_field("Last-Event-ID", e.violations()[0].description.clone())
        })?;
    }
    Ok(Prepared {
        message: request.encode(),
        metadata: forwarded(app, found, headers),
        key,
        asked: Asked { if_match },
        _room: None,
    })
}

/// The media type of a raw body.
pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    value.unwrap_or("application/octet-stream")
}

async fn collect(body: Body, bytes_max: usize, timeout_ms: u64) -> Result<Bytes, Refusal> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let reading = Limited::new(body, bytes_max).collect();
    match tokio::time::timeout(Duration::from_millis(timeout_ms), reading).await {
        Err(_) => Err(Refusal::body_timeout()),
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Refusal::too_large(bytes_max as u64))
        }
        Ok(Err(_)) => Err(Refusal::bad_field("body", "was cut off")),
    }
}

/// The value of a header that may be given once.
pub(crate) fn one<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'h str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = value
        .to_str()
        .map_err(|_| Refusal::bad_field(name.as_str(), "must be ASCII"))?;
    match values.next() {
        Some(_) => Err(Refusal::bad_field(name.as_str(), "given more than once")),
        None => Ok(Some(text)),
    }
}

/// Header and field are two names for one key. A mutation without any gets one, so that the service can
/// always tell a repetition by the mesh from a second command.
fn idempotency_key(
    found: &Match,
    headers: &HeaderMap,
    request: &mut Request,
) -> Result<Option<String>, Refusal> {
    if !found.endpoint.has_field(KEY_FIELD) {
        return Ok(None);
    }
    let field = request.text(KEY_FIELD);
    let key = match (one(headers, &IDEMPOTENCY_KEY)?, field) {
        (Some(header), Some(field)) if header != field => {
            return Err(Refusal::bad_field(
                "Idempotency-Key",
                "differs from `requestId`",
            ));
        }
        (Some(header), _) => {
            let printable = !header.is_empty() && header.bytes().all(|b| b.is_ascii_graphic());
            if !printable || header.len() > KEY_CHARS_MAX {
                let why =
                    format!("expected 1 to {KEY_CHARS_MAX} printable ASCII characters, no blanks");
                return Err(Refusal::bad_field("Idempotency-Key", why));
            }
            header.to_owned()
        }
        (None, Some(field)) => field,
        (None, None) => Uuid::now_v7().to_string(),
    };
    request.set_text(KEY_FIELD, &key);
    Ok(Some(key))
}

/// `If-Match` is the etag of the request under its HTTP name. Whether it was given.
fn if_match(headers: &HeaderMap, request: &mut Request) -> Result<bool, Refusal> {
    const EXPECTED: &str = "expected one etag in double quotes, or *";
    let Some(value) = one(headers, &header::IF_MATCH)? else {
        return Ok(false);
    };
    if value == "*" {
        return Ok(true);
    }
    let etag = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .filter(|etag| !etag.is_empty() && !etag.contains('"'))
        .ok_or_else(|| Refusal::bad_field("If-Match", EXPECTED))?;
    match request.etag() {
        Some(field) if field != etag => {
            return Err(Refusal::bad_field("If-Match", "differs from `etag`"));
        }
        _ => {}
    }
    if request.set_etag(etag) {
        Ok(true)
    } else {
        Err(Refusal::bad_field(
            "If-Match",
            "this request cannot be made conditional",
        ))
    }
}

/// The headers that a raw body may bring along, such as a webhook's signature.
fn forwarded(app: &App, found: &Match, headers: &HeaderMap) -> MetadataMap {
    let mut kept = HeaderMap::new();
    if found.endpoint.request_payload() == Payload::Raw {
        for name in app
            .config
            .forwarded_headers
            .iter()
            .filter_map(|n| n.parse::<HeaderName>().ok())
        {
            for value in headers.get_all(&name) {
                kept.append(name.clone(), value.clone());
            }
        }
    }
    MetadataMap::from_headers(kept)
}
