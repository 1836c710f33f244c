//! SIMD kernels for language models on the CPU, in plain Rust.
//!
//! MLX's CPU device on Linux is a fallback: its quantized matmul runs on one thread at a small fraction of what
//! the cores can do. These kernels are what it is missing. They take row-major slices and fill row-major slices;
//! activations are always f32, weights stay as the checkpoint stores them (quantized, f32, f16 or bf16).
//!
//! Threads come from a [`Pool`] that the caller owns, and so does the choice of instruction set ([`Isa`]):
//! AVX-512, AVX2 and NEON are found at run time, and every kernel has a scalar path.
//!
//! What a caller may rely on:
//!
//! * **Threads never change a result.** The order in which a kernel adds is a function of the shapes alone.
//! * What [`attention`](fn@attention) gives for a query depends on the query, its position and what it sees, to the
//!   last bit: not on batch mates, nor on how a prompt was cut into chunks (see [`mod@attention`]).
//! * A row of a matmul's result, dense or quantized, does not depend on what stands beside it (see [`gemm`] and [`qmm`]).
//!
//! *Invariant*: this crate knows neither MLX nor models nor files. It holds no global state but the detected
//! instruction set and one scratch buffer a thread.

pub mod activation;
mod arena;
pub mod attention;
pub mod conv;
pub mod convolve;
mod element;
pub mod elementwise;
mod floats;
pub mod gemm;
mod isa;
pub mod kv_pool;
pub mod lstm;
pub mod moe;
pub mod moments;
pub mod norm;
mod pool;
pub mod qmm;
mod quant;
pub mod rope;
mod rows;
mod scratch;
mod simd;
mod sine;
pub mod softmax;
#[cfg(test)]
mod testing;

pub use activation::{Activation, geglu, silu, swiglu};
pub use arena::WeightArena;
pub use attention::{Attention, RaggedBatch, attention};
pub use conv::{Conv1d, Conv2d, Filters, conv1d, conv2d};
pub use convolve::{Inlet, Nonlinearity, Outlet, Taps, TransposedTaps, admit, convolve, convolve_transposed};
pub use floats::{FloatKind, Floats};
pub use gemm::{DenseError, DenseMatrix, matmul, widen_rows};
pub use isa::{Isa, IsaError};
pub use kv_pool::{KvKind, KvPool, KvPoolError, KvShape};
pub use lstm::{LstmDirection, lstm};
pub use moe::{ExpertMlp, Experts, Routes, RowRanges, Stacked, moe, route};
pub use moments::instance_affine;
pub use norm::{layer_norm, rms_norm};
pub use pool::{PinError, Pool, SharedMut};
pub use qmm::{Activations, Linear, PackedMatrix, gated_matmul, packed_matmul, quantized_matmul};
pub use quant::{QuantError, QuantMatrix, QuantMode, dequantize_rows};
pub use rope::{Positions, Rope, RopeLayout, rope, rope_in_place};
pub use scratch::with_scratch;
pub use sine::sin;
pub use softmax::softmax;
