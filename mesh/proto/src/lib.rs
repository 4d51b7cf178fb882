//! The annotations that a contract carries: `mesh.v1` method options and `google.api` HTTP rules.
//!
//! Deliberately without behaviour: the mesh reads deadlines and criticality from here, the transcoder
//! reads HTTP rules, and neither depends on the other.

/// `mesh.v1`: audience, deadline and criticality of a method.
pub mod v1 {
    tonic::include_proto!("mesh.v1");
}

/// `google.api`: HTTP rules, field behaviours and raw HTTP bodies.
pub mod google_api {
    tonic::include_proto!("google.api");
}

/// The encoded `FileDescriptorSet` of both packages, with imports and source comments.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Where the `.proto` files lie at build time, for the build scripts of contracts that import them.
pub const PROTO_ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
