//! `interop serve` is the server of the tests, `interop call ADDRESS` their client; both are the mesh. With certificates
//! of `meshctl certs` both speak mTLS, and nothing else.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand, ValueEnum as _};
use interop::{
    DESTINATION,
    cases::{Caller, Case},
    contract, server,
};
use mesh::{
    Config, Mesh,
    identity::{FilesConfig, Mode},
};
use prometheus::Registry;
use tokio::{net::TcpListener, signal::unix::SignalKind, time::timeout};
use tokio_util::sync::CancellationToken;

/// Longer than any case takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// The service that a folder of certificates was made for.
const SERVICE: &str = "interop";

/// gRPC's official interoperability tests.
#[derive(Parser)]
struct Arguments {
    /// A folder of `meshctl certs new --service interop`: strict mTLS. Without one: plaintext.
    #[arg(long, value_name = "FOLDER", global = true)]
    certificates: Option<PathBuf>,
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
    let arguments = Arguments::parse();
    let certificates = arguments.certificates.as_deref();
    let config = certificates.map_or_else(Config::default, strict);
    match arguments.side {
        Side::Serve => serve(config).await,
        Side::Call { address, cases } => {
            let scheme = certificates.map_or("http", |_| "https");
            call(config, &format!("{scheme}://{address}"), &cases).await
        }
    }
}

fn strict(certificates: &Path) -> Config {
    let mut config = Config::default();
    config.identity.mode = Mode::Strict;
    config.identity.files = Some(FilesConfig {
        certificate: certificates.join(SERVICE).join("certificate.pem"),
        key: certificates.join(SERVICE).join("key.pem"),
        bundle: certificates.join("bundle.pem"),
        ..FilesConfig::default()
    });
    config
}

async fn serve(config: Config) -> Result<()> {
    let mesh = Mesh::start(config, contract(), &Registry::new()).await?;
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

async fn call(mut config: Config, address: &str, cases: &[Case]) -> Result<()> {
    config
        .destinations
        .insert(DESTINATION.to_owned(), address.to_owned());
    let registry = Registry::new();
    let mesh = Mesh::start(config, contract(), &registry).await?;
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
