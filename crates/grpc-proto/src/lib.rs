//! What gateways say to their workers over gRPC: SMG's `MlxEngine` and `VllmEngine`, from .proto files of our own that have the wire
//! format of its published package, and vLLM's `Inference` and `Control` ([`vllm_proto`]).
//!
//! ```
//! use prost::Message as _;
//! use vllm_grpc_proto::smg::mlx::{GenerateRequest, TokenizedInput, generate_request::Input};
//!
//! let input = TokenizedInput { original_text: String::new(), input_ids: vec![1, 2, 3] };
//! let request = GenerateRequest { input: Some(Input::Tokenized(input)), ..Default::default() };
//! assert_eq!(request.encode_to_vec(), [0x12, 5, 0x12, 3, 1, 2, 3]);
//! ```

pub use vllm_proto;

/// What [`vllm_proto`] has, as an encoded `FileDescriptorSet`, for server reflection.
pub const VLLM_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/vllm.bin"));

/// SMG, the Shepherd Model Gateway.
pub mod smg {
    #[doc(inline)]
    pub use crate::generated::{mlx::grpc::engine as mlx, smg::grpc::common, vllm::grpc::engine as vllm};

    /// All three packages as an encoded `FileDescriptorSet`, for server reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/smg.bin"));
}

/// Modules nested as the packages are, since that is how the generated code finds its like.
#[allow(missing_docs, unused_qualifications, clippy::all)]
mod generated {
    pub mod smg {
        pub mod grpc {
            /// `smg.grpc.common`: the tokenizer's files, KV events and loads, and what is done to a running server.
            pub mod common {
                tonic::include_proto!("smg.grpc.common");
            }
        }
    }

    pub mod mlx {
        pub mod grpc {
            /// `mlx.grpc.engine`: what a worker of MLX models answers.
            pub mod engine {
                tonic::include_proto!("mlx.grpc.engine");
            }
        }
    }

    pub mod vllm {
        pub mod grpc {
            /// `vllm.grpc.engine`: what a vLLM worker answers, which is a good deal more.
            pub mod engine {
                tonic::include_proto!("vllm.grpc.engine");
            }
        }
    }
}
