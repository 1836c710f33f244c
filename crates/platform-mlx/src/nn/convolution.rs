//! Convolutions in one dimension, and the norm that models which make sound put before them.

use super::Linear;
use crate::{ChannelMap, ConvWeights, Inlet, Ops, Outlet, Result, Tensor, TransposedConvWeights, TransposedGeometry};

/// A convolution in one dimension over frames of channels.
pub struct Conv1d {
    ops: Ops,
    weights: ConvWeights,
}

impl Conv1d {
    pub(crate) fn new(ops: Ops, weights: ConvWeights) -> Self {
        Self { ops, weights }
    }

    /// [frames, inputs] → [frames', outputs], or either with a batch before.
    ///
    /// # Errors
    /// If the channels don't fit; MLX's own.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_with(x, Inlet::default(), Outlet::default())
    }

    /// The convolution of `inlet(x)` through `outlet`, as one operation where the device gains by it.
    ///
    /// # Errors
    /// As [`Conv1d::forward`], and if what is on the way doesn't fit.
    pub fn forward_with(&self, x: &Tensor, inlet: Inlet<'_>, outlet: Outlet<'_>) -> Result<Tensor> {
        self.ops.conv1d(x, &self.weights, inlet, outlet)
    }
}

/// A transposed convolution in one dimension: several frames out of each.
pub struct ConvTranspose1d {
    ops: Ops,
    weights: TransposedConvWeights,
    geometry: TransposedGeometry,
}

impl ConvTranspose1d {
    pub(crate) fn new(ops: Ops, weights: TransposedConvWeights, geometry: TransposedGeometry) -> Self {
        Self { ops, weights, geometry }
    }

    /// [frames, inputs] → [frames', outputs], or either with a batch of one before. There are
    /// `(frames − 1) · stride + kernel − 2 · padding + output_padding` frames in the result.
    ///
    /// # Errors
    /// If the channels don't fit; MLX's own.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_with(x, Inlet::default())
    }

    /// The convolution of `inlet(x)`, as one operation where the device gains by it.
    ///
    /// # Errors
    /// As [`ConvTranspose1d::forward`], and if the inlet doesn't fit.
    pub fn forward_with(&self, x: &Tensor, inlet: Inlet<'_>) -> Result<Tensor> {
        self.ops.conv_transpose1d(x, &self.weights, self.geometry, inlet)
    }
}

/// Adaptive instance norm (arXiv:1703.06868): a style says how each channel, normalized over all frames, is scaled and shifted.
pub struct AdaptiveNorm {
    ops: Ops,
    style: Linear,
    eps: f32,
}

impl AdaptiveNorm {
    pub(crate) fn new(ops: Ops, style: Linear, eps: f32) -> Self {
        Self { ops, style, eps }
    }

    /// What the norm of x [frames, channels] does under that style [1, style_len], as a map for a convolution's [`Inlet`].
    ///
    /// # Errors
    /// If a shape doesn't fit; MLX's own.
    pub fn map(&self, x: &Tensor, style: &Tensor) -> Result<ChannelMap> {
        self.ops.adaptive_norm(x, &self.style.forward(style)?, self.eps)
    }

    /// The norm itself; the shape stays.
    ///
    /// # Errors
    /// As [`AdaptiveNorm::map`].
    pub fn forward(&self, x: &Tensor, style: &Tensor) -> Result<Tensor> {
        let map = self.map(x, style)?;
        self.ops.admit(x, Inlet { map: Some(&map), ..Inlet::default() })
    }
}
