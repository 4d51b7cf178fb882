//! `meshctl`: looks into and operates running services.

mod certs;
mod events;
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
