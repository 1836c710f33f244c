//! Weight matrices as they stand in memory.

use std::{fmt, sync::Arc};

use mlx_rs::Dtype;
use vllm_checkpoint::QuantMode;
use vllm_kernels_cpu::PackedMatrix;

use crate::Tensor;

/// A weight matrix W [rows, columns], that is [outputs, inputs] of a linear layer.
#[derive(Clone)]
pub enum Matrix {
    /// In f32, f16 or bf16.
    Dense(Tensor),
    /// In one of MLX's quantized layouts.
    Quantized(QuantizedMatrix),
    /// In the layout of our CPU kernels, for these alone.
    Packed(Arc<PackedMatrix>),
}

/// Codes of `bits` bits, `group_size` of which share a scale (and in the affine mode a bias) along a row.
#[derive(Clone)]
pub struct QuantizedMatrix {
    /// Codes, low bits first, [rows, columns · bits / 32], u32.
    pub packed: Tensor,
    /// [rows, columns / group_size]: float in the affine mode, u8 (E8M0 or E4M3) in the others.
    pub scales: Tensor,
    /// As the scales; in the affine mode only.
    pub biases: Option<Tensor>,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub columns: usize,
    /// Of a code.
    pub bits: u8,
    /// Codes of one scale.
    pub group_size: usize,
    /// What code and scale mean.
    pub mode: QuantMode,
}

/// A linear map with what its result is to look like.
#[derive(Clone, Copy)]
pub struct Projection<'a> {
    /// W [outputs, inputs].
    pub weight: &'a Matrix,
    /// `[outputs]`, added.
    pub bias: Option<&'a Tensor>,
    /// Heads that the outputs divide into: [tokens, heads, outputs / heads] instead of [tokens, outputs].
    pub heads: Option<usize>,
}

impl<'a> Projection<'a> {
    /// `y = x·Wᵀ`.
    #[must_use]
    pub fn plain(weight: &'a Matrix) -> Self {
        Self { weight, bias: None, heads: None }
    }
}

/// The matrices of a layer's experts, each one above the next: rows `e · outputs ..` are expert `e`'s.
#[derive(Clone)]
pub struct ExpertWeights {
    /// [experts · inner, hidden]
    pub gate: Matrix,
    /// [experts · inner, hidden]
    pub up: Matrix,
    /// [experts · hidden, inner]
    pub down: Matrix,
    /// How many experts there are.
    pub count: usize,
}

/// How a router's logits become experts and their weights: those of the largest softmax.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routing {
    /// Experts that a token goes to.
    pub per_token: usize,
    /// Whether their weights are scaled to sum to 1.
    pub normalize: bool,
}

impl Matrix {
    /// The arrays it is made of; packed weights are made of none.
    pub(crate) fn arrays(&self) -> impl Iterator<Item = &Tensor> {
        let arrays: [Option<&Tensor>; 3] = match self {
            Self::Dense(w) => [Some(w), None, None],
            Self::Quantized(QuantizedMatrix { packed, scales, biases, .. }) => {
                [Some(packed), Some(scales), biases.as_ref()]
            }
            Self::Packed(_) => [None; 3],
        };
        arrays.into_iter().flatten()
    }

    /// Outputs.
    #[must_use]
    pub fn rows(&self) -> usize {
        match self {
            Self::Dense(weight) => usize::try_from(weight.dim(0)).unwrap_or(0),
            Self::Quantized(q) => q.rows,
            Self::Packed(w) => w.rows(),
        }
    }

    /// Bytes in memory.
    #[must_use]
    pub fn nbytes(&self) -> usize {
        match self {
            Self::Dense(weight) => weight.nbytes(),
            Self::Packed(w) => w.nbytes(),
            Self::Quantized(q) => q.packed.nbytes() + q.scales.nbytes() + q.biases.as_ref().map_or(0, Tensor::nbytes),
        }
    }
}

impl fmt::Display for Matrix {
    /// How it is stored: `bf16`, or `affine 4 bit group 64`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dense(w) => f.write_str(match w.dtype() {
                Dtype::Float16 => "f16",
                Dtype::Bfloat16 => "bf16",
                _ => "f32",
            }),
            Self::Quantized(q) => write!(f, "{} {} bit group {}", q.mode, q.bits, q.group_size),
            Self::Packed(w) => write!(f, "{} {} bit group {}", QuantMode::Affine, w.bits(), w.group_size()),
        }
    }
}
