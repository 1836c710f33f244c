//! Convolutions in one dimension, with what stands before and after them: operations of models that make sound.

use std::sync::Arc;

use vllm_kernels_cpu::{Conv1d, Taps, TransposedTaps, WeightArena};

use super::{Backend, Ops, mlx};
use crate::{Error, Result, Tensor, batch::dim};

/// Weights and bias of a convolution in one dimension, in the form that the device wants.
#[derive(Clone)]
pub struct ConvWeights(pub(super) ConvForm);

#[derive(Clone)]
pub(super) enum ConvForm {
    /// For our kernels.
    Taps(Arc<Taps>),
    /// [outputs, kernel, inputs / groups], and a bias `[outputs]`.
    Mlx(Tensor, Option<Tensor>, ConvGeometry),
}

/// Weights and bias of a transposed convolution in one dimension, in the form that the device wants.
#[derive(Clone)]
pub struct TransposedConvWeights(pub(super) TransposedForm);

#[derive(Clone)]
pub(super) enum TransposedForm {
    /// For our kernels.
    Taps(Arc<TransposedTaps>),
    /// [outputs, kernel, inputs / groups], and a bias `[outputs]`.
    Mlx(Tensor, Option<Tensor>),
}

/// How a kernel goes over the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvGeometry {
    /// Steps from one place of the kernel to the next.
    pub stride: usize,
    /// Zeros on either side.
    pub padding: usize,
    /// Distance of neighbours under the kernel: 1 for next to each other.
    pub dilation: usize,
    /// Parts of the channels that don't mix.
    pub groups: usize,
}

impl Default for ConvGeometry {
    fn default() -> Self {
        Self { stride: 1, padding: 0, dilation: 1, groups: 1 }
    }
}

impl ConvGeometry {
    /// As many results as frames, by an odd kernel.
    #[must_use]
    pub fn same(kernel: usize, dilation: usize) -> Self {
        Self { padding: kernel / 2 * dilation, dilation, ..Self::default() }
    }
}

/// How a transposed kernel goes over the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransposedGeometry {
    /// Frames of the result for one of the input.
    pub stride: usize,
    /// Frames of the result that fall away at either end.
    pub padding: usize,
    /// Frames that the result has beyond those, at its end.
    pub output_padding: usize,
    /// Whether each channel has a filter of its own, rather than each pair of channels.
    pub depthwise: bool,
}

/// A scale and a shift for each channel.
#[derive(Clone)]
pub struct ChannelMap {
    /// `[channels]`
    pub scale: Tensor,
    /// `[channels]`
    pub shift: Tensor,
}

/// What frames go through on their way into a convolution: `function(map(x))`. The padding's zeros go through nothing.
#[derive(Clone, Copy, Default)]
pub struct Inlet<'a> {
    /// `scale · x + shift`, if any.
    pub map: Option<&'a ChannelMap>,
    /// The activation function.
    pub function: Nonlinearity<'a>,
}

/// An activation function of models that make sound.
#[derive(Clone, Copy, Default)]
pub enum Nonlinearity<'a> {
    /// x
    #[default]
    Identity,
    /// x, or that part of it where it is negative.
    LeakyRelu(f32),
    /// `x + sin²(αx) / α`, with α `[channels]` (Snake, arXiv:2006.08195).
    Snake(&'a Tensor),
}

/// What a convolution's results go through on their way out: `(y + residual) · factor`.
#[derive(Clone, Copy)]
pub struct Outlet<'a> {
    /// Of the result's shape.
    pub residual: Option<&'a Tensor>,
    /// On all of it.
    pub factor: f32,
}

impl Default for Outlet<'_> {
    fn default() -> Self {
        Self { residual: None, factor: 1.0 }
    }
}

impl<'a> Outlet<'a> {
    /// `y + residual`.
    #[must_use]
    pub fn plus(residual: &'a Tensor) -> Self {
        Self { residual: Some(residual), ..Self::default() }
    }
}

/// (batch, frames, channels) of [frames, channels] or [batch, frames, channels].
pub(super) fn frames_of(x: &Tensor) -> Result<[usize; 3]> {
    match *x.shape() {
        [frames, channels] => Ok([1, frames as usize, channels as usize]),
        [batch, frames, channels] => Ok([batch, frames, channels].map(|n| n as usize)),
        ref shape => {
            Err(Error::Plan(format!("frames are [frames, channels] or [batch, frames, channels], not {shape:?}")))
        }
    }
}

/// The shape of `x` with so many frames and channels.
pub(super) fn with_frames(x: &Tensor, frames: usize, channels: usize) -> Vec<i32> {
    let mut shape = x.shape().to_vec();
    let rank = shape.len();
    (shape[rank - 2], shape[rank - 1]) = (dim(frames), dim(channels));
    shape
}

impl Ops {
    /// Weights [outputs, kernel, inputs / groups] of a convolution and a bias `[outputs]` as the device wants them.
    ///
    /// # Errors
    /// MLX's own.
    ///
    /// # Panics
    /// If a slice has another length than its shape, the outputs don't fit the groups, or a stride or dilation is 0.
    pub fn conv_weights(
        &self,
        arena: &WeightArena,
        weights: &[f32],
        shape: [usize; 3],
        geometry: ConvGeometry,
        bias: Option<&[f32]>,
    ) -> Result<ConvWeights> {
        Ok(ConvWeights(match &self.0 {
            Backend::Cpu(cpu) => {
                let ConvGeometry { stride, padding, dilation, groups } = geometry;
                let conv = Conv1d { stride, padding, dilation, groups };
                ConvForm::Taps(Arc::new(Taps::new(&cpu.pool, arena, weights, shape, conv, bias)))
            }
            Backend::Mlx => {
                let bias = bias.map(|bias| Tensor::from_slice(bias, &[dim(bias.len())]));
                ConvForm::Mlx(Tensor::from_slice(weights, &shape.map(dim)), bias, geometry)
            }
        }))
    }

    /// Weights [inputs, kernel, outputs], or [channels, kernel, 1] where each channel has a filter of its own, and a bias
    /// `[outputs]`, as the device wants them.
    ///
    /// # Errors
    /// MLX's own.
    pub fn transposed_conv_weights(
        &self,
        arena: &WeightArena,
        weights: &[f32],
        [inputs, kernel, outputs]: [usize; 3],
        geometry: TransposedGeometry,
        bias: Option<&[f32]>,
    ) -> Result<TransposedConvWeights> {
        Ok(TransposedConvWeights(match &self.0 {
            Backend::Cpu(cpu) => TransposedForm::Taps(Arc::new(if geometry.depthwise {
                TransposedTaps::depthwise(weights, [inputs, kernel], geometry.stride, bias)
            } else {
                TransposedTaps::new(&cpu.pool, arena, weights, [inputs, kernel, outputs], geometry.stride, bias)
            })),
            Backend::Mlx => {
                let bias = bias.map(|bias| Tensor::from_slice(bias, &[dim(bias.len())]));
                let weights = Tensor::from_slice(weights, &[inputs, kernel, outputs].map(dim));
                // MLX wants outputs first; a channel's own filter has them there.
                let weights = if geometry.depthwise { weights } else { weights.transpose_axes(&[2, 1, 0])? };
                TransposedForm::Mlx(weights.contiguous()?, bias)
            }
        }))
    }

    /// A convolution in one dimension of `inlet(x)`, plus its bias, through `outlet`: x [frames, inputs] → [frames', outputs], or
    /// either with a batch before.
    ///
    /// # Errors
    /// If a shape doesn't fit; MLX's own.
    pub fn conv1d(&self, x: &Tensor, weights: &ConvWeights, inlet: Inlet<'_>, outlet: Outlet<'_>) -> Result<Tensor> {
        match (&self.0, &weights.0) {
            (Backend::Cpu(cpu), ConvForm::Taps(taps)) => cpu.conv1d(x, taps, inlet, outlet),
            (Backend::Mlx, ConvForm::Mlx(weights, bias, geometry)) => {
                mlx::convolve::conv1d(x, weights, bias.as_ref(), *geometry, inlet, outlet)
            }
            _ => Err(other_device()),
        }
    }

    /// A transposed convolution in one dimension of `inlet(x)`, plus its bias: x [frames, inputs] → [frames', outputs], or either
    /// with a batch of one before.
    ///
    /// # Errors
    /// If a shape doesn't fit; MLX's own.
    pub fn conv_transpose1d(
        &self,
        x: &Tensor,
        weights: &TransposedConvWeights,
        geometry: TransposedGeometry,
        inlet: Inlet<'_>,
    ) -> Result<Tensor> {
        match (&self.0, &weights.0) {
            (Backend::Cpu(cpu), TransposedForm::Taps(taps)) => cpu.conv_transpose1d(x, taps, geometry, inlet),
            (Backend::Mlx, TransposedForm::Mlx(weights, bias)) => {
                mlx::convolve::conv_transpose1d(x, weights, bias.as_ref(), geometry, inlet)
            }
            _ => Err(other_device()),
        }
    }

    /// `inlet(x)`, for what isn't followed by a convolution.
    ///
    /// # Errors
    /// If a shape doesn't fit; MLX's own.
    pub fn admit(&self, x: &Tensor, inlet: Inlet<'_>) -> Result<Tensor> {
        match &self.0 {
            Backend::Cpu(cpu) => cpu.admit(x, inlet),
            Backend::Mlx => mlx::convolve::admit(x, inlet),
        }
    }

    /// Adaptive instance norm (arXiv:1703.06868) as the map that it is: each channel of x [frames, channels] normalized over the
    /// frames, times `1 + gamma` plus `beta`, which `style` [1, 2 · channels] has one after the other.
    ///
    /// # Errors
    /// If a shape doesn't fit; MLX's own.
    pub fn adaptive_norm(&self, x: &Tensor, style: &Tensor, eps: f32) -> Result<ChannelMap> {
        match &self.0 {
            Backend::Cpu(cpu) => cpu.adaptive_norm(x, style, eps),
            Backend::Mlx => mlx::convolve::adaptive_norm(x, style, eps),
        }
    }

    /// The sine of each number. On the CPU absolute errors are below 1.2·10⁻⁷ up to 2²⁰.
    ///
    /// # Errors
    /// MLX's own.
    pub fn sin(&self, x: &Tensor) -> Result<Tensor> {
        match &self.0 {
            Backend::Cpu(cpu) => cpu.sin(x),
            Backend::Mlx => Ok(x.sin()?),
        }
    }
}

fn other_device() -> Error {
    Error::Plan("weights of a convolution are of no use on another device than they were loaded for".into())
}
