//! `meshctl`: looks into and operates running services.

mod admin;
mod certs;
mod events;
mod get;
mod health;
mod keys;

use clap::{Parser, Subcommand};

/// Looks into and operates running services.
#[derive(Parser)]
#[command(name = "meshctl", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What a running service shows of its mesh.
    Get {
        #[command(subcommand)]
        command: get::Command,
    },
    /// Whether a service says by gRPC that it is healthy; the exit status says it too.
    Health(health::Health),
    /// Calls as they end, until interrupted.
    Tap(get::Tap),
    /// API keys of the edge.
    Keys {
        #[command(subcommand)]
        command: keys::Command,
    },
    /// Certificates of a development authority, with SPIFFE IDs.
    Certs {
        #[command(subcommand)]
        command: certs::Command,
    },
    /// Events on RabbitMQ: exchange, queues, dead letters.
    Events {
        #[command(subcommand)]
        command: events::Command,
    },
}

fn main() -> anyhow::Result<()> {
    let Args { command } = Args::parse();
    match command {
        Command::Get { command } => get::run(command, &mut std::io::stdout()),
        Command::Health(health) => health::run(health, &mut std::io::stdout()),
        Command::Tap(tap) => get::tap(tap, &mut std::io::stdout()),
        Command::Keys { command } => keys::run(command, &mut std::io::stdout()),
        Command::Certs { command } => certs::run(command, &mut std::io::stdout()),
        Command::Events { command } => events::run(command, &mut std::io::stdout()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
