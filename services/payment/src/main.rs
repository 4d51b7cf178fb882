//! The payment service as a program.

use anyhow::Context as _;
use chassis::{FaultArgs, Task};
use clap::Parser;
use mesh_events::Faults;
use mesh_runtime::Clock;
use mesh_runtime::config::{self, CommonArgs, Overrides};
use payment::audit::Head;
use payment::office::{Office, Shown};
use payment::{Config, ServiceConfig};
use std::fs::File;
use std::io::Write;

/// Takes payments, keeps the books and sums up sales, over gRPC.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Where gRPC is served, such as 127.0.0.1:50052.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    #[command(flatten)]
    faults: FaultArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Bring the schema of the configured PostgreSQL up, before this release is rolled out.
    Migrate {
        /// The role that the service runs under; it may read and write rows, and only add to the books.
        #[arg(long, value_name = "NAME", default_value = "")]
        role: String,
    },
    /// Look at the record of who did what.
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// The books of the configured database, which may be in use.
    Books {
        #[command(subcommand)]
        command: BooksCommand,
    },
    /// Comparisons of providers' lists with the books of the configured database, which may be in use.
    Reconcile {
        #[command(subcommand)]
        command: ReconcileCommand,
    },
}

#[derive(clap::Subcommand)]
enum BooksCommand {
    /// Write the postings as CSV (RFC 4180), oldest first.
    Export {
        /// The first UTC day, such as 2026-01-01; without it, from the beginning.
        #[arg(long, value_name = "DAY", default_value = "")]
        from: String,
        /// The UTC day after the last one; without it, to the end.
        #[arg(long, value_name = "DAY", default_value = "")]
        to: String,
        /// Where to; without it, to standard output.
        #[arg(long, value_name = "FILE")]
        output: Option<std::path::PathBuf>,
    },
    /// Show where all accounts stood at the end of a UTC day, by currency, and that they sum to zero.
    TrialBalance {
        /// The day; without it, as of now.
        #[arg(long, value_name = "DAY", default_value = "")]
        day: String,
    },
    /// Close the books up to a UTC day that is over. There is no way back.
    Close {
        /// The last day to close.
        #[arg(long, value_name = "DAY")]
        day: String,
        /// Who closes them, for the record of who did what.
        #[arg(long, value_name = "NAME")]
        by: String,
    },
}

#[derive(clap::Subcommand)]
enum ReconcileCommand {
    /// Ask for a comparison; the running service carries it out.
    Run {
        /// The provider, such as stripe.
        #[arg(long, value_name = "NAME")]
        provider: String,
        /// Who asks, for the record of who did what.
        #[arg(long, value_name = "NAME")]
        by: String,
    },
    /// List comparisons, newest first.
    List {
        /// Only with this provider.
        #[arg(long, value_name = "NAME")]
        provider: Option<String>,
    },
    /// Show what differs, newest first, with what can be done about it.
    Show {
        /// Only with this provider.
        #[arg(long, value_name = "NAME")]
        provider: Option<String>,
        /// Only of this kind: missing_here, missing_there, amount, currency, state or duplicate.
        #[arg(long, value_name = "KIND")]
        kind: Option<String>,
        /// With this status: open (the default), resolved_itself or resolved.
        #[arg(long, value_name = "STATUS")]
        status: Option<String>,
    },
    /// Say what a discrepancy was and what was done about it.
    Resolve {
        /// Its id, dsc_…
        id: String,
        /// What it was.
        #[arg(long, value_name = "TEXT")]
        note: String,
        /// Who says so, for the record of who did what.
        #[arg(long, value_name = "NAME")]
        by: String,
    },
}

#[derive(clap::Subcommand)]
enum AuditCommand {
    /// Go through the chain of the configured database, from its first record; fails where it is broken. Prints its head,
    /// to be kept elsewhere: with an earlier one, a chain that was cut short or made anew is found too.
    Verify {
        /// A head that the chain once had.
        #[arg(long, value_name = "NUMBER:HASH")]
        head: Option<Head>,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let overrides = Overrides::none().set("--listen", "listen", args.listen);
    let loaded = config::load::<Config>(&args.common, "PAYMENT", overrides)?;
    let migrate = match args.command {
        Some(Command::Migrate { role }) => Some(role),
        Some(Command::Audit {
            command: AuditCommand::Verify { head },
        }) => {
            println!(
                "{}",
                payment::verify_audit(&loaded.config.service, head).await?
            );
            return Ok(());
        }
        Some(Command::Books { command }) => return books(command, &loaded.config.service).await,
        Some(Command::Reconcile { command }) => {
            return reconcile(command, &loaded.config.service).await;
        }
        None => None,
    };
    let task = Task {
        common: args.common,
        migrate,
        fault_points: args.faults.fault_points(),
        fault_deliveries: Faults::default(), // It takes no events.
    };
    Box::pin(chassis::run::<payment::Program>(
        loaded,
        task,
        proto::FILE_DESCRIPTOR_SET,
    ))
    .await
}

async fn books(command: BooksCommand, config: &ServiceConfig) -> anyhow::Result<()> {
    let office = Office::open(config, Clock::system().now_us()).await?;
    match command {
        BooksCommand::Export { from, to, output } => {
            let mut into: Box<dyn Write> = match &output {
                Some(path) => {
                    let file = File::create(path);
                    Box::new(file.with_context(|| format!("creating {}", path.display()))?)
                }
                None => Box::new(std::io::stdout()),
            };
            office.export(&from, &to, &mut *into).await
        }
        BooksCommand::TrialBalance { day } => {
            print!("{}", office.trial_balance(&day).await?);
            Ok(())
        }
        BooksCommand::Close { day, by } => {
            print!("{}", office.close(&day, &by).await?);
            Ok(())
        }
    }
}

async fn reconcile(command: ReconcileCommand, config: &ServiceConfig) -> anyhow::Result<()> {
    let office = Office::open(config, Clock::system().now_us()).await?;
    let told = match command {
        ReconcileCommand::Run { provider, by } => office.reconcile(&provider, &by).await?,
        ReconcileCommand::List { provider } => office.reconciliations(provider).await?,
        ReconcileCommand::Show {
            provider,
            kind,
            status,
        } => {
            let shown = Shown {
                provider,
                kind,
                status,
            };
            office.discrepancies(shown).await?
        }
        ReconcileCommand::Resolve { id, note, by } => office.resolve(&id, &note, &by).await?,
    };
    print!("{told}");
    Ok(())
}
