//! Media types: what a client sends and what it accepts.

use http::{HeaderMap, StatusCode, header};
use tonic::Code;

use crate::error::Refusal;

pub(crate) const JSON: &str = "application/json";
pub(crate) const NDJSON: &str = "application/x-ndjson";
pub(crate) const EVENTS: &str = "text/event-stream";

/// Whether the `Accept` header lets a media type through; an absent header accepts everything.
pub(crate) fn accepts(headers: &HeaderMap, media: &str) -> bool {
    quality(headers, media).is_none_or(|(quality, _)| quality > 0)
}

/// Whether a stream goes out as server-sent events: where the client asks for them by name.
pub(crate) fn wants_events(headers: &HeaderMap) -> bool {
    let by_name = |media| match quality(headers, media) {
        Some((quality, EXACT)) => quality,
        _ => 0,
    };
    let events = by_name(EVENTS);
    events > 0 && events >= by_name(NDJSON)
}

/// 406.
pub(crate) fn not_acceptable(offered: &str) -> Refusal {
    let message = format!("Accept: this answers {offered}");
    Refusal::new(
        StatusCode::NOT_ACCEPTABLE,
        Code::InvalidArgument,
        "NOT_ACCEPTABLE",
        message,
    )
}

/// Refuses a body that does not say that it is JSON in UTF-8. Strict on purpose: what a web page can send
/// without asking first (forms, plain text, no type at all) never counts as JSON.
pub(crate) fn check_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let (media, parameters) = value.map_or(("", ""), |v| v.split_once(';').unwrap_or((v, "")));
    let charset = parameters
        .split(';')
        .filter_map(|p| p.trim().split_once('='))
        .find_map(|(k, v)| {
            k.eq_ignore_ascii_case("charset")
                .then(|| v.trim_matches('"').to_ascii_lowercase())
        });
    let utf8 = charset.is_none_or(|charset| charset == "utf-8");
    if media.trim().eq_ignore_ascii_case(JSON) && utf8 {
        return Ok(());
    }
    let message = "Content-Type: expected application/json";
    let http = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Err(Refusal::new(
        http,
        Code::InvalidArgument,
        "UNSUPPORTED_MEDIA_TYPE",
        message,
    )
    .with_header(header::ACCEPT, JSON))
}

const EXACT: u8 = 2;

/// The quality (in thousandths) of the most specific range that matches, and how specific it is.
/// `None`: there is no `Accept` header.
fn quality(headers: &HeaderMap, media: &str) -> Option<(u32, u8)> {
    let mut best: Option<(u32, u8)> = None;
    let mut any = false;
    for value in headers.get_all(header::ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            any = true;
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let family = media.split('/').next().unwrap_or_default();
            let specific = if name == media {
                EXACT
            } else if name.strip_suffix("/*") == Some(family) {
                1
            } else if name == "*/*" {
                0
            } else {
                continue;
            };
            let q = parts
                .filter_map(|p| p.split_once('='))
                .find(|(key, _)| key.trim().eq_ignore_ascii_case("q"))
                .map_or(1.0, |(_, q)| {
                    q.trim().parse::<f64>().unwrap_or(0.0).clamp(0.0, 1.0)
                });
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "0 to 1000"
            )]
            let q = (q * 1000.0) as u32;
            if best.is_none_or(|(_, known)| specific > known) {
                best = Some((q, specific));
            }
        }
    }
    any.then(|| best.unwrap_or((0, 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &str) -> HeaderMap {
        [(header::ACCEPT, value.parse().unwrap())]
            .into_iter()
            .collect()
    }

    #[test]
    fn ranges_match_by_the_most_specific() {
        for (value, json, events) in [
            ("*/*", true, false),
            ("application/json", true, false),
            ("application/*;q=0.5", true, false),
            ("text/html, */*;q=0.1", true, false),
            ("text/html", false, false),
            ("application/json;q=0, */*", false, false),
            ("text/event-stream", false, true),
            ("TEXT/EVENT-STREAM ; q=0.2", false, true),
            ("text/event-stream;q=0", false, false),
            (
                "application/x-ndjson, text/event-stream;q=0.5",
                false,
                false,
            ),
        ] {
            assert_eq!(accepts(&accept(value), JSON), json, "{value}");
            assert_eq!(wants_events(&accept(value)), events, "{value}");
        }
        assert!(accepts(&HeaderMap::new(), JSON));
        assert!(!wants_events(&HeaderMap::new()));
    }

    #[test]
    fn only_json_counts_as_json() {
        let content = |value: &str| -> HeaderMap {
            [(header::CONTENT_TYPE, value.parse().unwrap())]
                .into_iter()
                .collect()
        };
        for value in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/json;charset=\"utf-8\"",
        ] {
            assert!(check_json(&content(value)).is_ok(), "{value}");
        }
        for value in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonp",
            "application/json; charset=euc-kr",
            "",
        ] {
            assert!(check_json(&content(value)).is_err(), "{value}");
        }
        assert!(check_json(&HeaderMap::new()).is_err());
    }
}
