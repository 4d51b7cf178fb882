//! The tables, as Markdown: printed, and kept in docs/performance.md between two marks for each benchmark.

use std::{fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use xtask::checkout;

use crate::{
    cpu,
    figures::{Spread, TARGETS, Target},
    house::House,
    pages::Pages,
    pgbench,
    rounds::Rounds,
    store::Options,
};

/// How much a figure may differ between the sizes, and how much slower a page far in may be.
const GROWTH_MAX: f64 = 0.2;
const DELIVERY_P99_MS_MAX: f64 = 100.0;

/// Everything that was measured.
pub(crate) struct Report {
    head: String,
    small: Rounds,
    grown: Option<(Rounds, Vec<Pages>)>,
}

impl Report {
    /// Of the first rounds.
    pub(crate) async fn new(options: &Options, house: &House, small: Rounds) -> Result<Report> {
        let version: String = sqlx::query_scalar("SELECT current_setting('server_version')")
            .fetch_one(&house.product.database)
            .await?;
        let settings: Vec<(String, String)> = sqlx::query_as(
            "SELECT name, current_setting(name) FROM pg_settings \
             WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes', 'shared_buffers') ORDER BY name",
        )
        .fetch_all(&house.product.database)
        .await?;
        let settings: Vec<_> = settings
            .iter()
            .map(|(name, value)| format!("`{name} = {value}`"))
            .collect();
        let cores = std::thread::available_parallelism()?;
        let head = format!(
            "{} cores ({}), PostgreSQL {version} with {}, pgbench `-M prepared -s {}`; {} rounds of {} s, interleaved. \
             Medians, in parentheses the range of the rounds. Ratios are taken round by round.\n",
            cores,
            processor()?,
            settings.join(", "),
            pgbench::SCALE,
            options.rounds,
            options.seconds,
        );
        Ok(Report {
            head,
            small,
            grown: None,
        })
    }

    /// With the rounds on more rows.
    pub(crate) fn grown(&mut self, rounds: Rounds, pages: Vec<Pages>) {
        self.grown = Some((rounds, pages));
    }

    /// As Markdown.
    pub(crate) fn text(&self, house: &House) -> Result<String> {
        let mut text = self.head.clone();
        section(&mut text, &self.small)?;
        if let Some((rounds, pages)) = &self.grown {
            section(&mut text, rounds)?;
            growth(&mut text, &self.small, rounds)?;
            far_pages(&mut text, pages)?;
        }
        for service in house.services() {
            let peak_mib = service.peak_memory_mib()?;
            writeln!(text, "\nPeak memory of {}: {peak_mib} MiB.", service.name)?;
        }
        Ok(text)
    }
}

/// What a call costs in each process.
fn costs(text: &mut String, rounds: &Rounds) -> Result<()> {
    let who = cpu::WHO;
    writeln!(
        text,
        "\nProcessor milliseconds of a call, its events included as far as they were told while calls ran:\n"
    )?;
    writeln!(text, "| measured | clients | {} |", who.join(" | "))?;
    writeln!(text, "|---|---:|{}", "---:|".repeat(who.len()))?;
    for ((figure, clients), costs) in &rounds.costs {
        write!(text, "| {} | {clients} |", figure.name())?;
        for each in 0..who.len() {
            let spread = Spread::of(&costs.iter().map(|cost| cost[each]).collect::<Vec<_>>());
            let median_ms = spread.map_or(0.0, |spread| spread.median);
            write!(text, " {median_ms:.2} |")?;
        }
        writeln!(text)?;
    }
    Ok(())
}

fn section(text: &mut String, rounds: &Rounds) -> Result<()> {
    writeln!(
        text,
        "\n### {} products and payments\n",
        thousands(rounds.size)
    )?;
    writeln!(
        text,
        "| measured | clients | a second | p50, p99 | compared with | a second | ratio | target |"
    )?;
    writeln!(text, "|---|---:|---:|---:|---|---:|---:|---:|")?;
    for target in &TARGETS {
        for clients in rounds.figures.clients(target.figure) {
            row(text, rounds, target, clients)?;
        }
    }
    if let Some(spread) = Spread::of(&rounds.deliveries_p99_ms) {
        let verdict = verdict(spread.median <= DELIVERY_P99_MS_MAX);
        writeln!(
            text,
            "\nFrom commit to consumer at 500 events a second: p99 {} ms; target ≤ {DELIVERY_P99_MS_MAX:.0} ms: {verdict}.",
            shown(spread, 1)
        )?;
    }
    if let Some((postgres, journal)) = rounds.commits {
        writeln!(
            text,
            "\nA purchase took {postgres:.1} commits on PostgreSQL, of both services with their relays and the consumer, \
             and {journal:.1} in the simulator's journal."
        )?;
    }
    if !rounds.costs.is_empty() {
        costs(text, rounds)?;
    }
    let [product, payment] = rounds.connections;
    writeln!(
        text,
        "\nConnections at most: product {product}, payment {payment}. Effects counted: {}, none missing, none too many.",
        thousands(rounds.verified)
    )?;
    Ok(())
}

fn row(text: &mut String, rounds: &Rounds, target: &Target, clients: usize) -> Result<()> {
    let figures = &rounds.figures;
    let (Some(rate), Some(against), Some(ratio)) = (
        figures.rates(target.figure, clients),
        figures.rates(target.against, clients),
        figures.ratio(target, clients),
    ) else {
        return Ok(()); // Not asked for.
    };
    let latency = figures.latency_ms(target.figure, clients);
    let latency = latency.map_or_else(String::new, |(p50, p99)| format!("{p50:.1}, {p99:.1} ms"));
    let number = if clients == 0 {
        String::new()
    } else {
        clients.to_string()
    };
    writeln!(
        text,
        "| {} | {number} | {} | {latency} | {} | {} | **{}** | ≥ {}: {} |",
        target.figure.name(),
        shown(rate, 0),
        target.against.name(),
        shown(against, 0),
        shown(ratio, 2),
        target.ratio,
        verdict(ratio.median >= target.ratio)
    )?;
    Ok(())
}

/// What became of the ratios with more rows.
fn growth(text: &mut String, small: &Rounds, large: &Rounds) -> Result<()> {
    writeln!(text, "\n### Growth\n")?;
    writeln!(
        text,
        "| measured | clients | compared with | ratio at {} | at {} | change | target |",
        thousands(small.size),
        thousands(large.size)
    )?;
    writeln!(text, "|---|---:|---|---:|---:|---:|---:|")?;
    for target in &TARGETS {
        for clients in large.figures.clients(target.figure) {
            let ratios = (
                small.figures.ratio(target, clients),
                large.figures.ratio(target, clients),
            );
            let (Some(before), Some(after)) = ratios else {
                continue;
            };
            let change = after.median / before.median - 1.0;
            let number = if clients == 0 {
                String::new()
            } else {
                clients.to_string()
            };
            writeln!(
                text,
                "| {} | {number} | {} | {:.2} | {:.2} | {:+.0} % | at most 20 % less: {} |",
                target.figure.name(),
                target.against.name(),
                before.median,
                after.median,
                change * 100.0,
                verdict(change >= -GROWTH_MAX)
            )?;
        }
    }
    Ok(())
}

fn far_pages(text: &mut String, pages: &[Pages]) -> Result<()> {
    writeln!(
        text,
        "\n| list | first page | 10,000th page | target |\n|---|---:|---:|---:|"
    )?;
    for page in pages {
        let alike = page.far_ms <= page.first_ms * (1.0 + GROWTH_MAX);
        writeln!(
            text,
            "| {} | {:.2} ms | {:.2} ms | at most 20 % more: {} |",
            page.list,
            page.first_ms,
            page.far_ms,
            verdict(alike)
        )?;
    }
    Ok(())
}

pub(crate) fn verdict(reached: bool) -> &'static str {
    if reached { "reached" } else { "missed" }
}

pub(crate) fn shown(spread: Spread, decimals: usize) -> String {
    let Spread {
        median,
        least,
        most,
    } = spread;
    format!("{median:.decimals$} ({least:.decimals$}–{most:.decimals$})")
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub(crate) fn processor() -> Result<String> {
    let known = fs::read_to_string("/proc/cpuinfo")?;
    let line = known.lines().find(|line| line.starts_with("model name"));
    let name = line
        .and_then(|line| line.split_once(": "))
        .map(|(_, name)| name);
    Ok(name.unwrap_or("unknown").to_owned())
}

/// Puts the tables of a benchmark between its marks, and leaves what people wrote around them.
pub(crate) fn write(benchmark: &str, report: &str) -> Result<()> {
    let path: PathBuf = checkout::root().join("docs/performance.md");
    let page =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let page = replaced(&page, benchmark, report)
        .with_context(|| format!("docs/performance.md has no two marks of {benchmark}"))?;
    fs::write(&path, page)?;
    println!("written into {}", path.display());
    Ok(())
}

fn replaced(page: &str, benchmark: &str, report: &str) -> Option<String> {
    let begins = format!("<!-- bench {benchmark} -->\n");
    let ends = format!("<!-- /bench {benchmark} -->");
    let (before, rest) = page.split_once(&begins)?;
    let (_, after) = rest.split_once(&ends)?;
    Some(format!("{before}{begins}{report}{ends}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_readable() {
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_000_000), "1,000,000");
    }

    #[test]
    fn only_what_is_between_the_marks_of_a_benchmark_is_replaced() {
        let page =
            "a\n<!-- bench x -->\nold\n<!-- /bench x -->\n<!-- bench y -->\nb\n<!-- /bench y -->\n";
        let written = replaced(page, "x", "new\n").unwrap();
        assert_eq!(written, page.replace("old", "new"));
        assert_eq!(replaced(page, "z", "new"), None);
    }
}
