//! Convolution along a sound.

use crate::{Activation, Convolution, Ops, Result, Tensor};

/// A convolution in one dimension, channels last, weights [outputs, kernel, inputs].
pub struct Conv1d {
    ops: Ops,
    weight: Tensor,
    bias: Option<Tensor>,
    stride: usize,
    padding: usize,
}

impl Conv1d {
    pub(crate) fn new(ops: Ops, weight: Tensor, bias: Option<Tensor>, stride: usize, padding: usize) -> Self {
        std::iter::once(&weight).chain(&bias).for_each(|array| ops.constant(array));
        Self { ops, weight, bias, stride, padding }
    }

    /// x [length, inputs] → [places, outputs], with an activation on what comes out.
    ///
    /// # Errors
    /// MLX's own.
    pub fn forward_activated(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let Self { weight, bias, stride, padding, .. } = self;
        let how = Convolution { weight, bias: bias.as_ref(), stride: *stride, padding: *padding };
        self.ops.convolve(x, how, Some(activation))
    }
}
