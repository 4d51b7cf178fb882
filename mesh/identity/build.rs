//! Compiles the Workload API's contract in Rust (protox), so that no `protoc` is needed.

#![expect(
    clippy::disallowed_methods,
    reason = "cargo speaks to build scripts through the environment"
)]

use std::{env, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let files = protox::compile(["workload.proto"], [&root])?;
    // The server is for the tests, which play the agent.
    tonic_prost_build::configure()
        .skip_debug(["X509SVID", "X509SVIDResponse"]) // They hold keys.
        .compile_fds(files)?;
    Ok(())
}
