//! gRPC's official interoperability tests (grpc/grpc, doc/interop-test-descriptions.md): the mesh as their
//! client and as their server.
//!
//! `cargo xtask verify` runs the binary against PyPI's grpcio (tests/verify/interop.py), which plays the other
//! side. Deliberately without the cases for compression, caches, credentials and soaking: the mesh has none of
//! these.

pub mod cases;
pub mod server;

use mesh::Contract;

/// The messages, client and server of `grpc.testing`.
#[expect(
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod pb {
    tonic::include_proto!("grpc.testing");
}

/// The encoded `FileDescriptorSet` of `grpc.testing`, with its imports.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The destination that the cases call.
pub const DESTINATION: &str = "interop";

/// What the mesh has to know of `grpc.testing`.
pub fn contract() -> Contract {
    Contract::new(FILE_DESCRIPTOR_SET).expect("the build script has compiled it")
}

/// So many zeros.
pub fn payload(bytes: usize) -> pb::Payload {
    pb::Payload {
        body: vec![0; bytes],
    }
}
