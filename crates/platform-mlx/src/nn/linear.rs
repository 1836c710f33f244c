//! Linear projection.

use crate::{Matrix, Ops, Result, Tensor};

/// `y = x·Wᵀ + b`, with W [outputs, inputs] dense or quantized.
pub struct Linear {
    ops: Ops,
    pub(crate) weight: Matrix,
    pub(crate) bias: Option<Tensor>,
}

impl Linear {
    pub(crate) fn new(ops: Ops, weight: Matrix, bias: Option<Tensor>) -> Self {
        Self { ops, weight, bias }
    }

    /// [tokens, inputs] → [tokens, outputs].
    ///
    /// # Errors
    /// MLX's own.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [y] = Self::forward_all(x, [self])?;
        Ok(y)
    }

    /// Several projections of the same rows, as one operation where the device gains by it.
    ///
    /// # Errors
    /// MLX's own.
    pub fn forward_all<const N: usize>(x: &Tensor, layers: [&Self; N]) -> Result<[Tensor; N]> {
        const { assert!(N > 0) };
        layers[0].ops.linear(x, layers.map(|l| (&l.weight, l.bias.as_ref())))
    }
}
