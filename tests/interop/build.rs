//! Compiles the test contract in Rust (protox), so that no `protoc` is needed.

#![expect(
    clippy::disallowed_methods,
    reason = "cargo speaks to build scripts through the environment"
)]

use std::{env, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed={}", root.display());

    let mut compiler = protox::Compiler::new([root.as_path(), mesh_proto::PROTO_ROOT.as_ref()])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(["grpc/testing/test.proto"])?;
    // Encoded by protox: prost's own FileDescriptorSet type would drop the mesh options.
    fs::write(
        out.join("descriptors.bin"),
        compiler.encode_file_descriptor_set(),
    )?;
    tonic_prost_build::configure()
        .extern_path(".mesh.v1", "::mesh_proto::v1")
        // What a service does not implement answers UNIMPLEMENTED, as the tests want it.
        .generate_default_stubs(true)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
