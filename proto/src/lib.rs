//! The public API of the shop as Rust: messages, clients, servers and the descriptor set.
//!
//! Everything here is generated from the `.proto` files beside it; their comments are the
//! documentation of the REST surface too. No conversion and no behaviour lives here.

/// The contracts, module by package.
pub mod commerce {
    /// Money, the same in every service.
    pub mod money {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("commerce.money.v1");
        }
    }
    /// The product service.
    pub mod product {
        /// Version 1.
        #[expect(
            clippy::pedantic,
            clippy::allow_attributes,
            clippy::allow_attributes_without_reason,
            reason = "generated code"
        )]
        pub mod v1 {
            tonic::include_proto!("commerce.product.v1");
        }
    }
    /// The payment service.
    pub mod payment {
        /// Version 1.
        #[expect(
            clippy::pedantic,
            clippy::allow_attributes,
            clippy::allow_attributes_without_reason,
            reason = "generated code"
        )]
        pub mod v1 {
            tonic::include_proto!("commerce.payment.v1");
        }
    }
}

/// The encoded `FileDescriptorSet` of all contracts, with imports, options and comments.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
