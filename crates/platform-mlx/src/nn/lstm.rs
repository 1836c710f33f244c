//! Long short-term memory.

use crate::{LstmWeights, Ops, Result, Tensor};

/// Long short-term memory over all frames of a sequence, forward or both ways.
pub struct Lstm {
    ops: Ops,
    directions: Vec<LstmWeights>,
}

impl Lstm {
    pub(crate) fn new(ops: Ops, directions: Vec<LstmWeights>) -> Self {
        directions.iter().flat_map(LstmWeights::arrays).for_each(|array| ops.constant(array));
        Self { ops, directions }
    }

    /// [frames, inputs] → [frames, directions · hidden]: what goes forward first.
    ///
    /// # Errors
    /// If the shape doesn't fit; MLX's own.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.ops.lstm(x, &self.directions)
    }
}
