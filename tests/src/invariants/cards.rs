//! Card numbers: none may be stored or logged, wherever a caller put it.

use futures_util::TryStreamExt as _;
use sqlx::{AssertSqlSafe, Row};

use super::{Stores, Violations, stores::databases};

/// Digits of a card number, by ISO/IEC 7812.
const DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

/// No text and no document in any table contains a card number.
pub async fn no_card_number_is_stored(stores: &mut Stores) -> sqlx::Result<Violations> {
    let mut violations = Vec::new();
    for database in databases() {
        for table in stores.tables(database).await? {
            let mut columns = columns(stores, database, &table).await?;
            // A GTIN may look like a card number; a barcode column holds nothing else.
            columns.retain(|column| column != "barcode");
            let texts: Vec<_> = columns.iter().map(|column| as_text(column)).collect();
            if texts.is_empty() {
                continue;
            }
            let sql = format!("SELECT {} FROM {database}.{table}", texts.join(", "));
            let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(&mut stores.connection);
            while let Some(row) = rows.try_next().await? {
                for (place, column) in columns.iter().enumerate() {
                    let bytes: Option<&[u8]> = row.get(place);
                    if let Some(found) = bytes.and_then(card_number_in) {
                        violations.push(format!("{database}.{table}.{column}: {found}"));
                    }
                }
            }
        }
    }
    Ok(violations)
}

/// The bytes of a column, where they are text or a document.
fn as_text(column: &str) -> String {
    format!(
        "CASE WHEN typeof(\"{column}\") IN ('text', 'blob') THEN CAST(\"{column}\" AS BLOB) END"
    )
}

async fn columns(stores: &mut Stores, database: &str, table: &str) -> sqlx::Result<Vec<String>> {
    let sql = format!("SELECT name FROM pragma_table_info('{table}', '{database}')");
    sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_all(&mut stores.connection)
        .await
}

/// As [`card_number`]; most bytes have too few digits together to be looked at twice.
fn card_number_in(bytes: &[u8]) -> Option<String> {
    let mut together = 0;
    let enough = bytes.iter().any(|byte| {
        match byte {
            b'0'..=b'9' => together += 1,
            b' ' | b'-' => {}
            _ => together = 0,
        }
        together == *DIGITS.start()
    });
    enough
        .then(|| card_number(&String::from_utf8_lossy(bytes)))
        .flatten()
}

/// The first number in a text that could be a card's: 13 to 19 digits with the check digit of Luhn, in one
/// piece or in groups, and not a part of a longer word such as an id.
pub fn card_number(text: &str) -> Option<String> {
    let in_word = |character: char| character.is_alphanumeric() || "-_ ".contains(character);
    text.split(|character| !in_word(character)).find_map(|run| {
        let words: Vec<&str> = run.split(' ').collect();
        (0..words.len()).find_map(|from| begins_a_card(&words[from..]))
    })
}

/// The card number that these words begin with.
fn begins_a_card(words: &[&str]) -> Option<String> {
    let mut digits = Vec::new();
    for (place, word) in words.iter().enumerate() {
        let only_digits = word
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'-');
        digits.extend(word.chars().filter_map(|character| character.to_digit(10)));
        if !only_digits || digits.len() > *DIGITS.end() {
            return None;
        }
        if DIGITS.contains(&digits.len()) && issued(&digits) && luhn(&digits) {
            return Some(words[..=place].join(" "));
        }
    }
    None
}

/// Whether cards are issued that begin like this; a time in microseconds does not.
fn issued(digits: &[u32]) -> bool {
    let first_four = digits[..4]
        .iter()
        .fold(0, |number, digit| number * 10 + digit);
    (3000..7000).contains(&first_four) || (2221..=2720).contains(&first_four)
}

/// The check of ISO/IEC 7812, annex B.
fn luhn(digits: &[u32]) -> bool {
    let doubled = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match place % 2 {
            0 => *digit,
            _ => digit * 2 / 10 + digit * 2 % 10,
        });
    doubled.sum::<u32>() % 10 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn card_numbers_are_found_however_they_are_written() {
        for text in [
            "4242424242424242",
            "pay with 4242 4242 4242 4242 please",
            "{\"note\":\"5555-5555-5555-4444\"}",
            "378282246310005",
        ] {
            assert!(card_number(text).is_some(), "{text}");
            assert!(card_number_in(text.as_bytes()).is_some(), "{text}");
        }
    }

    #[test]
    fn other_numbers_are_none() {
        for text in [
            "4242424242424241",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "pay_4242424242424242",
            "1795372266758218 is a time",
            "424242424242",
            "order 42 of 2021-01-01",
        ] {
            assert_eq!(card_number(text), None, "{text}");
            assert_eq!(card_number_in(text.as_bytes()), None, "{text}");
        }
    }
}
