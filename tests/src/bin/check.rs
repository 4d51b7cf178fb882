//! The invariant checker as a program: over the databases of an embedded shop, or over the servers and the
//! provider's journal of a shop of processes. Looks only, changes nothing.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Parser;
use mesh_rabbitmq::{RabbitMqConfig, lag};
use mesh_runtime::Clock;
use serde_json::Value;
use tests::invariants::{
    NAMES, Stores, Violations, acknowledged_is_there, check, queues_are_empty,
};

/// Checks every invariant of a shop that is at rest.
#[derive(Parser)]
struct Arguments {
    /// The data folder of an embedded shop.
    #[arg(long, value_name = "FOLDER", conflicts_with = "places")]
    data_dir: Option<PathBuf>,
    /// Where a shop of processes keeps its data: a JSON object with the URLs of `product`, `payment` (as somebody
    /// who may read everything) and `rabbitmq`, and the folder of the `simulator`'s journal.
    #[arg(long, value_name = "FILE", required_unless_present = "data_dir")]
    places: Option<PathBuf>,
    /// The answers that were acknowledged, as the fault harness writes them down.
    #[arg(long, value_name = "FILE")]
    acknowledged: Option<PathBuf>,
}

/// Who consumes events.
const CONSUMERS: [&str; 1] = ["product"];

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let now_us = Clock::system().now_us();
    let (mut stores, broker) = match (&arguments.data_dir, &arguments.places) {
        (Some(folder), _) => {
            if !folder.join("payment.db").is_file() {
                bail!("no shop keeps its data in {}", folder.display());
            }
            (Stores::open(folder, now_us).await?, None)
        }
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            let places: Value = serde_json::from_str(&text)?;
            let place = |name: &str| {
                let value = places[name].as_str();
                value.with_context(|| format!("{}: {name}: missing", file.display()))
            };
            let journal = PathBuf::from(place("simulator")?);
            let (product, payment) = (place("product")?, place("payment")?);
            let stores = Stores::copy(product, payment, &journal, now_us).await?;
            let mut broker = RabbitMqConfig {
                url: place("rabbitmq")?.to_owned(),
                password_file: places["rabbitmq_password_file"].as_str().map(PathBuf::from),
                ..RabbitMqConfig::default()
            };
            if let Some(user) = places["rabbitmq_user"].as_str() {
                user.clone_into(&mut broker.user);
            }
            (stores, Some(broker))
        }
        (None, None) => bail!("one of --data-dir and --places is needed"),
    };
    let mut violations = 0;
    let mut say = |name: &str, found: Violations| {
        println!(
            "{:<44} {}",
            name,
            if found.is_empty() { "ok" } else { "VIOLATED" }
        );
        for violation in &found {
            println!("    {violation}");
        }
        violations += found.len();
    };
    for name in NAMES {
        say(name, check(name, &mut stores).await?);
    }
    if let Some(file) = &arguments.acknowledged {
        let journal = std::fs::read_to_string(file)?;
        let found = acknowledged_is_there(&mut stores, &journal).await?;
        say("acknowledged_is_there", found);
    }
    if let Some(broker) = broker {
        say(
            "queues_are_empty",
            queues_are_empty(&queues(&broker).await?),
        );
    }
    println!("{violations} violations");
    Ok(if violations == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The queues of all consumers, each with the number of messages that wait in it.
async fn queues(broker: &RabbitMqConfig) -> anyhow::Result<Vec<(String, u64)>> {
    let consumers = CONSUMERS.map(str::to_owned);
    let mut queues = Vec::new();
    for (consumer, queue) in consumers.iter().zip(lag(broker, &consumers).await?) {
        queues.push((consumer.clone(), queue.ready.into()));
        queues.push((
            format!("{consumer}, for another attempt"),
            queue.waiting.into(),
        ));
        queues.push((format!("{consumer}, given up"), queue.dead.into()));
    }
    Ok(queues)
}
