//! Benchmarks of the services and of the mesh as they are released; `cargo xtask bench` builds and runs it.
//!
//! It calls the services like anybody else would and knows none of their crates.

mod cpu;
mod figures;
mod house;
mod load;
mod mesh;
mod own;
mod pages;
mod payments;
mod pgbench;
mod products;
mod profile;
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
    /// Calls through the mesh, beside bare tonic, HAProxy and Envoy.
    Mesh(mesh::Options),
    /// A server of the mesh under five times the load that it can serve.
    Overload(mesh::OverloadOptions),
    /// A server that is measured: a process of its own.
    #[command(hide = true)]
    MeshServer(mesh::ServerOptions),
    /// A client that is measured.
    #[command(hide = true)]
    MeshLoad(mesh::LoaderOptions),
    /// A client whose memory is measured.
    #[command(hide = true)]
    MeshMemory(mesh::MemoryOptions),
    /// Keeps a processor awake.
    #[command(hide = true)]
    Spin,
}

fn main() -> ExitCode {
    let ended = match Arguments::parse().what {
        What::Store(options) => store::run(&options),
        What::Mesh(options) => mesh::run(&options),
        What::Overload(options) => mesh::overload(&options),
        What::MeshServer(options) => mesh::serve(&options),
        What::MeshLoad(options) => mesh::load(&options),
        What::MeshMemory(options) => mesh::hold(&options),
        What::Spin => mesh::spin(),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
