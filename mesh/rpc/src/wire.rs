//! What the mesh puts into headers, and how each value is spelled.
//!
//! Deliberately without decisions: which deadline or principal counts is decided by the layers.

use std::{borrow::Cow, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::status;

/// The names of the headers that carry a call's context; parsed once, since every call looks for all of them.
pub mod header {
    use http::HeaderName;

    /// How long the caller still waits; gRPC's own header.
    pub static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
    /// W3C Trace Context.
    pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
    /// Who the call is made for; absent: anonymous. Percent-encoded.
    pub static PRINCIPAL: HeaderName = HeaderName::from_static("mesh-principal");
    /// What the principal may do; comma separated, each percent-encoded.
    pub static SCOPES: HeaderName = HeaderName::from_static("mesh-scopes");
    /// How much it matters that the call succeeds; the lower of the caller's and the method's counts.
    pub static CRITICALITY: HeaderName = HeaderName::from_static("mesh-criticality");
    /// How often the call was made before, here or further up; gRPC's own header.
    pub static PREVIOUS_ATTEMPTS: HeaderName =
        HeaderName::from_static("grpc-previous-rpc-attempts");
    /// When the caller may try again, in milliseconds; negative: never. gRPC's own header.
    pub static RETRY_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
    /// A delay that the caller asks for, in milliseconds, where `mesh.server.faults` allows it.
    pub static FAULT_DELAY: HeaderName = HeaderName::from_static("mesh-fault-delay-ms");
    /// The gRPC code that the caller wants to get, where `mesh.server.faults` allows it.
    pub static FAULT_ABORT: HeaderName = HeaderName::from_static("mesh-fault-abort");
    /// Names the request of the outermost client in logs and errors.
    pub static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
}

/// The longest request id that is taken over from a caller, in bytes.
pub(crate) const REQUEST_ID_BYTES_MAX: usize = 128;

/// What stays as it is in a principal or scope: readable, and without the comma that separates.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b':')
    .remove(b'/')
    .remove(b'@');

pub(crate) fn encode_text(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// `None`: empty, or not what [`encode_text`] writes.
pub(crate) fn decode_text(encoded: &str) -> Option<String> {
    percent_decode_str(encoded)
        .decode_utf8()
        .ok()
        .filter(|text| !text.is_empty())
        .map(Cow::into_owned)
}

/// The header's value, where it is visible ASCII; the first one, where there are several.
pub(crate) fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// An absent header is `None`; one that is there and cannot be read refuses the call by its name.
pub(crate) fn read<T>(
    headers: &HeaderMap,
    name: &HeaderName,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, Status> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let parsed = value.to_str().ok().and_then(parse);
    parsed
        .map(Some)
        .ok_or_else(|| status::malformed_header(name.as_str()))
}

/// Replaces the header; a value that cannot stand in a header removes it.
pub(crate) fn set(headers: &mut HeaderMap, name: &HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => drop(headers.insert(name, value)),
        Err(_) => drop(headers.remove(name)),
    }
}

/// Replaces the header by a value that no other call has: it is kept out of HPACK's table, where it
/// would only push out what repeats.
pub(crate) fn set_unique(headers: &mut HeaderMap, name: &HeaderName, value: &str) {
    if let Ok(mut value) = HeaderValue::from_str(value) {
        value.set_sensitive(true);
        headers.insert(name, value);
    }
}

/// Replaces the header, or takes it away where there is nothing to say.
pub(crate) fn set_or_remove(headers: &mut HeaderMap, name: &HeaderName, value: Option<&str>) {
    match value {
        Some(value) => set(headers, name, value),
        None => drop(headers.remove(name)),
    }
}

/// Says how much time is left now, or that there is no limit.
pub(crate) fn set_timeout(headers: &mut HeaderMap, deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => {
            let left = deadline.saturating_duration_since(Instant::now());
            set_unique(headers, &header::GRPC_TIMEOUT, &encode_timeout(left));
        }
        None => drop(headers.remove(&header::GRPC_TIMEOUT)),
    }
}

/// `grpc-timeout` as the gRPC specification has it: at most eight digits and a unit. Rounded down, so
/// that the callee never waits longer than its caller; never zero, which some servers refuse.
pub(crate) fn encode_timeout(left: Duration) -> String {
    const DIGITS_MAX: u128 = 99_999_999;
    let (micros, millis) = (left.as_micros(), left.as_millis());
    if micros <= DIGITS_MAX {
        format!("{}u", micros.max(1))
    } else if millis <= DIGITS_MAX {
        format!("{millis}m")
    } else {
        format!("{}S", u128::from(left.as_secs()).min(DIGITS_MAX))
    }
}

/// The inverse of [`encode_timeout`], for every unit of the specification. `None`: malformed.
pub(crate) fn decode_timeout(value: &str) -> Option<Duration> {
    let unit = value.chars().last()?;
    let digits = value.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(amount * 3600),
        'M' => Duration::from_secs(amount * 60),
        'S' => Duration::from_secs(amount),
        'm' => Duration::from_millis(amount),
        'u' => Duration::from_micros(amount),
        'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// What the headers of an answer already say of its outcome.
pub(crate) fn code_of<B>(head: &Response<B>) -> Option<Code> {
    match code_in(head.headers()) {
        Some(code) => Some(code),
        None => match head.status() {
            StatusCode::OK => None,
            // gRPC's own mapping, for proxies that answer in a callee's place.
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Some(Code::Unavailable),
            StatusCode::BAD_REQUEST => Some(Code::Internal),
            StatusCode::UNAUTHORIZED => Some(Code::Unauthenticated),
            StatusCode::FORBIDDEN => Some(Code::PermissionDenied),
            StatusCode::NOT_FOUND => Some(Code::Unimplemented),
            _ => Some(Code::Unknown),
        },
    }
}

/// What headers or trailers say of it.
pub(crate) fn code_in(headers: &HeaderMap) -> Option<Code> {
    let code = headers.get(Status::GRPC_STATUS)?;
    Some(Code::from_bytes(code.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_survive_the_wire_and_never_grow() {
        for left in [
            Duration::from_micros(1),
            Duration::from_millis(1500),
            Duration::from_secs(99),
            Duration::from_secs(101),
            Duration::from_hours(72),
            Duration::from_hours(1440),
        ] {
            let decoded = decode_timeout(&encode_timeout(left)).unwrap();
            assert!(decoded <= left, "{left:?} became {decoded:?}");
            assert!(left < decoded + Duration::from_secs(1));
        }
    }

    #[test]
    fn a_timeout_of_nothing_is_sent_as_the_smallest_one() {
        assert_eq!(encode_timeout(Duration::ZERO), "1u");
    }

    #[test]
    fn malformed_timeouts_are_refused() {
        for value in [
            "",
            "1",
            "u",
            "123456789S",
            "1x",
            "-1S",
            "1.5S",
            "1 S",
            "+1S",
        ] {
            assert_eq!(decode_timeout(value), None, "{value:?}");
        }
    }

    #[test]
    fn every_unit_of_the_specification_is_read() {
        for (value, nanos) in [
            ("1H", 3_600_000_000_000_u128),
            ("2M", 120_000_000_000),
            ("3S", 3_000_000_000),
            ("4m", 4_000_000),
            ("5u", 5_000),
            ("6n", 6),
        ] {
            assert_eq!(decode_timeout(value).unwrap().as_nanos(), nanos, "{value}");
        }
    }

    #[test]
    fn text_with_commas_and_other_alphabets_survives_the_wire() {
        for text in ["shop", "a,b", "café 상점", "100%", "service/edge@cluster"] {
            let encoded = encode_text(text);
            assert!(encoded.is_ascii() && !encoded.contains(','), "{encoded}");
            assert_eq!(decode_text(&encoded).as_deref(), Some(text));
        }
    }
}
