//! Linear projection.

use crate::{Activation, Matrix, Ops, Projection, Result, Tensor};

/// `y = x·Wᵀ + b`, with W [outputs, inputs] dense or quantized.
pub struct Linear {
    ops: Ops,
    weight: Matrix,
    bias: Option<Tensor>,
    heads: Option<usize>,
}

impl Linear {
    /// Of a weight [outputs, inputs] and a bias `[outputs]` that were loaded by themselves.
    #[must_use]
    pub fn new(ops: Ops, weight: Matrix, bias: Option<Tensor>) -> Self {
        weight.arrays().chain(&bias).for_each(|array| ops.constant(array));
        Self { ops, weight, bias, heads: None }
    }

    /// The same projection, with its outputs divided into heads: [tokens, heads, outputs / heads].
    #[must_use]
    pub fn into_heads(self, heads: usize) -> Self {
        Self { heads: Some(heads), ..self }
    }

    /// [tokens, inputs] → [tokens, outputs], or with heads [tokens, heads, outputs / heads].
    ///
    /// # Errors
    /// MLX's own.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [y] = Self::forward_all(x, [self])?;
        Ok(y)
    }

    /// `activation(x·Wᵀ + b)`, as one operation where the device gains by it.
    ///
    /// # Errors
    /// MLX's own.
    pub fn forward_activated(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        self.ops.linear_activated(x, self.projection(), activation)
    }

    /// Several projections of the same rows, as one operation where the device gains by it.
    ///
    /// # Errors
    /// MLX's own.
    pub fn forward_all<const N: usize>(x: &Tensor, layers: [&Self; N]) -> Result<[Tensor; N]> {
        const { assert!(N > 0) };
        layers[0].ops.linear(x, layers.map(Self::projection))
    }

    pub(crate) fn projection(&self) -> Projection<'_> {
        Projection { weight: &self.weight, bias: self.bias.as_ref(), heads: self.heads }
    }
}
