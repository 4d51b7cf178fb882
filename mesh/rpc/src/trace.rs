//! W3C Trace Context, level 1: the identity of a call within its trace.
//!
//! These are the ids of log lines, exemplars and exported spans alike ([`crate::span!`]).
//!
//! Deliberately without `tracestate` (no vendor data is carried), sampling decisions (the flag of the
//! caller is passed on) and export (`mesh_runtime::telemetry` does that).

use std::fmt;

/// One span of a trace. `Display` is the `traceparent` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    id: u128,
    span: u64,
    /// The span above; 0: none that is known.
    parent: u64,
    flags: u8,
}

/// What identifies a span, for whoever exports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpanIds {
    /// Of the trace.
    pub trace: u128,
    /// Its own.
    pub span: u64,
    /// Of the span above; 0: there is none.
    pub parent: u64,
    /// Whether the outermost caller wants it kept.
    pub sampled: bool,
}

const SAMPLED: u8 = 1;

/// Version, trace, span and flags, with three dashes.
const HEADER_BYTES: usize = 2 + 1 + 32 + 1 + 16 + 1 + 2;

impl Trace {
    /// The first span of a new trace.
    pub(crate) fn root() -> Self {
        Self {
            id: non_zero(),
            span: non_zero(),
            parent: 0,
            flags: SAMPLED,
        }
    }

    /// A new span of the same trace.
    pub(crate) fn child(self) -> Self {
        Self {
            span: non_zero(),
            parent: self.span,
            ..self
        }
    }

    /// `None`: malformed. Of versions later than 00 the known prefix is read, as the standard asks.
    pub(crate) fn parse(header: &str) -> Option<Self> {
        let mut parts = header.split('-');
        let (version, id, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let version = u8::try_from(hex(version, 2)?).ok()?;
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return None;
        }
        let id = hex(id, 32)?;
        let span = u64::try_from(hex(span, 16)?).ok()?;
        let flags = u8::try_from(hex(flags, 2)?).ok()? & SAMPLED;
        (id != 0 && span != 0).then_some(Self {
            id,
            span,
            parent: 0,
            flags,
        })
    }

    pub(crate) fn trace_id(self) -> String {
        format!("{:032x}", self.id)
    }

    pub(crate) fn ids(self) -> SpanIds {
        SpanIds {
            trace: self.id,
            span: self.span,
            parent: self.parent,
            sampled: self.flags & SAMPLED != 0,
        }
    }

    /// The header's text. By hand, because every call writes one.
    fn encode(self) -> [u8; HEADER_BYTES] {
        let mut text = [b'-'; HEADER_BYTES];
        text[..2].copy_from_slice(b"00");
        write_hex(&mut text[3..35], &self.id.to_be_bytes());
        write_hex(&mut text[36..52], &self.span.to_be_bytes());
        write_hex(&mut text[53..], &[self.flags]);
        text
    }
}

/// Opens a span for collectors, with the ids of a [`crate::CallContext`]: `span!(context, "producer", otel.name = …)`. The
/// kind is `client`, `server`, `producer`, `consumer` or `internal`; the fields are OpenTelemetry's attributes, beside
/// `otel.name`, `otel.status_code` and `otel.link` (a `traceparent`). Where nobody exports, nothing of it is evaluated.
#[macro_export]
macro_rules! span {
    ($context:expr, $kind:literal, $($fields:tt)*) => {
        // A span that nobody takes would still be offered to the `log` crate, which some dependency asks for.
        if $crate::__tracing::span_enabled!(target: "mesh::span", $crate::__tracing::Level::DEBUG) {
            $crate::__tracing::debug_span!(
                target: "mesh::span",
                "span",
                otel.kind = $kind,
                otel.trace = $context.ids().trace,
                otel.span = $context.ids().span,
                otel.parent = $context.ids().parent,
                otel.sampled = $context.ids().sampled,
                $($fields)*
            )
        } else {
            $crate::__tracing::Span::none()
        }
    };
}

/// Two digits per byte.
fn write_hex(text: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.encode()).map_err(|_| fmt::Error)?)
    }
}

/// Exactly `digits` lower-case hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (text.len() == digits && text.bytes().all(lower))
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
}

/// The standard reserves zero for "invalid".
fn non_zero<T: Default + PartialEq>() -> T
where
    rand::distr::StandardUniform: rand::distr::Distribution<T>,
{
    loop {
        let value = rand::random::<T>();
        if value != T::default() {
            return value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_standards_example_survives() {
        assert_eq!(Trace::parse(EXAMPLE).unwrap().to_string(), EXAMPLE);
    }

    #[test]
    fn a_child_keeps_the_trace_and_changes_the_span() {
        let parent = Trace::parse(EXAMPLE).unwrap();
        let child = parent.child();
        assert_eq!(child.trace_id(), parent.trace_id());
        assert_ne!(child.span, parent.span);
        assert_eq!(child.ids().parent, parent.span);
        assert_eq!(child.flags, parent.flags);
    }

    #[test]
    fn malformed_headers_are_not_read() {
        for header in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b77-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Trace::parse(header), None, "{header:?}");
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03-more";
        assert_eq!(Trace::parse(later).unwrap().to_string(), EXAMPLE);
    }
}
