//! Card numbers: none may be stored or logged, wherever a caller put it.

use sqlx::{AssertSqlSafe, Row};

use super::{Stores, Violations, stores::databases};

/// Digits of a card number, by ISO/IEC 7812.
const DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

/// No text and no document in any table contains a card number.
pub async fn no_card_number_is_stored(stores: &mut Stores) -> sqlx::Result<Violations> {
    let mut violations = Vec::new();
    for database in databases() {
        for table in stores.tables(database).await? {
            for column in columns(stores, database, &table).await? {
                // A GTIN may look like a card number; a barcode column holds nothing else.
                if column == "barcode" {
                    continue;
                }
                let sql = format!(
                    "SELECT CAST(\"{column}\" AS BLOB) FROM {database}.{table} \
                     WHERE typeof(\"{column}\") IN ('text', 'blob')"
                );
                let rows = sqlx::query(AssertSqlSafe(sql))
                    .fetch_all(&mut stores.connection)
                    .await?;
                for row in rows {
                    let bytes: Vec<u8> = row.get(0);
                    if let Some(found) = card_number(&String::from_utf8_lossy(&bytes)) {
                        violations.push(format!("{database}.{table}.{column}: {found}"));
                    }
                }
            }
        }
    }
    Ok(violations)
}

async fn columns(stores: &mut Stores, database: &str, table: &str) -> sqlx::Result<Vec<String>> {
    let sql = format!("SELECT name FROM pragma_table_info('{table}', '{database}')");
    sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_all(&mut stores.connection)
        .await
}

/// The first number in a text that could be a card's: 13 to 19 digits with the check digit of Luhn, in one
/// piece or in groups, and not a part of a longer word such as an id.
pub fn card_number(text: &str) -> Option<String> {
    let in_word = |character: char| character.is_alphanumeric() || "-_ ".contains(character);
    text.split(|character| !in_word(character)).find_map(|run| {
        let words: Vec<&str> = run.split(' ').collect();
        (0..words.len()).find_map(|from| {
            (from + 1..=words.len()).find_map(|to| could_be_a_card(&words[from..to]))
        })
    })
}

fn could_be_a_card(words: &[&str]) -> Option<String> {
    let text = words.join(" ");
    let digits: Vec<u32> = text
        .chars()
        .filter_map(|character| character.to_digit(10))
        .collect();
    let only_digits = text
        .chars()
        .all(|character| character.is_ascii_digit() || "- ".contains(character));
    (only_digits && DIGITS.contains(&digits.len()) && issued(&digits) && luhn(&digits))
        .then_some(text)
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
        }
    }
}
