//! Rules for text that comes from outside, and the error that names the field at fault.
//!
//! Deliberately missing: trimming and normalising. What a client sends is stored and given back as
//! it is, or refused.

/// A value of a request that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Invalid {
    /// The field in the contract's spelling, such as `items[0].sku`.
    pub field: String,
    /// What is wrong with it, for people; never repeats a secret.
    pub reason: String,
}

impl Invalid {
    /// An error about `field`.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

/// The longest `request_id`, in characters.
pub const REQUEST_ID_CHARACTERS_MAX: usize = 200;
/// The longest SKU, in characters.
pub const SKU_CHARACTERS_MAX: usize = 64;

/// One line of text: `min` to `max` characters (Unicode scalar values), none of them a control
/// character.
pub fn bounded(field: &str, value: &str, min: usize, max: usize) -> Result<(), Invalid> {
    length(field, value, min, max)?;
    printable(field, value, &[])
}

/// Text of several lines: like [`bounded`], but line breaks (`\n`, `\r\n`) and tabs are allowed.
pub fn bounded_lines(field: &str, value: &str, min: usize, max: usize) -> Result<(), Invalid> {
    length(field, value, min, max)?;
    printable(field, value, &['\n', '\r', '\t'])
}

/// The key of a command: at most 200 characters of printable ASCII without a card number, since it is kept; empty means
/// none.
pub fn request_id(value: &str) -> Result<(), Invalid> {
    length("request_id", value, 0, REQUEST_ID_CHARACTERS_MAX)?;
    if value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return refuse_card_number("request_id", value);
    }
    Err(Invalid::new(
        "request_id",
        "must consist of printable ASCII characters",
    ))
}

/// A stock keeping unit: 1 to 64 characters of `A-Z a-z 0-9 . _ -`, not beginning with a full stop.
pub fn sku(field: &str, value: &str) -> Result<(), Invalid> {
    length(field, value, 1, SKU_CHARACTERS_MAX)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if !value.bytes().all(allowed) {
        return Err(Invalid::new(field, "may only contain A-Z a-z 0-9 . _ -"));
    }
    if value.starts_with('.') {
        return Err(Invalid::new(field, "must not begin with a full stop"));
    }
    Ok(())
}

/// Refuses text in which a payment card's number seems to stand (see [`contains_card_number`]).
/// The number is not repeated in the message.
pub fn refuse_card_number(field: &str, value: &str) -> Result<(), Invalid> {
    if contains_card_number(value) {
        return Err(Invalid::new(
            field,
            "seems to contain a payment card number; send a token of the provider instead",
        ));
    }
    Ok(())
}

/// Whether a payment card's number seems to stand in `text`: 13 to 19 digits with a valid check
/// digit (ISO/IEC 7812-1, Luhn), unbroken or in groups as cards print them (4 to 6 digits, then
/// groups of 3 to 7, all divided by single blanks or all by single hyphens).
///
/// Not taken for card numbers, so that honest references pass: runs of more than 19 digits; runs
/// inside an identifier, which is a word that changes between letters and digits four times or more
/// (hashes, our own ids); UUIDs, of which those that begin with the time have groups like a card's for
/// hours on end; and numbers as no issuer gives them out: those that begin with 0,
/// with 20 (a date), or with 1 unless they have 15 digits (times since 1970).
pub fn contains_card_number(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut runs = digit_runs(bytes);
    for start in 0..bytes.len().saturating_sub(UUID_BYTES - 1) {
        if is_uuid(&bytes[start..start + UUID_BYTES]) {
            runs.retain(|run| run.end <= start || start + UUID_BYTES <= run.start);
        }
    }
    runs.iter().enumerate().any(|(index, run)| {
        is_card_number(&bytes[run.start..run.end]) && !inside_identifier(bytes, run)
            || grouped_card_number(bytes, &runs[index..])
    })
}

const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;
const FIRST_GROUP_DIGITS: std::ops::RangeInclusive<usize> = 4..=6;
const NEXT_GROUP_DIGITS: std::ops::RangeInclusive<usize> = 3..=7;
/// How often an identifier at least changes between letters and digits.
const IDENTIFIER_CHANGES_MIN: usize = 4;

const UUID_BYTES: usize = 36;

/// Whether this is a UUID as RFC 9562 writes it: 8-4-4-4-12 hexadecimal digits.
fn is_uuid(bytes: &[u8]) -> bool {
    bytes.iter().enumerate().all(|(index, byte)| match index {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    })
}

struct Run {
    start: usize,
    end: usize,
}

fn digit_runs(bytes: &[u8]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (index, byte) in bytes.iter().enumerate() {
        if byte.is_ascii_digit() {
            match runs.last_mut() {
                Some(run) if run.end == index => run.end = index + 1,
                _ => runs.push(Run {
                    start: index,
                    end: index + 1,
                }),
            }
        }
    }
    runs
}

fn inside_identifier(bytes: &[u8], run: &Run) -> bool {
    let word = |byte: &u8| byte.is_ascii_alphanumeric();
    let start = bytes[..run.start]
        .iter()
        .rposition(|b| !word(b))
        .map_or(0, |index| index + 1);
    let end = bytes[run.end..]
        .iter()
        .position(|b| !word(b))
        .map_or(bytes.len(), |i| run.end + i);
    let changes = bytes[start..end]
        .windows(2)
        .filter(|pair| pair[0].is_ascii_digit() != pair[1].is_ascii_digit())
        .count();
    changes >= IDENTIFIER_CHANGES_MIN
}

/// Whether the groups that begin with the first run make up a card number.
fn grouped_card_number(bytes: &[u8], runs: &[Run]) -> bool {
    let first = &runs[0];
    if !FIRST_GROUP_DIGITS.contains(&(first.end - first.start)) {
        return false;
    }
    let mut digits = bytes[first.start..first.end].to_vec();
    let mut divider = None;
    for pair in runs.windows(2) {
        let (before, group) = (&pair[0], &pair[1]);
        let between = &bytes[before.end..group.start];
        let same = *divider.get_or_insert(between) == between;
        let shape = NEXT_GROUP_DIGITS.contains(&(group.end - group.start));
        if !same || !shape || !matches!(between, b" " | b"-") {
            return false;
        }
        digits.extend_from_slice(&bytes[group.start..group.end]);
        if digits.len() > *CARD_DIGITS.end() {
            return false;
        }
        if is_card_number(&digits) {
            return true;
        }
    }
    false
}

fn is_card_number(digits: &[u8]) -> bool {
    CARD_DIGITS.contains(&digits.len()) && is_issued(digits) && luhn(digits)
}

/// Whether an issuer may have given out such a number: 0 and 20 are nobody's, 1 is the airlines' (UATP,
/// 15 digits).
fn is_issued(digits: &[u8]) -> bool {
    match digits {
        [b'0', ..] | [b'2', b'0', ..] => false,
        [b'1', ..] => digits.len() == 15,
        _ => true,
    }
}

/// The check digit of ISO/IEC 7812-1, annex B.
fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(index, digit)| {
            let value = u32::from(digit - b'0') * if index % 2 == 1 { 2 } else { 1 };
            if value > 9 { value - 9 } else { value }
        })
        .sum();
    sum.is_multiple_of(10)
}

fn length(field: &str, value: &str, min: usize, max: usize) -> Result<(), Invalid> {
    if value.is_empty() && min > 0 {
        return Err(Invalid::new(field, "must not be empty"));
    }
    // Bytes bound characters from above, so a huge text is not counted.
    let count = if value.len() > max.saturating_mul(4) {
        max + 1
    } else {
        value.chars().count()
    };
    if count > max {
        return Err(Invalid::new(
            field,
            format!("must have at most {max} characters"),
        ));
    }
    if count < min {
        return Err(Invalid::new(
            field,
            format!("must have at least {min} characters"),
        ));
    }
    Ok(())
}

fn printable(field: &str, value: &str, allowed: &[char]) -> Result<(), Invalid> {
    match value
        .chars()
        .position(|c| c.is_control() && !allowed.contains(&c))
    {
        None => Ok(()),
        Some(index) => Err(Invalid::new(
            field,
            format!("contains a control character at character {}", index + 1),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_are_counted_in_characters() {
        assert_eq!(bounded("title", "가나다", 1, 3), Ok(()));
        let error = bounded("title", "가나다라", 1, 3).unwrap_err();
        assert_eq!(error.to_string(), "title: must have at most 3 characters");
        assert_eq!(
            bounded("title", "", 1, 3).unwrap_err().reason,
            "must not be empty"
        );
        assert_eq!(
            bounded("t", "a", 2, 3).unwrap_err().reason,
            "must have at least 2 characters"
        );
        assert_eq!(bounded("title", "", 0, 3), Ok(()));
        assert!(bounded("title", &"a".repeat(1_000_000), 1, 255).is_err());
    }

    #[test]
    fn control_characters_are_refused() {
        for text in ["a\0b", "a\u{7f}", "a\u{85}", "\u{1b}[31m"] {
            assert!(bounded("f", text, 0, 100).is_err(), "{text:?}");
            assert!(bounded_lines("f", text, 0, 100).is_err(), "{text:?}");
        }
        assert!(
            bounded("f", "a\nb", 0, 100)
                .unwrap_err()
                .reason
                .ends_with("at character 2")
        );
        assert_eq!(bounded_lines("f", "a\n\tb\r\n", 0, 100), Ok(()));
    }

    #[test]
    fn request_ids_are_printable_ascii() {
        assert_eq!(request_id(""), Ok(()));
        assert_eq!(request_id(&"~".repeat(200)), Ok(()));
        for text in ["\n", "é", &"a".repeat(201), "4242424242424242"] {
            assert_eq!(request_id(text).unwrap_err().field, "request_id");
        }
    }

    #[test]
    fn skus() {
        for good in ["A", "TRACK-00001", "a.b_c-9", &"x".repeat(64), "-x"] {
            assert_eq!(sku("sku", good), Ok(()), "{good}");
        }
        for bad in [
            "",
            ".hidden",
            "../x",
            "a b",
            "a/b",
            "가",
            "a\0",
            &"x".repeat(65),
        ] {
            assert!(sku("sku", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn card_numbers_are_found() {
        for text in [
            "4111111111111111",
            "5555555555554444",
            "378282246310005",
            "4222222222222",
            "6304000000000000000",
            "card 4111 1111 1111 1111, please",
            "4111-1111-1111-1111",
            "3782 822463 10005",
            "visa4111111111111111",
            "VISA-4111-1111-1111-1111",
            "ref:4111111111111111.",
            "고객 카드 4242424242424242 입니다",
            "tel 010 4111 1111 1111 1111",
        ] {
            assert!(contains_card_number(text), "{text}");
        }
        let error = refuse_card_number("reason", "4111111111111111").unwrap_err();
        assert_eq!(error.field, "reason");
        assert!(!error.reason.contains("4111"));
    }

    #[test]
    fn honest_references_pass() {
        for text in [
            "",
            "4111111111111112",                     // Wrong check digit.
            "411111111111",                         // 12 digits.
            "41111111111111111111111111",           // More than 19.
            "0000000000000000",                     // Zeroes pass Luhn.
            "12345678-1234-7123-8123-123456789012", // A UUID of digits only.
            "5f4dcc3b5aa765d61d8327deb882cf99",
            "pay_01h455vb4pex5vsknk084sn02q",
            "a1b2c4111111111111111d3e4f5",
            "INV-0001",
            "2026-11-22T10:15:30Z",
            "010-1234-5678",
            "4111 1111-1111 1111",
            "4111--1111--1111--1111",
            "4111.1111.1111.1111",
        ] {
            assert!(!contains_card_number(text), "{text}");
        }
    }

    #[test]
    fn dates_and_times_pass_although_their_check_digit_is_right() {
        for text in [
            "2021-0101-0000-0009",
            "20210101000009",
            "order-1700000000000001",
        ] {
            let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_digit).collect();
            assert!(luhn(&digits), "{text}");
            assert!(!contains_card_number(text), "{text}");
        }
        assert!(
            contains_card_number("135412345678911"),
            "an airline's card has 15 digits"
        );
    }

    fn with_check_digit(payload: &str) -> String {
        (0..10)
            .map(|digit| format!("{payload}{digit}"))
            .find(|number| luhn(number.as_bytes()))
            .unwrap()
    }

    /// Of version 7 from a moment whose digits are all decimal, with few letters after it: at random such
    /// ones are too rare to be tried.
    const UUID_WITH_MANY_DIGITS: &str = "01a2[0-9]{4}-[0-9]{4}-7[0-9]{3}-[89ab][0-9]{3}-[0-9a]{12}";

    proptest! {
        #[test]
        fn every_valid_number_is_found_and_every_changed_digit_is_not(
            payload in "[3-9][0-9]{11,17}", place in 0usize..13, shift in 1u8..10,
        ) {
            let number = with_check_digit(&payload);
            prop_assert!(contains_card_number(&number));
            let text = format!("order {number}: thanks");
            prop_assert!(contains_card_number(&text));
            let mut changed = number.into_bytes();
            changed[place] = (changed[place] - b'0' + shift) % 10 + b'0';
            prop_assert!(!is_card_number(&changed));
        }

        #[test]
        fn uuids_are_never_taken_for_card_numbers(id in UUID_WITH_MANY_DIGITS) {
            prop_assert!(!contains_card_number(&id));
            let key = format!("pay-{id}:2");
            prop_assert!(!contains_card_number(&key));
        }

        #[test]
        fn any_text_is_judged_without_panic(text in ".{0,60}") {
            let _ = contains_card_number(&text);
            let _ = bounded("f", &text, 1, 20);
            let _ = sku("f", &text);
        }
    }
}
