//! The shop as users start it, so that tests can kill it.

use std::process::ExitCode;

use clap::Parser;
use standalone::program::{self, Args};

#[tokio::main]
async fn main() -> ExitCode {
    match Box::pin(program::run(Args::parse())).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
