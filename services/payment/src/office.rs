//! What people do with the books at the command line: on the configured database, which the service may be using.
//!
//! Deliberately missing: providers. A reconciliation is asked for here, and the service carries it out.

use crate::audit::Record;
use crate::books;
use crate::config::ServiceConfig;
use crate::grpc::{csv, end_of_day, end_of_past_day, last_day};
use crate::reconcile::{Discrepancy, Kind, Run, Status};
use crate::reconciler::requested;
use crate::store::books::Closing;
use crate::store::database::{self, Database};
use crate::store::reconcile::{DiscrepanciesQuery, Resolution, RunsQuery};
use crate::wire::method;
use anyhow::Context as _;
use kernel::{DiscrepancyId, Money, day, text};
use std::fmt::Write as _;
use std::io::Write;

/// How many rows a list shows.
const ROWS_MAX: i64 = 1_000;

/// The books and reconciliations of the configured database.
pub struct Office {
    database: Database,
    now_us: i64,
}

/// Which discrepancies are shown.
#[derive(Debug, Default)]
pub struct Shown {
    /// Only with this provider.
    pub provider: Option<String>,
    /// Only of this kind, such as `missing_here`.
    pub kind: Option<String>,
    /// Only with this status; nothing: those that are open.
    pub status: Option<String>,
}

impl Office {
    /// Opens the database that is configured.
    pub async fn open(config: &ServiceConfig, now_us: i64) -> anyhow::Result<Self> {
        let database = database::beside(config).await?;
        Ok(Self { database, now_us })
    }

    /// Writes the books of some days as CSV, from the first day on and without the last one.
    pub async fn export(&self, from: &str, to: &str, into: &mut dyn Write) -> anyhow::Result<()> {
        let from_us = if from.is_empty() {
            0
        } else {
            day::parse_start("from", from)?
        };
        let to_us = if to.is_empty() {
            i64::MAX
        } else {
            day::parse_start("to", to)?
        };
        let mut pieces = csv(self.database.books(), from_us, to_us);
        while let Some(piece) = pieces.next().await? {
            into.write_all(piece.as_bytes())
                .context("writing the books")?;
        }
        into.flush().context("writing the books")
    }

    /// Where all accounts stood at the end of a day.
    pub async fn trial_balance(&self, day: &str) -> anyhow::Result<String> {
        let until_us = match day {
            "" => i64::MAX,
            text => end_of_day(text)?,
        };
        let mut text = String::new();
        for balance in books::trial_balances(self.database.books().trial(until_us).await?) {
            let shown = |amount_minor| shown(Money::new(balance.currency, amount_minor).ok());
            for account in &balance.accounts {
                writeln!(
                    text,
                    "{:40} {:>24}",
                    account.account,
                    shown(account.balance_minor)
                )?;
            }
            let (debits, credits) = (shown(balance.debits_minor), shown(balance.credits_minor));
            let sum = shown(balance.sum_minor());
            writeln!(
                text,
                "{:40} {sum:>24}  debits {debits}, credits {credits}\n",
                "sum"
            )?;
        }
        let closed = self.database.books().closed_until().await?;
        let closed = closed.map_or_else(|| "none".to_owned(), last_day);
        writeln!(text, "last closed day: {closed}")?;
        Ok(text)
    }

    /// Closes the books up to a day.
    pub async fn close(&self, day: &str, by: &str) -> anyhow::Result<String> {
        let by = person(by)?;
        let until_us = end_of_past_day(day, self.now_us)?;
        let object = format!("ledger:{}", last_day(until_us));
        let record = Record::new(
            by,
            method::CLOSE_PERIOD,
            object,
            "period closed".to_owned(),
            self.now_us,
        );
        let closing = Closing {
            until_us,
            by: by.to_owned(),
            now_us: self.now_us,
        };
        let answer = |until_us: &i64| last_day(*until_us).into_bytes();
        let closed = self
            .database
            .books()
            .close(None, &closing, &record, &answer)
            .await?;
        Ok(format!(
            "closed through {}\n",
            String::from_utf8_lossy(&closed.bytes)
        ))
    }

    /// Asks for a reconciliation.
    pub async fn reconcile(&self, provider: &str, by: &str) -> anyhow::Result<String> {
        let by = person(by)?;
        let run = Run::new(provider, by, self.now_us);
        let object = run.id.to_string();
        let record = Record::new(
            by,
            method::START_RECONCILIATION,
            object,
            requested(&run),
            self.now_us,
        );
        let answer = |run: &Run| line_of_run(run).into_bytes();
        let asked = self
            .database
            .reconciliations()
            .request(None, &run, &record, &answer)
            .await?;
        Ok(String::from_utf8_lossy(&asked.bytes).into_owned())
    }

    /// The reconciliations, newest first.
    pub async fn reconciliations(&self, provider: Option<String>) -> anyhow::Result<String> {
        let query = RunsQuery {
            provider,
            after: None,
            limit: ROWS_MAX,
        };
        let runs = self.database.reconciliations().runs(&query).await?;
        Ok(runs.iter().map(line_of_run).collect())
    }

    /// What differs.
    pub async fn discrepancies(&self, shown: Shown) -> anyhow::Result<String> {
        let kind = shown.kind.map(|name| {
            Kind::parse(&name).with_context(|| format!("{name:?} is no kind of discrepancy"))
        });
        let status = shown
            .status
            .unwrap_or_else(|| Status::Open.name().to_owned());
        let status = Status::parse(&status).with_context(|| format!("{status:?} is no status"))?;
        let query = DiscrepanciesQuery {
            provider: shown.provider,
            kind: kind.transpose()?,
            status: Some(status),
            after: None,
            limit: ROWS_MAX,
        };
        let found = self
            .database
            .reconciliations()
            .discrepancies(&query)
            .await?;
        Ok(found.iter().map(line_of_discrepancy).collect())
    }

    /// Says what a discrepancy was.
    pub async fn resolve(&self, id: &str, note: &str, by: &str) -> anyhow::Result<String> {
        let by = person(by)?;
        text::bounded("note", note, 1, 500)?;
        text::refuse_card_number("note", note)?;
        let resolution = Resolution {
            id: DiscrepancyId::parse(id).context("the discrepancy's id")?,
            by: by.to_owned(),
            note: note.to_owned(),
            now_us: self.now_us,
        };
        let outcome = "discrepancy resolved".to_owned();
        let record = Record::new(
            by,
            method::RESOLVE_DISCREPANCY,
            id.to_owned(),
            outcome,
            self.now_us,
        );
        let answer = |found: &Discrepancy| line_of_discrepancy(found).into_bytes();
        let store = self.database.reconciliations();
        let resolved = store.resolve(None, &resolution, &record, &answer).await?;
        Ok(String::from_utf8_lossy(&resolved.bytes).into_owned())
    }
}

/// Who sits at the command line, as records name them.
fn person(by: &str) -> anyhow::Result<&str> {
    text::bounded("by", by, 1, 100)?;
    text::refuse_card_number("by", by)?;
    Ok(by)
}

fn line_of_run(run: &Run) -> String {
    format!(
        "{} {} {} {} since {} until {}: {} lines, {} found, {} resolved themselves, {} booked {}\n",
        run.id,
        run.provider,
        run.state.name(),
        day::to_rfc3339(run.requested_at_us),
        day::to_rfc3339(run.since_us),
        day::to_rfc3339(run.until_us),
        run.lines,
        run.found,
        run.resolved,
        run.booked,
        run.error,
    )
}

fn line_of_discrepancy(found: &Discrepancy) -> String {
    let finding = &found.finding;
    let payment = finding
        .payment
        .map_or_else(|| "no payment".to_owned(), |id| id.to_string());
    let told = match found.status {
        Status::Open => finding.kind.next_step(finding.safe),
        Status::ResolvedItself => "resolved itself",
        Status::Resolved => &found.note,
    };
    format!(
        "{} {} {} {payment} {} here {} there {} as {}, {}: {told}\n",
        found.id,
        found.provider,
        finding.kind.name(),
        finding.our_reference,
        shown(finding.ours),
        shown(finding.theirs),
        if finding.provider_id.is_empty() {
            "nothing"
        } else {
            &finding.provider_id
        },
        day::to_rfc3339(finding.booked_at_us),
    )
}

fn shown(amount: Option<Money>) -> String {
    amount.map_or_else(
        || "nothing".to_owned(),
        |amount| format!("{} {}", amount.to_decimal(), amount.currency().code()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::MIGRATIONS;
    use mesh_store::{Sqlite, SqliteConfig};

    /// 2026-11-22T10:15:30.5Z.
    const NOW_US: i64 = 1_795_342_530_500_000;

    #[tokio::test]
    async fn everything_can_be_asked_of_empty_books() {
        let folder = tempfile::tempdir().unwrap();
        let database = SqliteConfig {
            path: folder.path().join("payment.db"),
            ..SqliteConfig::default()
        };
        let config = ServiceConfig {
            database: database.clone(),
            ..ServiceConfig::default()
        };
        let missing = Office::open(&config, NOW_US).await.err().unwrap();
        assert!(missing.to_string().contains("there is no database"));
        let sqlite = Sqlite::open(&database, &MIGRATIONS).await.unwrap();
        sqlite.close().await.unwrap();

        let office = Office::open(&config, NOW_US).await.unwrap();
        let mut file = Vec::new();
        office.export("", "", &mut file).await.unwrap();
        assert_eq!(file, books::HEADER.as_bytes());
        let trial = office.trial_balance("2026-11-20").await.unwrap();
        assert_eq!(trial, "last closed day: none\n");
        let early = office.close("2026-11-22", "accountant").await.unwrap_err();
        assert_eq!(early.to_string(), "the day 2026-11-22 is not over");
        let elsewhere = "2026-11-20T23:30:00-05:00"; // The 21st in UTC.
        for refused in [
            office.trial_balance(elsewhere).await,
            office.close(elsewhere, "accountant").await,
        ] {
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains("must be a day such as"), "{refused}");
        }
        let card = office
            .close("2026-11-21", "card 4111111111111111")
            .await
            .unwrap_err();
        assert!(card.to_string().contains("by"), "{card}");
        let closed = office.close("2026-11-21", "accountant").await.unwrap();
        assert_eq!(closed, "closed through 2026-11-21\n");
        let trial = office.trial_balance("").await.unwrap();
        assert_eq!(trial, "last closed day: 2026-11-21\n");

        let asked = office.reconcile("simulator", "accountant").await.unwrap();
        assert!(asked.starts_with("rec_") && asked.contains(" simulator requested "));
        assert_eq!(office.reconciliations(None).await.unwrap(), asked);
        let other = office.reconciliations(Some("other".to_owned())).await;
        assert_eq!(other.unwrap(), "");
        let found = office.discrepancies(Shown::default()).await;
        assert_eq!(found.unwrap(), "");
        let wrong = Shown {
            kind: Some("lost".to_owned()),
            ..Shown::default()
        };
        let wrong = office.discrepancies(wrong).await.unwrap_err();
        assert_eq!(wrong.to_string(), "\"lost\" is no kind of discrepancy");
        let nothing = DiscrepancyId::generate(NOW_US).to_string();
        let card = office
            .resolve(&nothing, "paid with 4111111111111111", "accountant")
            .await
            .unwrap_err();
        assert!(card.to_string().contains("note"), "{card}");
        let nothing = office
            .resolve(&nothing, "x", "accountant")
            .await
            .unwrap_err();
        assert!(nothing.to_string().contains("not found"), "{nothing}");
    }
}
