//! How far events are behind, from commit to effect.
//!
//! Outboxes are read where their services report them, at `/metrics` of the admin endpoint: so this tool needs no
//! key to anybody's database, and says the same of every database there is. A service that is down does not
//! answer, which is worth knowing too. Queues are counted by the broker.

use std::io::Write;

use anyhow::ensure;
use mesh_rabbitmq::{QueueLag, RabbitMqConfig};

use crate::admin::Admin;

const PENDING: &str = "mesh_outbox_pending";
const OLDEST: &str = "mesh_outbox_oldest_age_seconds";
const IN_FLIGHT: &str = "mesh_consumer_in_flight";

/// Prints a line for each outbox, consumer and queue. Fails after the last one if a service did not answer.
pub(crate) async fn run(
    config: &RabbitMqConfig,
    consumers: &[String],
    admins: &[Admin],
    behind: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let mut unanswered = Vec::new();
    for admin in admins {
        match admin.text("/metrics").await {
            Ok(text) => report(&text, behind, out)?,
            Err(error) => unanswered.push(format!("{error:#}")),
        }
    }
    if !consumers.is_empty() {
        let lags = mesh_rabbitmq::lag(config, consumers).await?;
        for (consumer, lag) in consumers.iter().zip(lags) {
            let QueueLag {
                ready,
                waiting,
                dead,
                replicas,
            } = lag;
            if !behind || ready + waiting + dead > 0 {
                writeln!(
                    out,
                    "queue\t{consumer}\t{ready} ready\t{waiting} waiting for a retry\t{dead} dead\t{replicas} replicas"
                )?;
            }
        }
    }
    ensure!(unanswered.is_empty(), "{}", unanswered.join("\n"));
    Ok(())
}

/// The lines about the outboxes and consumers of one service.
fn report(text: &str, behind: bool, out: &mut impl Write) -> anyhow::Result<()> {
    for (outbox, pending) in values(text, PENDING) {
        let mut ages = values(text, OLDEST);
        let oldest = ages
            .find(|(name, _)| *name == outbox)
            .map_or(0.0, |(_, age)| age);
        if !behind || pending > 0.0 {
            writeln!(
                out,
                "outbox\t{outbox}\t{pending} pending\tthe oldest for {oldest:.1} s"
            )?;
        }
    }
    for (consumer, in_flight) in values(text, IN_FLIGHT) {
        if !behind || in_flight > 0.0 {
            writeln!(out, "consumer\t{consumer}\t{in_flight} in flight")?;
        }
    }
    Ok(())
}

/// What a metric with one label says: the label's value and the number, of lines such as
/// `mesh_outbox_pending{outbox="payment"} 12`.
fn values<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
    text.lines().filter_map(move |line| {
        let labels = line.strip_prefix(name)?.strip_prefix('{')?;
        let (labels, value) = labels.split_once("} ")?;
        let label = labels.split('"').nth(1)?;
        Some((label, value.trim().parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "\
# HELP mesh_outbox_pending Events committed and not yet confirmed by the bus
# TYPE mesh_outbox_pending gauge
mesh_outbox_pending{outbox=\"payment\"} 12
mesh_outbox_pending{outbox=\"product\"} 0
mesh_outbox_pending_other{outbox=\"payment\"} 99
mesh_outbox_oldest_age_seconds{outbox=\"payment\"} 3.25
mesh_outbox_oldest_age_seconds{outbox=\"product\"} 0
mesh_consumer_in_flight{consumer=\"product\"} 2
";

    fn reported(behind: bool) -> String {
        let mut out = Vec::new();
        report(METRICS, behind, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn outboxes_and_consumers_are_read_from_metrics() {
        assert_eq!(
            reported(false),
            "outbox\tpayment\t12 pending\tthe oldest for 3.2 s\n\
             outbox\tproduct\t0 pending\tthe oldest for 0.0 s\n\
             consumer\tproduct\t2 in flight\n"
        );
    }

    #[test]
    fn only_those_that_are_behind_are_shown_when_that_is_asked_for() {
        let shown = reported(true);
        assert!(
            shown.contains("payment") && !shown.contains("outbox\tproduct"),
            "{shown}"
        );
    }
}
