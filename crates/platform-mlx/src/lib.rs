//! vllm-mlx's platform over Apple MLX.
//!
//! Models are written once, over [`nn`] and [`Ops`]; this crate alone knows which device they run on. On Metal
//! and CUDA the operations are MLX's own. On the CPU, where MLX's kernels are a fallback, the hot ones are
//! MLX primitives whose evaluation calls `vllm-kernels-cpu` (see [`Ops`]).
//!
//! A model family is a plugin: implement [`model::CausalLm`] and submit a [`model::Family`] with `inventory`; for encoders,
//! [`encoder::TextEncoder`] and [`encoder::EncoderFamily`]; for models that see, [`vision::VisionModel`] and
//! [`vision::VisionFamily`]; for models that hear or speak, [`speech::SpeechFamily`] and its models.
//!
//! *Invariant*: every MLX array belongs to the thread that loaded the model; nothing here hands one to another.
//! `unsafe` stands in [`ffi`] only.

#![deny(unsafe_code)]

mod batch;
mod cgroup;
mod device;
pub mod dist;
pub mod encoder;
mod encoder_runner;
mod error;
#[allow(unsafe_code)]
pub mod ffi;
mod fingerprint;
pub mod kv;
mod layout;
mod load;
mod load_encoder;
pub mod model;
pub mod nn;
mod ops;
mod outline;
mod platform;
mod replay;
mod runner;
pub mod speech;
pub mod vision;
mod vision_runner;

pub use batch::{Batch, StepLayout};
pub use encoder_runner::MlxEncoder;
pub use error::{Error, Result};
pub use layout::{Layout, Span};
pub use load::{Bias, Directions, LoadContext};
pub use mlx_rs::{self, Array as Tensor, Dtype};
pub use ops::{
    Activation, ChannelMap, ConvGeometry, ConvWeights, ExpertWeights, Inlet, LstmWeights, Matrix, Nonlinearity, Ops,
    Outlet, Projection, QuantizedMatrix, Routing, TransposedConvWeights, TransposedGeometry,
};
pub use platform::MlxPlatform;
pub use runner::MlxRunner;
pub use speech::{MlxListener, MlxSynthesizer, MlxTransducer};
pub use vision_runner::MlxVision;
pub use vllm_platform::inventory;
