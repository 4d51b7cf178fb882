//! Benchmarks of the services as they are released; `cargo xtask bench` builds and runs it.
//!
//! It calls them like anybody else would and knows none of their crates.

mod cpu;
mod figures;
mod house;
mod load;
mod own;
mod pages;
mod payments;
mod pgbench;
mod products;
mod relay;
mod report;
mod rounds;
mod seed;
mod store;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What to measure.
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The services on PostgreSQL and RabbitMQ, beside pgbench on the same server.
    Store(store::Options),
}

fn main() -> ExitCode {
    let What::Store(options) = Arguments::parse().what;
    match store::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
