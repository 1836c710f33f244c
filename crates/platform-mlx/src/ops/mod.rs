//! The operations that models are written in.
//!
//! On Metal and CUDA they are MLX's own. MLX's CPU kernels are a fallback (its 4-bit matmul does half a GFLOP/s in f32
//! where the cores can do hundreds; `docs/decisions/0002-cpu-primitives.md`), so on the CPU the hot ones are MLX primitives
//! of ours that call `vllm-kernels-cpu`. The graph, and the models, are the same.

mod convolve;
mod cpu;
mod lstm;
mod matrix;
mod mlx;

use std::{cell::RefCell, rc::Rc, sync::Arc};

use mlx_rs::{Dtype, Stream};
use vllm_kernels_cpu::Pool;

pub use convolve::{
    ChannelMap, ConvGeometry, ConvWeights, Inlet, Nonlinearity, Outlet, TransposedConvWeights, TransposedGeometry,
};
pub use lstm::LstmWeights;
pub use matrix::{ExpertWeights, Matrix, Projection, QuantizedMatrix, Routing};

use crate::{Batch, Result, Tensor, ffi};
use cpu::Cpu;

/// The nonlinearity of a feed-forward block, gated or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)`: SwiGLU.
    Silu,
    /// `x · Φ(x)`, exactly: BERT's.
    Gelu,
    /// GELU by its tanh approximation: Gemma's GeGLU.
    GeluTanh,
    /// GELU by its sigmoid approximation, `x · sigmoid(1.702 x)`: CLIP's.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
}

/// How a rotary embedding turns.
pub(crate) struct RopeFrequencies {
    /// Radians a position, one for each of n pairs.
    pub inv_freq: Arc<[f32]>,
    /// `1 / inv_freq` `[n]`, as MLX's own kernel wants them.
    pub periods: Tensor,
    /// The axis whose position turns each pair; empty: the first one.
    pub axes: Arc<[u8]>,
    /// Factor on the rotated elements.
    pub magnitude: f32,
}

/// The operations on one device. Cheap to clone.
#[derive(Clone)]
pub struct Ops(Backend);

#[derive(Clone)]
enum Backend {
    Cpu(Rc<Cpu>),
    Mlx,
}

impl Ops {
    /// Our CPU primitives, on `pool`'s threads, in `stream`'s graph.
    #[must_use]
    pub fn cpu(pool: Arc<Pool>, stream: Stream) -> Self {
        Self(Backend::Cpu(Rc::new(Cpu { pool, stream, constants: RefCell::default() })))
    }

    /// MLX's own kernels, on the thread's current stream. Correct on the CPU too, only slow there.
    #[must_use]
    pub fn mlx() -> Self {
        Self(Backend::Mlx)
    }

    /// The threads and the stream that CPU primitives run on, if these are the CPU's operations.
    pub(crate) fn threads(&self) -> Option<(&Arc<Pool>, &Stream)> {
        match &self.0 {
            Backend::Cpu(cpu) => Some((&cpu.pool, &cpu.stream)),
            Backend::Mlx => None,
        }
    }

    /// Vouches for an array that stays as it is as long as the model: steps that read it can be
    /// run again from a record of their kernels. Layers of [`nn`](crate::nn) do so for their weights.
    pub fn constant(&self, array: &Tensor) {
        if let Backend::Cpu(cpu) = &self.0 {
            cpu.constants.borrow_mut().insert(ffi::array_id(array), array.clone());
        }
    }

    /// Whether somebody vouched for the array with this id.
    pub(crate) fn is_constant(&self, id: usize) -> bool {
        match &self.0 {
            Backend::Cpu(cpu) => cpu.constants.borrow().contains_key(&id),
            Backend::Mlx => false,
        }
    }

    /// The rows of x [tokens, …] whose results the batch is asked for: [rows wanted, …].
    pub(crate) fn wanted_rows(&self, x: Tensor, batch: &Batch) -> Result<Tensor> {
        match &self.0 {
            _ if batch.wanted() == batch.len() => Ok(x),
            Backend::Cpu(cpu) => cpu.wanted_rows(&x, batch),
            Backend::Mlx => mlx::wanted_rows(&x, batch),
        }
    }

    /// What the stage before this one made of the batch: [tokens, width] of `dtype`.
    pub(crate) fn received(&self, batch: &Batch, width: usize, dtype: Dtype) -> Result<Tensor> {
        match &self.0 {
            Backend::Cpu(cpu) => cpu.received(batch, width),
            Backend::Mlx => mlx::received(batch, width, dtype),
        }
    }

    /// x [tokens, hidden] with the features of pictures in place of the rows that hold it.
    pub(crate) fn place_features(&self, x: &Tensor, batch: &Batch) -> Result<Tensor> {
        match &self.0 {
            Backend::Cpu(cpu) => cpu.features(x, batch, 0, |row, features| row.copy_from_slice(features)),
            Backend::Mlx => mlx::place_features(x, batch),
        }
    }

    /// x [tokens, hidden] plus a level of the features of pictures, in the rows that hold their place.
    pub(crate) fn add_features(&self, x: &Tensor, batch: &Batch, level: usize) -> Result<Tensor> {
        match &self.0 {
            Backend::Cpu(cpu) => cpu.features(x, batch, level, |row, features| {
                row.iter_mut().zip(features).for_each(|(x, feature)| *x += feature);
            }),
            Backend::Mlx => mlx::add_features(x, batch, level),
        }
    }

    /// Several projections of the same rows: x [tokens, inputs] → [tokens, outputs] each, or
    /// [tokens, heads, outputs / heads] where the projection has heads.
    ///
    /// # Errors
    /// MLX's own.
    pub fn linear<const N: usize>(&self, x: &Tensor, projections: [Projection<'_>; N]) -> Result<[Tensor; N]> {
        match &self.0 {
            Backend::Cpu(cpu) => cpu.linear(x, projections),
            Backend::Mlx => {
                let outputs: Result<Vec<_>> = projections.iter().map(|p| mlx::linear(x, *p)).collect();
                // As many as there are projections.
                outputs?.try_into().map_err(|_| unreachable!())
            }
        }
    }

    /// `activation(gate(x)) · up(x)`: x [tokens, inputs] → [tokens, outputs].
    ///
    /// # Errors
    /// MLX's own.
    pub fn gated_linear(
        &self,
        x: &Tensor,
        gate: Projection<'_>,
        up: Projection<'_>,
        activation: Activation,
    ) -> Result<Tensor> {
        match &self.0 {
            Backend::Cpu(cpu) => cpu.gated_linear(x, [gate, up], activation),
            Backend::Mlx => mlx::gated(&mlx::linear(x, gate)?, &mlx::linear(x, up)?, activation),
        }
    }

    /// `activation(x)`, number by number.
    ///
    /// # Errors
    /// MLX's own.
    pub fn activate(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        match &self.0 {
            Backend::Cpu(cpu) => cpu.activate(x, activation),
            Backend::Mlx => mlx::activate(x, activation),
        }
    }

    /// `activation(x·Wᵀ + b)`: x [tokens, inputs] → [tokens, outputs].
    ///
    /// # Errors
    /// MLX's own.
    pub fn linear_activated(&self, x: &Tensor, projection: Projection<'_>, activation: Activation) -> Result<Tensor> {
        match &self.0 {
            Backend::Cpu(cpu) => cpu.linear_activated(x, projection, activation),
            Backend::Mlx => mlx::activate(&mlx::linear(x, projection)?, activation),
        }
    }

    /// Rows of a matrix [vocab, hidden]: ids `[tokens]`, u32 → [tokens, hidden].
    ///
    /// # Errors
    /// MLX's own.
    pub fn embed(&self, ids: &Tensor, weight: &Matrix) -> Result<Tensor> {
        match &self.0 {
            Backend::Cpu(cpu) => cpu.embed(ids, weight),
            Backend::Mlx => mlx::embed(ids, weight),
        }
    }

    /// `x / sqrt(mean(x²) + eps) · w` over the last axis.
    ///
    /// # Errors
    /// MLX's own.
    pub fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
        match &self.0 {
            Backend::Cpu(cpu) => cpu.rms_norm(x, weight, eps),
            Backend::Mlx => Ok(mlx_rs::fast::rms_norm(x, Some(weight), eps)?),
        }
    }

    /// `(x + r, rms_norm(x + r))`.
    ///
    /// # Errors
    /// MLX's own.
    pub fn add_rms_norm(&self, x: &Tensor, r: &Tensor, weight: &Tensor, eps: f32) -> Result<(Tensor, Tensor)> {
        match &self.0 {
            Backend::Cpu(cpu) => cpu.add_rms_norm(x, r, weight, eps),
            Backend::Mlx => {
                let sum = x.add(r)?;
                let norm = mlx_rs::fast::rms_norm(&sum, Some(weight), eps)?;
                Ok((sum, norm))
            }
        }
    }

    /// `(x − mean) / sqrt(var + eps) · w + b` over the last axis.
    ///
    /// # Errors
    /// MLX's own.
    pub fn layer_norm(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, eps: f32) -> Result<Tensor> {
        match &self.0 {
            Backend::Cpu(cpu) => cpu.layer_norm(x, weight, bias, eps),
            Backend::Mlx => Ok(mlx_rs::fast::layer_norm(x, Some(weight), bias, eps)?),
        }
    }

    /// `(x + r, layer_norm(x + r))`.
    ///
    /// # Errors
    /// MLX's own.
    pub fn sum_and_layer_norm(
        &self,
        x: &Tensor,
        r: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        eps: f32,
    ) -> Result<(Tensor, Tensor)> {
        match &self.0 {
            Backend::Cpu(cpu) => cpu.sum_and_layer_norm(x, r, weight, bias, eps),
            Backend::Mlx => {
                let sum = x.add(r)?;
                let norm = mlx_rs::fast::layer_norm(&sum, Some(weight), bias, eps)?;
                Ok((sum, norm))
            }
        }
    }

    /// `layer_norm(x + r)`: a block's end in encoders.
    ///
    /// # Errors
    /// MLX's own.
    pub fn add_layer_norm(
        &self,
        x: &Tensor,
        r: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        eps: f32,
    ) -> Result<Tensor> {
        match &self.0 {
            Backend::Cpu(cpu) => cpu.add_layer_norm(x, r, weight, bias, eps),
            Backend::Mlx => Ok(mlx_rs::fast::layer_norm(&x.add(r)?, Some(weight), bias, eps)?),
        }
    }

    /// `x + y`, of one shape.
    ///
    /// # Errors
    /// MLX's own.
    pub fn add(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        match &self.0 {
            Backend::Cpu(cpu) => cpu.add(x, y),
            Backend::Mlx => Ok(x.add(y)?),
        }
    }

    /// `x · factor`.
    ///
    /// # Errors
    /// MLX's own.
    pub fn scale(&self, x: &Tensor, factor: f32) -> Result<Tensor> {
        match &self.0 {
            Backend::Cpu(cpu) => cpu.scale(x, factor),
            Backend::Mlx => Ok(x.multiply(Tensor::from_f32(factor).as_dtype(x.dtype())?)?),
        }
    }

    /// Each row of x [tokens, hidden] through the experts that its `logits` [tokens, experts] choose: the sum of
    /// `weight · down(activation(gate(x)) · up(x))`.
    ///
    /// # Errors
    /// MLX's own.
    pub fn moe(
        &self,
        x: &Tensor,
        logits: &Tensor,
        experts: &ExpertWeights,
        routing: Routing,
        activation: Activation,
    ) -> Result<Tensor> {
        match &self.0 {
            Backend::Cpu(cpu) => cpu.moe(x, logits, experts, routing, activation),
            Backend::Mlx => mlx::moe(x, logits, experts, routing, activation),
        }
    }

    /// Softmax over the last axis.
    ///
    /// # Errors
    /// MLX's own.
    pub fn softmax(&self, x: &Tensor) -> Result<Tensor> {
        match &self.0 {
            Backend::Cpu(cpu) => cpu.softmax(x),
            Backend::Mlx => Ok(mlx_rs::ops::softmax_axis(x, -1, true)?),
        }
    }

    /// Rotates tensors [tokens, heads, head_dim] by each token's positions: pairs `(i, i + n)` of the first `2n` elements.
    pub(crate) fn rope<const N: usize>(
        &self,
        tensors: [&Tensor; N],
        batch: &Batch,
        frequencies: &RopeFrequencies,
    ) -> Result<[Tensor; N]> {
        match &self.0 {
            Backend::Cpu(cpu) => cpu.rope(tensors, batch, frequencies),
            Backend::Mlx => {
                let turn = |x: &&Tensor| mlx::rope(x, batch, frequencies);
                let outputs: Result<Vec<_>> = tensors.iter().map(turn).collect();
                // As many as there are tensors.
                outputs?.try_into().map_err(|_| unreachable!())
            }
        }
    }
}
