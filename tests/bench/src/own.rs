//! Payment's own statement as a pgbench script: the text that the service sent for a new payment and the values that
//! it bound, as the server logged both; but for the ids, which are fresh each time.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::Value;
use xtask::servers::Postgres;

use crate::{
    house::{self, Service},
    payments::Buyer,
    pgbench,
};

/// Digits: together with those of version and variant a UUIDv7's, as the lists expect, and never a key that was used
/// before.
const SETS: [&str; 3] = [
    "\\set a random(100000000000, 999999999999)",
    "\\set b random(100, 999)",
    "\\set c random(100000000000000, 999999999999999)",
];
/// What is put in the place of an id.
const FRESH: &str = "(:a || '7' || :b || '8' || :c)";
/// What order references begin with.
pub(crate) const PREFIX: &str = "own-";
const WHAT: &str = "INSERT INTO payments";

/// A script and its variables.
pub(crate) struct Own {
    path: PathBuf,
    variables: Vec<(String, String)>,
}

impl Own {
    /// Has a payment created and looks up in the server's log what the service did for it.
    pub(crate) async fn overhear(
        postgres: &Postgres,
        payment: &Service,
        buyer: &mut Buyer,
        folder: &Path,
    ) -> Result<Own> {
        log_statements(postgres, payment, true).await?;
        let bought = buyer.buy().await?;
        log_statements(postgres, payment, false).await?;
        let log = fs::read_to_string(postgres.folder().join("log.txt"))?;
        let (statement, values) =
            logged(&log, &bought.order_ref).context("the log does not show the statement")?;
        let (mut parameters, mut variables) = (Vec::new(), Vec::new());
        let mut given = None;
        for (index, value) in values.into_iter().enumerate() {
            let name = format!("p{index}");
            parameters.push(match value {
                None => "NULL".to_owned(),
                Some(document) if document.starts_with('{') => {
                    given = Some(renewed(&name, &document, &bought.order_ref)?);
                    variables.push((name, document));
                    "(SELECT document FROM given)".to_owned()
                }
                Some(value) => {
                    variables.push((name.clone(), value));
                    format!(":{name}")
                }
            });
        }
        let given = given.context("the statement takes no document")?;
        let statement = statement.replacen(
            "WITH",
            &format!("WITH given AS MATERIALIZED (SELECT ({given})::jsonb AS document),"),
            1,
        );
        let path = folder.join("create.pgbench");
        pgbench::write_script(&path, &SETS, &statement, &parameters)?;
        Ok(Own { path, variables })
    }

    /// For pgbench, on payment's database.
    pub(crate) fn script(&self) -> pgbench::Script<'_> {
        pgbench::Script::File {
            path: &self.path,
            variables: &self.variables,
            database: "payment",
        }
    }
}

/// The document that a variable holds, with fresh ids.
fn renewed(variable: &str, document: &str, order_ref: &str) -> Result<String> {
    let mut strings = BTreeSet::new();
    collect(&serde_json::from_str(document)?, &mut strings);
    let ids = strings.iter().filter(|value| is_id(value));
    let fresh = ids.map(|id| (id.as_str(), FRESH.to_owned()));
    let order = (order_ref, format!("'{PREFIX}' || {FRESH}"));
    Ok(fresh
        .chain([order])
        .fold(format!(":{variable}"), |text, (old, new)| {
            format!("replace({text}, '{old}', {new})")
        }))
}

fn collect(value: &Value, strings: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => drop(strings.insert(text.clone())),
        Value::Array(values) => values.iter().for_each(|value| collect(value, strings)),
        Value::Object(fields) => fields.values().for_each(|value| collect(value, strings)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A UUID, or a key in the letters of [`crate::load::fresh_key`].
fn is_id(value: &str) -> bool {
    let uuid = value.len() == 36 && value.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    let key = value.len() == 32 && value.chars().all(|c| ('a'..='p').contains(&c));
    uuid || key
}

async fn log_statements(postgres: &Postgres, payment: &Service, wanted: bool) -> Result<()> {
    let url = postgres.url();
    let milliseconds = if wanted { "0" } else { "-1" };
    let set = format!("ALTER SYSTEM SET log_min_duration_statement = {milliseconds}");
    house::execute(&url, &set).await?;
    house::execute(&url, "SELECT pg_reload_conf()").await?;
    let heard = async {
        let query = "SELECT current_setting('log_min_duration_statement')";
        while payment.text(query).await? != milliseconds {
            tokio::task::yield_now().await;
        }
        anyhow::Ok(())
    };
    heard.await
}

/// The statement that created a payment, and the text of each value; `None`: NULL.
fn logged(log: &str, order_ref: &str) -> Option<(String, Vec<Option<String>>)> {
    let mut lines = log.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((_, executed)) = line.split_once("  execute ") else {
            continue;
        };
        let mut statement = executed.split_once(": ")?.1.to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with('\t')) {
            statement.push('\n');
            statement.push_str(more.trim_start());
        }
        let detail = lines
            .peek()
            .and_then(|line| line.split_once("  parameters: "));
        if let Some((_, parameters)) = detail
            && statement.contains(WHAT)
            && parameters.contains(order_ref)
        {
            return Some((statement, values(parameters)));
        }
    }
    None
}

/// `$1 = 'one', $2 = NULL, $3 = 'it''s'`
fn values(mut parameters: &str) -> Vec<Option<String>> {
    let mut values = Vec::new();
    while let Some((_, rest)) = parameters.split_once(" = ") {
        let Some(quoted) = rest.strip_prefix('\'') else {
            values.push(None);
            parameters = rest;
            continue;
        };
        let mut value = String::new();
        let mut characters = quoted.char_indices().peekable();
        let mut end = quoted.len();
        while let Some((place, character)) = characters.next() {
            if character == '\'' && characters.next_if(|(_, next)| *next == '\'').is_none() {
                end = place + 1;
                break;
            }
            value.push(character);
        }
        values.push(Some(value));
        parameters = &quoted[end..];
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logged_statement_is_read_with_its_values() {
        let log = "x LOG:  duration: 0.1 ms  bind sqlx_s_1: INSERT INTO payments\n\
            x DETAIL:  parameters: $1 = 'o-1'\n\
            x LOG:  duration: 0.1 ms  execute sqlx_s_1: WITH a AS (\n\
            \tINSERT INTO payments) SELECT 1\n\
            x DETAIL:  parameters: $1 = 'o-1', $2 = NULL, $3 = 'it''s, $4 = ''x'''\n";
        let (statement, values) = logged(log, "o-1").unwrap();
        assert_eq!(statement, "WITH a AS (\nINSERT INTO payments) SELECT 1");
        let expected = [Some("o-1"), None, Some("it's, $4 = 'x'")];
        assert_eq!(values, expected.map(|value| value.map(str::to_owned)));
        assert!(logged(log, "o-2").is_none());
    }

    #[test]
    fn ids_are_told_from_other_values() {
        assert!(is_id("0190a0c1-7a3e-7c2b-9b1e-1f2d3c4b5a69"));
        assert!(is_id(&crate::load::fresh_key()));
        assert!(!is_id("requires confirmation"));
    }
}
