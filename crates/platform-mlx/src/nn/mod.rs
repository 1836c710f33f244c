//! Layers that models are made of. Each holds its weights and the [`crate::Ops`] of the device they are on.

mod convolution;
mod embedding;
mod linear;
mod lstm;
mod media;
mod mlp;
mod moe;
mod norm;
mod received;
mod rope;

pub use convolution::{AdaptiveNorm, Conv1d, ConvTranspose1d};
pub use embedding::Embedding;
pub use linear::Linear;
pub use lstm::Lstm;
pub use media::MediaFeatures;
pub use mlp::GatedMlp;
pub use moe::Moe;
pub use norm::{LayerNorm, RmsNorm};
pub use received::Received;
pub use rope::{Rope, RopeConfig};
