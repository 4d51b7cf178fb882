//! `interop serve` is the server of the tests, `interop call ADDRESS` their client; both are the mesh.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand, ValueEnum as _};
use interop::{
    DESTINATION,
    cases::{Caller, Case},
    contract, server,
};
use mesh::{Config, Mesh};
use prometheus::Registry;
use tokio::{net::TcpListener, signal::unix::SignalKind, time::timeout};
use tokio_util::sync::CancellationToken;

/// Longer than any case takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// gRPC's official interoperability tests.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    side: Side,
}

#[derive(Subcommand)]
enum Side {
    /// Prints the address that it serves on, and serves until SIGTERM.
    Serve,
    /// Goes through the cases, and prints a line for each.
    Call {
        /// Where the server is: `host:port`.
        address: String,
        /// Only this case; may be given several times.
        #[arg(long = "case", value_name = "NAME")]
        cases: Vec<Case>,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    match Arguments::parse().side {
        Side::Serve => serve().await,
        Side::Call { address, cases } => call(&address, &cases).await,
    }
}

async fn serve() -> Result<()> {
    let mesh = Mesh::new(Config::default(), contract(), &Registry::new())?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let mut terminate = tokio::signal::unix::signal(SignalKind::terminate())?;
    let shutdown = CancellationToken::new();
    let serving = mesh
        .server()
        .add(server::service())
        .serve(listener, shutdown.clone());
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => return Ok(ended?),
        _ = terminate.recv() => shutdown.cancel(),
    }
    Ok(serving.await?)
}

async fn call(address: &str, cases: &[Case]) -> Result<()> {
    let mut config = Config::default();
    config
        .destinations
        .insert(DESTINATION.to_owned(), format!("http://{address}"));
    let registry = Registry::new();
    let mesh = Mesh::new(config, contract(), &registry)?;
    let mut caller = Caller::new(&mesh, registry);
    let cases = if cases.is_empty() {
        Case::value_variants()
    } else {
        cases
    };
    let mut failed = 0;
    for case in cases {
        let name = case.to_possible_value().expect("no case is skipped");
        let verdict = match timeout(PATIENCE, caller.run(*case)).await {
            Ok(Ok(())) => "ok".to_owned(),
            Ok(Err(error)) => format!("failed: {error:#}"),
            Err(_) => format!("failed: not done after {PATIENCE:?}"),
        };
        failed += usize::from(verdict != "ok");
        println!("{} {verdict}", name.get_name());
    }
    if failed > 0 {
        bail!("{failed} of {} cases failed", cases.len());
    }
    Ok(())
}
