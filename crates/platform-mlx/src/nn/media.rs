//! Features of pictures in a language model.

use crate::{Batch, Ops, Result, Tensor};

/// Puts features of pictures in the place of the tokens that hold it. In models that take none it does nothing.
pub struct MediaFeatures {
    ops: Ops,
    levels: usize,
}

impl MediaFeatures {
    /// Of a model that takes features of so many levels; 0: none.
    #[must_use]
    pub fn new(ops: Ops, levels: usize) -> Self {
        Self { ops, levels }
    }

    /// Embeddings [tokens, hidden], with features in their place where tokens hold it.
    ///
    /// # Errors
    /// If features have another width; MLX's own.
    pub fn place(&self, x: Tensor, batch: &Batch) -> Result<Tensor> {
        if self.levels == 0 { Ok(x) } else { self.ops.place_features(&x, batch) }
    }

    /// What block `block` adds to the hidden state [tokens, hidden], and the features' level `block + 1` on top of it, if there
    /// is one (DeepStack: Meng et al., arXiv:2406.04334; Qwen3-VL).
    ///
    /// # Errors
    /// As [`place`](Self::place).
    pub fn deepen(&self, block: usize, x: Tensor, batch: &Batch) -> Result<Tensor> {
        if block + 1 < self.levels { self.ops.add_features(&x, batch, block + 1) } else { Ok(x) }
    }
}
