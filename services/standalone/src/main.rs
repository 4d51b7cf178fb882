//! What `cargo run` starts: the whole shop in one process.

use std::process::ExitCode;

use clap::Parser as _;
use standalone::program::{self, Args};

#[tokio::main]
async fn main() -> ExitCode {
    match Box::pin(program::run(Args::parse())).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}"); // One line; a backtrace tells a user nothing.
            ExitCode::FAILURE
        }
    }
}
