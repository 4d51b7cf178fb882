//! Timestamps and durations as text, by the proto3 JSON mapping.

use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// 0001-01-01T00:00:00Z, the first second that a Timestamp may hold.
pub(crate) const TIMESTAMP_SECONDS_MIN: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z, the last one.
pub(crate) const TIMESTAMP_SECONDS_MAX: i64 = 253_402_300_799;
/// About ten thousand years: the limit of a Duration, either way.
pub(crate) const DURATION_SECONDS_MAX: i64 = 315_576_000_000;
const NANOS_PER_SECOND: i32 = 1_000_000_000;

/// Seconds and nanoseconds of an RFC 3339 time in any offset.
pub(crate) fn parse_timestamp(text: &str) -> Result<(i64, i32), &'static str> {
    const EXPECTED: &str = "expected an RFC 3339 time such as \"2026-01-31T09:30:00Z\"";
    let fraction = text.split_once('.').map_or("", |(_, rest)| rest);
    if fraction.bytes().take_while(u8::is_ascii_digit).count() > 9 {
        return Err("expected at most nine digits after the second");
    }
    let moment = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| EXPECTED)?;
    let seconds = moment.unix_timestamp();
    if !(TIMESTAMP_SECONDS_MIN..=TIMESTAMP_SECONDS_MAX).contains(&seconds) {
        return Err("expected a time in the years 0001 to 9999 (UTC)");
    }
    Ok((
        seconds,
        i32::try_from(moment.nanosecond()).map_err(|_| EXPECTED)?,
    ))
}

/// A timestamp in UTC with 0, 3, 6 or 9 digits; `None` outside the years 0001 to 9999.
pub(crate) fn format_timestamp(seconds: i64, nanos: i32) -> Option<String> {
    let in_range = (TIMESTAMP_SECONDS_MIN..=TIMESTAMP_SECONDS_MAX).contains(&seconds)
        && (0..NANOS_PER_SECOND).contains(&nanos);
    let moment = OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .filter(|_| in_range)?;
    let moment = moment.to_offset(UtcOffset::UTC);
    Some(format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{}Z",
        moment.year(),
        u8::from(moment.month()),
        moment.day(),
        moment.hour(),
        moment.minute(),
        moment.second(),
        fraction(nanos),
    ))
}

/// Seconds and nanoseconds, of the same sign, of text such as `-1.5s`.
pub(crate) fn parse_duration(text: &str) -> Result<(i64, i32), &'static str> {
    const EXPECTED: &str = "expected a duration in seconds such as \"1.5s\"";
    const RANGE: &str = "expected at most 315576000000 seconds either way";
    let number = text.strip_suffix('s').ok_or(EXPECTED)?;
    let (negative, number) = number
        .strip_prefix('-')
        .map_or((false, number), |rest| (true, rest));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return Err(EXPECTED);
    }
    let seconds: i64 = whole.parse().map_err(|_| RANGE)?;
    let nanos: i32 = format!("{fraction:0<9}").parse().map_err(|_| EXPECTED)?;
    if seconds > DURATION_SECONDS_MAX || (seconds == DURATION_SECONDS_MAX && nanos > 0) {
        return Err(RANGE);
    }
    Ok(if negative {
        (-seconds, -nanos)
    } else {
        (seconds, nanos)
    })
}

/// A duration with 0, 3, 6 or 9 digits; `None` out of range or with mixed signs.
pub(crate) fn format_duration(seconds: i64, nanos: i32) -> Option<String> {
    let mixed = (seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0);
    let size = seconds.unsigned_abs();
    if mixed || size > DURATION_SECONDS_MAX.unsigned_abs() || nanos.abs() >= NANOS_PER_SECOND {
        return None;
    }
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    Some(format!("{sign}{size}{}s", fraction(nanos.abs())))
}

fn fraction(nanos: i32) -> String {
    match nanos {
        0 => String::new(),
        n if n % 1_000_000 == 0 => format!(".{:03}", n / 1_000_000),
        n if n % 1_000 == 0 => format!(".{:06}", n / 1_000),
        n => format!(".{n:09}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        for (text, printed) in [
            ("2026-01-31T09:30:00Z", "2026-01-31T09:30:00Z"),
            ("2026-01-31T09:30:00.5+09:00", "2026-01-31T00:30:00.500Z"),
            ("1969-12-31T23:59:59.000001Z", "1969-12-31T23:59:59.000001Z"),
            (
                "2026-01-31T09:30:00.123456789Z",
                "2026-01-31T09:30:00.123456789Z",
            ),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            (
                "9999-12-31T23:59:59.999999999Z",
                "9999-12-31T23:59:59.999999999Z",
            ),
        ] {
            let (seconds, nanos) = parse_timestamp(text).unwrap();
            assert_eq!(format_timestamp(seconds, nanos).as_deref(), Some(printed));
        }
        for text in [
            "",
            "now",
            "2026-01-31",
            "2026-01-31T09:30:00",
            "2026-02-30T00:00:00Z",
            "0001-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-01:00",
            "2026-01-31T09:30:00.1234567890Z",
            "2026-01-31T25:00:00Z",
            "12026-01-31T09:30:00Z",
            " 2026-01-31T09:30:00Z",
        ] {
            assert!(parse_timestamp(text).is_err(), "{text}");
        }
        assert_eq!(format_timestamp(TIMESTAMP_SECONDS_MAX + 1, 0), None);
        assert_eq!(format_timestamp(0, -1), None);
        assert_eq!(format_timestamp(0, NANOS_PER_SECOND), None);
    }

    #[test]
    fn durations() {
        for (text, value, printed) in [
            ("0s", (0, 0), "0s"),
            ("1.5s", (1, 500_000_000), "1.500s"),
            ("-1.000001s", (-1, -1_000), "-1.000001s"),
            ("-0.5s", (0, -500_000_000), "-0.500s"),
            ("315576000000s", (DURATION_SECONDS_MAX, 0), "315576000000s"),
            ("0.000000001s", (0, 1), "0.000000001s"),
        ] {
            assert_eq!(parse_duration(text), Ok(value), "{text}");
            assert_eq!(format_duration(value.0, value.1).as_deref(), Some(printed));
        }
        for text in [
            "",
            "s",
            "1",
            "1m",
            "+1s",
            "1.s",
            ".5s",
            "1.0000000000s",
            "315576000000.1s",
            "1e3s",
            "--1s",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(format_duration(1, -1), None);
        assert_eq!(format_duration(DURATION_SECONDS_MAX + 1, 0), None);
    }
}
