//! The program: flags, the log, progress, the ready screen, and an orderly end.

use crate::config::Config;
use crate::screen::{self, Ready};
use crate::shop::{Options, Progress, Shop};
use mesh_runtime::config::{self, CommonArgs, Overrides};
use mesh_runtime::{Clock, shutdown, telemetry};
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// Starts the whole shop in one process: REST edge, product and payment service, on embedded storage.
#[derive(Debug, clap::Parser)]
#[command(version)]
pub struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Where REST clients connect [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where probes and metrics are served [default: 127.0.0.1:9080].
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<SocketAddr>,
    /// The folder of the databases [default: ./data].
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Keep the data in a temporary folder that is removed at the end.
    #[arg(long, conflicts_with = "data_dir")]
    ephemeral: bool,
    /// Start with an empty catalogue.
    #[arg(long)]
    no_sample: bool,
    /// The file of hashed API keys (see `meshctl keys new`).
    #[arg(long, value_name = "FILE")]
    keys_file: Option<PathBuf>,
    /// Serve without API keys on an address that others can reach.
    #[arg(long)]
    insecure: bool,
}

/// How many products pass between two lines of progress where lines cannot be overwritten.
const PROGRESS_STEP: usize = 20;

/// Runs until a signal, or until a part fails.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let started = Instant::now();
    let overrides = Overrides::none()
        .set("--listen", "listen", args.listen)
        .set("--admin-listen", "admin_listen", args.admin_listen)
        .set("--data-dir", "data_dir", args.data_dir)
        .set("--ephemeral", "ephemeral", args.ephemeral.then_some(true))
        .set("--no-sample", "sample", args.no_sample.then_some(false))
        .set("--keys-file", "edge.keys.file", args.keys_file)
        .set("--insecure", "edge.insecure", args.insecure.then_some(true));
    let loaded = config::load::<Config>(&args.common, "SHOP", overrides)?;
    let edge = loaded.config.edge();
    edge.validate()?;
    edge::check_exposure(&edge, edge.listen)?;
    if args.common.check_config {
        let checked = loaded.config.mesh.check().await;
        checked.map_err(|error| loaded.refuse(&format!("mesh.{}", error.key), error.reason))?;
    }
    if let Some(answer) = loaded.answer(&args.common) {
        print!("{answer}");
        return Ok(());
    }
    let _telemetry = telemetry::init(&loaded.config.telemetry, mesh::log_context)?;
    mesh_runtime::open_files::raise();
    let signal = shutdown::on_signal()?;
    let following = loaded.following();
    let ephemeral = loaded.config.ephemeral;
    let progress = Box::new(tell);
    let options = Options {
        progress,
        ..Options::new(loaded.config)
    };
    let shop = tokio::select! {
        shop = Shop::start(options) => shop?,
        () = signal.cancelled() => return Ok(()), // Everything that was acknowledged is on disk.
    };
    let screen = screen::ready(&Ready {
        base: &shop.base_url(),
        admin: shop.admin_addr(),
        data_dir: (!ephemeral).then(|| shop.data_dir()),
        sample: shop.has_sample(),
        now_us: Clock::system().now_us(),
        took_ms: started.elapsed().as_millis(),
    });
    say(&screen);
    let (mesh, stopped) = (shop.mesh().clone(), CancellationToken::new());
    let followed = mesh::spawn(following.run(stopped.clone(), move |mut new: Config| {
        // Where the parts listen in here stands in no file.
        for (name, address) in &mesh.config().destinations {
            let destinations = &mut new.mesh.destinations;
            destinations.entry(name.clone()).or_insert(address.clone());
        }
        mesh.reload(new.mesh).map(|reloaded| reloaded.after_restart)
    }));
    tokio::select! {
        () = signal.cancelled() => say("Stopping.\n"),
        () = shop.ended() => {}
    }
    stopped.cancel();
    followed.await?;
    shop.stop().await
}

/// Progress goes to stderr, like the log: stdout holds the ready screen only.
fn tell(progress: Progress) {
    let overwrite = std::io::stderr().is_terminal();
    let line = match progress {
        Progress::Opening => "Opening the databases.\n".to_owned(),
        Progress::Sample { done, count } => {
            let last = done == count;
            if !overwrite && !last && done % PROGRESS_STEP != 0 {
                return;
            }
            let (begin, end) = if overwrite {
                ("\r", if last { "\n" } else { "" })
            } else {
                ("", "\n")
            };
            format!("{begin}Creating the sample catalogue: {done} of {count} products.{end}")
        }
    };
    let _ = std::io::stderr().write_all(line.as_bytes()); // Nobody listens: nobody misses it.
}

/// Says something on stdout, wherever that may lead.
fn say(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}
