//! Compiles the contract in Rust (protox), so that no `protoc` is needed.

#![expect(
    clippy::disallowed_methods,
    reason = "cargo speaks to build scripts through the environment"
)]

use std::{env, fs, path::Path};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let contract = Path::new(&env::var("OUT_DIR")?).join("contract.bin");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(["route_guide.proto"])?;
    fs::write(contract, compiler.encode_file_descriptor_set())?; // mesh
    tonic_prost_build::configure().compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
