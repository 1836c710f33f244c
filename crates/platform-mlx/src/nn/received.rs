//! Hidden states from the stage before this one, where a model's layers are spread over machines.

use mlx_rs::Dtype;

use crate::{Batch, Ops, Result, Tensor};

/// What takes the embedding's place in all stages but the first.
pub struct Received {
    ops: Ops,
    width: usize,
    dtype: Dtype,
}

impl Received {
    pub(crate) fn new(ops: Ops, width: usize, dtype: Dtype) -> Self {
        Self { ops, width, dtype }
    }

    /// What came for the batch: [tokens, width].
    ///
    /// # Errors
    /// If it was for another number of tokens; MLX's own.
    pub fn forward(&self, batch: &Batch) -> Result<Tensor> {
        self.ops.received(batch, self.width, self.dtype)
    }
}
