//! Normalisation layers.

use crate::{Ops, Result, Tensor};

/// Root mean square norm: `x / sqrt(mean(x²) + eps) · w` (Zhang & Sennrich, arXiv:1910.07467).
pub struct RmsNorm {
    ops: Ops,
    weight: Tensor,
    eps: f32,
}

impl RmsNorm {
    pub(crate) fn new(ops: Ops, weight: Tensor, eps: f32) -> Self {
        ops.constant(&weight);
        Self { ops, weight, eps }
    }

    /// Over the last axis; the shape stays.
    ///
    /// # Errors
    /// MLX's own.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.ops.rms_norm(x, &self.weight, self.eps)
    }

    /// The residual sum and its norm: `(x + r, norm(x + r))`, as one operation where the device gains by it.
    ///
    /// # Errors
    /// MLX's own.
    pub fn forward_residual(&self, x: &Tensor, r: &Tensor) -> Result<(Tensor, Tensor)> {
        self.ops.add_rms_norm(x, r, &self.weight, self.eps)
    }
}

/// Layer norm: `(x − mean) / sqrt(var + eps) · w + b` (Ba et al., arXiv:1607.06450).
pub struct LayerNorm {
    ops: Ops,
    weight: Tensor,
    bias: Option<Tensor>,
    eps: f32,
}

impl LayerNorm {
    /// With a weight and a bias `[size]` of the caller's.
    #[must_use]
    pub fn new(ops: Ops, weight: Tensor, bias: Option<Tensor>, eps: f32) -> Self {
        std::iter::once(&weight).chain(&bias).for_each(|array| ops.constant(array));
        Self { ops, weight, bias, eps }
    }

    /// Over the last axis; the shape stays.
    ///
    /// # Errors
    /// MLX's own.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.ops.layer_norm(x, &self.weight, self.bias.as_ref(), self.eps)
    }

    /// `norm(x + r)`, as one operation where the device gains by it.
    ///
    /// # Errors
    /// MLX's own.
    pub fn forward_residual(&self, x: &Tensor, r: &Tensor) -> Result<Tensor> {
        self.ops.add_layer_norm(x, r, &self.weight, self.bias.as_ref(), self.eps)
    }

    /// The residual sum and its norm: `(x + r, norm(x + r))`, as one operation where the device gains by it.
    ///
    /// # Errors
    /// MLX's own.
    pub fn forward_with_sum(&self, x: &Tensor, r: &Tensor) -> Result<(Tensor, Tensor)> {
        self.ops.sum_and_layer_norm(x, r, &self.weight, self.bias.as_ref(), self.eps)
    }
}
