//! Token embedding, and the same matrix as output layer where the two are tied.

use crate::{Matrix, Ops, Projection, Result, Tensor};

/// A matrix [vocab, hidden], dense or quantized.
pub struct Embedding {
    ops: Ops,
    weight: Matrix,
}

impl Embedding {
    pub(crate) fn new(ops: Ops, weight: Matrix) -> Self {
        weight.arrays().for_each(|array| ops.constant(array));
        Self { ops, weight }
    }

    /// Rows of the matrix: token ids `[tokens]`, u32 → [tokens, hidden]. An id beyond the vocabulary fails the step.
    ///
    /// # Errors
    /// MLX's own.
    pub fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        self.ops.embed(tokens, &self.weight)
    }

    /// The tied output layer: [rows, hidden] → logits [rows, vocab].
    ///
    /// # Errors
    /// MLX's own.
    pub fn as_output(&self, hidden: &Tensor) -> Result<Tensor> {
        let [logits] = self.ops.linear(hidden, [Projection::plain(&self.weight)])?;
        Ok(logits)
    }

    /// Rows, that is, tokens known.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.weight.rows()
    }
}
