//! What a running process shows of its mesh, as JSON over HTTP: `/mesh/endpoints`, `/mesh/calls`, `/mesh/certs`,
//! `/mesh/config`, `/mesh/tap`. Whoever has an HTTP server for operators puts [`Mesh::inspect`] into it (`mesh_runtime::admin::Pages`).
//!
//! Deliberately read-only, and without an HTTP server.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Response, StatusCode, Uri, header};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::json;
use tonic::body::Body;

use crate::{Mesh, TapFilter, traffic::Tap};

const JSON: &str = "application/json";
/// One JSON object per line.
const LINES: &str = "application/x-ndjson";

/// Who this process is and whom it trusts; never a key.
#[derive(Serialize)]
struct Certs {
    mode: mesh_identity::Mode,
    identity: Option<mesh_identity::Status>,
}

impl Mesh {
    /// The mode, and the identity of this process where it has one.
    fn certs(&self) -> Certs {
        Certs {
            mode: self.identities().mode,
            identity: self.identity().map(mesh_identity::Identity::status),
        }
    }

    /// Answers a GET of what is below `/mesh/`; `None`: there is no such page.
    ///
    /// `/mesh/tap` takes `method`, `caller`, `code` (see [`TapFilter`]) and `limit`, and streams calls as they end, one
    /// JSON object per line, until the reader hangs up or has `limit` of them. A line `{"dropped": N}` says how many were
    /// lost so far because the reader was too slow.
    pub fn inspect(&self, uri: &Uri) -> Option<Response<Body>> {
        Some(match uri.path() {
            "/mesh/endpoints" => json_page(StatusCode::OK, &self.endpoints()),
            "/mesh/calls" => json_page(StatusCode::OK, &self.calls()),
            "/mesh/certs" => json_page(StatusCode::OK, &self.certs()),
            "/mesh/config" => json_page(StatusCode::OK, &*self.config()),
            "/mesh/tap" => match asked(uri.query().unwrap_or_default()) {
                Ok((filter, limit)) => match self.tap(filter) {
                    Some(tap) => lines(tap, limit),
                    None => refused(StatusCode::TOO_MANY_REQUESTS, "too many tap already"),
                },
                Err(why) => refused(StatusCode::BAD_REQUEST, &why),
            },
            _ => return None,
        })
    }
}

/// The query of a tap: what it wants, and how much of it.
fn asked(query: &str) -> Result<(TapFilter, Option<u64>), String> {
    let (mut filter, mut limit) = (TapFilter::default(), None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(value).decode_utf8();
        let value = value.map_err(|_| format!("{key} is no UTF-8"))?;
        match key {
            "method" => filter.method = Some(value.into_owned()),
            "caller" => filter.caller = Some(value.into_owned()),
            "code" => filter.code = Some(value.to_ascii_uppercase()),
            "limit" => {
                let number = value.parse().ok().filter(|number| *number > 0);
                limit = Some(number.ok_or("limit is a number above 0")?);
            }
            _ => return Err(format!("{key} is none of method, caller, code, limit")),
        }
    }
    Ok((filter, limit))
}

fn json_page(status: StatusCode, page: &impl Serialize) -> Response<Body> {
    let json = serde_json::to_vec(page).expect("pages are plain data with text keys");
    respond(status, JSON, Body::new(Full::from(json)))
}

fn refused(status: StatusCode, why: &str) -> Response<Body> {
    json_page(status, &json!({"error": why}))
}

fn lines(tap: Tap, limit: Option<u64>) -> Response<Body> {
    // What is left to send, and how many losses were told.
    let lines = stream::unfold((tap, limit, 0), |(mut tap, limit, told)| async move {
        if limit == Some(0) {
            return None;
        }
        let call = tap.next().await;
        let mut line = serde_json::to_vec(&call).expect("a call is plain data");
        line.push(b'\n');
        let dropped = tap.dropped();
        if dropped != told {
            line.extend(format!("{}\n", json!({"dropped": dropped})).bytes());
        }
        let frame = Ok::<_, Infallible>(Frame::data(Bytes::from(line)));
        Some((frame, (tap, limit.map(|left| left - 1), dropped)))
    });
    let body = Body::new(StreamBody::new(Box::pin(lines)));
    respond(StatusCode::OK, LINES, body)
}

fn respond(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_whole_or_refused_by_name() {
        let (filter, limit) = asked("method=a.B%2FC&caller=shop&code=unavailable&limit=2").unwrap();
        assert_eq!(filter.method.as_deref(), Some("a.B/C"));
        assert_eq!(filter.caller.as_deref(), Some("shop"));
        assert_eq!(filter.code.as_deref(), Some("UNAVAILABLE"));
        assert_eq!(limit, Some(2));
        assert_eq!(asked("").unwrap(), (TapFilter::default(), None));
        for (query, why) in [
            ("limit=0", "limit is"),
            ("limit=many", "limit is"),
            ("methods=x", "methods is none of"),
            ("method=%ff", "method is no UTF-8"),
        ] {
            let error = asked(query).unwrap_err();
            assert!(error.starts_with(why), "{query}: {error}");
        }
    }
}
