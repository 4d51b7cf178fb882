//! A relay or a consumer as a process of its own, so that tests can kill it; see `tests::events`.

use clap::Parser as _;
use tests::events::worker::{Args, run};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    run(Args::parse()).await
}
