//! pgbench on the same server: what the services are measured against.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use xtask::{
    process::{collect, command},
    servers::Postgres,
};

/// Rows of pgbench's own tables: this times 100,000 accounts.
pub(crate) const SCALE: u32 = 100;
/// The database of pgbench's own tables.
pub(crate) const DATABASE: &str = "pgbench";

/// What pgbench runs.
pub(crate) enum Script<'a> {
    /// Its own, which is like TPC-B.
    TpcB,
    /// Its own reads by primary key.
    SelectOnly,
    /// A file, with the values of its variables, on a database.
    File {
        path: &'a Path,
        variables: &'a [(String, String)],
        database: &'a str,
    },
}

/// What a run of pgbench came to.
pub(crate) struct Run {
    /// Transactions that it says it did.
    pub(crate) transactions: u64,
    /// Transactions a second, without connecting.
    pub(crate) rate: f64,
}

/// Creates the tables.
pub(crate) fn initialise(postgres: &Postgres) -> Result<()> {
    let mut pgbench = command(postgres.programs().join("pgbench"));
    pgbench.args(["--initialize", "--quiet", "--scale", &SCALE.to_string()]);
    let ended = collect(pgbench.arg(postgres.url_of("postgres", DATABASE)))?;
    if !ended.status.success() {
        bail!("pgbench --initialize: {}", ended.text.trim());
    }
    Ok(())
}

/// Runs a script with prepared statements and two threads, as many as the machine has cores for.
pub(crate) fn run(
    postgres: &Postgres,
    script: &Script<'_>,
    clients: usize,
    length: Duration,
) -> Result<Run> {
    let mut pgbench = command(postgres.programs().join("pgbench"));
    pgbench.args(["--protocol", "prepared", "--jobs", "2"]);
    pgbench.args(["--client", &clients.to_string()]);
    pgbench.args(["--time", &length.as_secs().max(1).to_string()]);
    let database = match script {
        Script::TpcB => DATABASE,
        Script::SelectOnly => {
            pgbench.args(["--select-only", "--no-vacuum"]);
            DATABASE
        }
        Script::File {
            path,
            variables,
            database,
        } => {
            pgbench.arg("--no-vacuum").arg("--file").arg(path);
            for (name, value) in *variables {
                pgbench.arg("--define").arg(format!("{name}={value}"));
            }
            database
        }
    };
    let ended = collect(pgbench.arg(postgres.url_of("postgres", database)))?;
    if !ended.status.success() {
        bail!("pgbench: {}", ended.text.trim());
    }
    let run = Run {
        transactions: number(&ended.text, "transactions actually processed: ")?,
        rate: number(&ended.text, "tps = ")?,
    };
    match number::<u64>(&ended.text, "number of failed transactions: ") {
        Ok(0) => Ok(run),
        _ => bail!("pgbench: transactions failed: {}", ended.text.trim()),
    }
}

/// The number that follows a text.
fn number<T: std::str::FromStr>(text: &str, before: &str) -> Result<T> {
    let (_, rest) = text
        .split_once(before)
        .with_context(|| format!("pgbench did not say {before:?}: {text}"))?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(rest.len());
    let number = rest[..end].parse().ok();
    number.with_context(|| format!("pgbench said no number after {before:?}"))
}

/// A statement of a service as a script: each `$n` becomes what stands for it, `\set` lines come first.
pub(crate) fn write_script(
    path: &Path,
    sets: &[&str],
    statement: &str,
    parameters: &[String],
) -> Result<()> {
    let lines = statement.lines().map(|line| match line.split_once("--") {
        Some((sql, _comment)) => sql.trim(),
        None => line.trim(),
    });
    let mut sql = lines.collect::<Vec<_>>().join(" ");
    // The highest first: `$1` is the beginning of `$10`.
    for (index, parameter) in parameters.iter().enumerate().rev() {
        sql = sql.replace(&format!("${}", index + 1), parameter);
    }
    let script = format!("{}\n{};\n", sets.join("\n"), sql.trim());
    fs::write(path, script).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found() {
        let text = "number of transactions actually processed: 17/17\ntps = 3.5 (without";
        assert_eq!(number::<u64>(text, "actually processed: ").unwrap(), 17);
        assert!((number::<f64>(text, "tps = ").unwrap() - 3.5).abs() < 1e-9);
        assert!(number::<u64>(text, "failed: ").is_err());
    }

    #[test]
    fn a_statement_becomes_a_script() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script.sql");
        let parameters: Vec<String> = (1..=10).map(|n| format!(":p{n}")).collect();
        write_script(
            &path,
            &["\\set a 1"],
            "-- Why.\nSELECT $1, -- one\n $10",
            &parameters,
        )
        .unwrap();
        let script = fs::read_to_string(path).unwrap();
        assert_eq!(script, "\\set a 1\nSELECT :p1, :p10;\n");
    }
}
