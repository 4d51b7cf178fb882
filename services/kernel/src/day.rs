//! Times as microseconds since the Unix epoch (UTC): their texts, their days, and their protobuf
//! form of seconds and nanoseconds.
//!
//! Deliberately missing: the current time (an argument everywhere) and time zones: a day is a UTC
//! day.

use crate::text::Invalid;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime, Time};

/// Microseconds in one day.
pub const DAY_US: i64 = 86_400_000_000;
/// 0001-01-01T00:00:00Z, the first time that protobuf's Timestamp allows.
pub const TIME_US_MIN: i64 = -62_135_596_800_000_000;
/// 9999-12-31T23:59:59.999999Z, the last one.
pub const TIME_US_MAX: i64 = 253_402_300_799_999_999;

const DAY: &[time::format_description::BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]");

/// The UTC day of a time, as `YYYY-MM-DD`.
pub fn of(now_us: i64) -> String {
    moment(now_us)
        .date()
        .format(DAY)
        .expect("a year of four digits has this form")
}

/// A time as RFC 3339 in UTC, such as `2026-11-22T10:15:30.5Z`.
pub fn to_rfc3339(now_us: i64) -> String {
    moment(now_us)
        .format(&Rfc3339)
        .expect("a year of four digits has this form")
}

/// Reads an RFC 3339 time, with any offset; what is finer than a microsecond is cut off.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let now_us = i64::try_from(moment.unix_timestamp_nanos().div_euclid(1000)).ok()?;
    (TIME_US_MIN..=TIME_US_MAX)
        .contains(&now_us)
        .then_some(now_us)
}

/// Reads a UTC day (`YYYY-MM-DD`), or an RFC 3339 time on one, as the first microsecond of that day.
pub fn parse_start(field: &str, text: &str) -> Result<i64, Invalid> {
    let day = Date::parse(text, DAY)
        .ok()
        .map(|date| date.with_time(Time::MIDNIGHT).assume_utc().unix_timestamp())
        .and_then(|seconds| seconds.checked_mul(1_000_000))
        .filter(|start_us| (TIME_US_MIN..=TIME_US_MAX).contains(start_us));
    day.or_else(|| parse_rfc3339(text).map(start_of))
        .ok_or_else(|| {
            Invalid::new(
                field,
                "must be a day such as 2026-11-22 or a time such as 2026-11-22T10:15:30Z",
            )
        })
}

/// The first microsecond of the UTC day of a time.
pub fn start_of(now_us: i64) -> i64 {
    now_us - now_us.rem_euclid(DAY_US)
}

/// Protobuf's form of a time: seconds since the epoch, and the rest in nanoseconds (never negative).
pub fn to_seconds_nanos(now_us: i64) -> (i64, i32) {
    let nanos = i32::try_from(now_us.rem_euclid(1_000_000) * 1000).expect("below 10^9");
    (now_us.div_euclid(1_000_000), nanos)
}

/// Reads protobuf's form of a time; what is finer than a microsecond is cut off.
pub fn from_seconds_nanos(field: &str, seconds: i64, nanos: i32) -> Result<i64, Invalid> {
    seconds
        .checked_mul(1_000_000)
        .and_then(|whole_us| whole_us.checked_add(i64::from(nanos / 1000)))
        .filter(|_| (0..1_000_000_000).contains(&nanos))
        .filter(|now_us| (TIME_US_MIN..=TIME_US_MAX).contains(now_us))
        .ok_or_else(|| Invalid::new(field, "must be a time between the years 1 and 9999"))
}

/// The time as a calendar knows it, held within the years 1 to 9999.
fn moment(now_us: i64) -> OffsetDateTime {
    let held_us = now_us.clamp(TIME_US_MIN, TIME_US_MAX);
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(held_us) * 1000)
        .expect("the calendar covers the years 1 to 9999")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-11-22T10:15:30.5Z.
    const NOW_US: i64 = 1_795_342_530_500_000;

    #[test]
    fn texts_of_a_time() {
        assert_eq!(of(NOW_US), "2026-11-22");
        assert_eq!(to_rfc3339(NOW_US), "2026-11-22T10:15:30.5Z");
        assert_eq!(parse_rfc3339("2026-11-22T19:15:30.5+09:00"), Some(NOW_US));
        assert_eq!(
            parse_rfc3339("2026-11-22T10:15:30.500000999Z"),
            Some(NOW_US)
        );
        assert_eq!((of(-1), of(0)), ("1969-12-31".into(), "1970-01-01".into()));
        assert_eq!(
            (of(i64::MIN), of(i64::MAX)),
            ("0001-01-01".into(), "9999-12-31".into())
        );
        assert_eq!(to_rfc3339(TIME_US_MIN), "0001-01-01T00:00:00Z");
        assert_eq!(to_rfc3339(TIME_US_MAX), "9999-12-31T23:59:59.999999Z");
    }

    #[test]
    fn starts_of_days() {
        let start_us = start_of(NOW_US);
        assert_eq!(to_rfc3339(start_us), "2026-11-22T00:00:00Z");
        assert_eq!(parse_start("from", "2026-11-22"), Ok(start_us));
        assert_eq!(parse_start("from", "2026-11-22T10:15:30Z"), Ok(start_us));
        assert_eq!(
            parse_start("from", "2026-11-23T03:00:00+09:00"),
            Ok(start_us)
        );
        let refused = [
            "",
            "2026-11",
            "2026-13-01",
            "2026-02-29",
            "22.11.2026",
            "-0001-01-01",
            "0000-01-01",
            "2026-11-22 10:15",
            "99999-01-01",
            "2026-11-22T25:00:00Z",
            "2026-11-22\0",
        ];
        for text in refused {
            assert_eq!(
                parse_start("from", text).unwrap_err().field,
                "from",
                "{text}"
            );
        }
    }

    #[test]
    fn seconds_and_nanoseconds() {
        assert_eq!(to_seconds_nanos(NOW_US), (1_795_342_530, 500_000_000));
        assert_eq!(to_seconds_nanos(-1), (-1, 999_999_000));
        assert_eq!(from_seconds_nanos("t", -1, 999_999_999), Ok(-1));
        for (seconds, nanos) in [
            (0, -1),
            (0, 1_000_000_000),
            (i64::MAX, 0),
            (i64::MIN, 0),
            (253_402_300_800, 0),
        ] {
            assert_eq!(
                from_seconds_nanos("t", seconds, nanos).unwrap_err().field,
                "t"
            );
        }
    }

    proptest! {
        #[test]
        fn every_time_reads_back(now_us in TIME_US_MIN..=TIME_US_MAX) {
            prop_assert_eq!(parse_rfc3339(&to_rfc3339(now_us)), Some(now_us));
            let (seconds, nanos) = to_seconds_nanos(now_us);
            prop_assert_eq!(from_seconds_nanos("t", seconds, nanos), Ok(now_us));
            prop_assert_eq!(parse_start("d", &of(now_us)), Ok(start_of(now_us)));
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".{0,40}") {
            let _ = parse_start("d", &text);
        }
    }
}
