//! Long short-term memory, in one direction or both.

use super::{Backend, Ops, mlx};
use crate::{Error, Result, Tensor};

/// Weights of one direction. Rows are those of the input gate, the forget gate, the cell and the output gate.
#[derive(Clone)]
pub struct LstmWeights {
    /// [4 · hidden, inputs]
    pub input: Tensor,
    /// [4 · hidden, hidden]
    pub hidden: Tensor,
    /// `[4 · hidden]`
    pub bias: Tensor,
}

impl LstmWeights {
    /// All of them.
    pub fn arrays(&self) -> impl Iterator<Item = &Tensor> {
        [&self.input, &self.hidden, &self.bias].into_iter()
    }
}

impl Ops {
    /// x [frames, inputs] → [frames, directions · hidden]: the first direction goes forward, the second backward.
    ///
    /// # Errors
    /// If there are no directions or more than two, or a shape doesn't fit; MLX's own.
    pub fn lstm(&self, x: &Tensor, directions: &[LstmWeights]) -> Result<Tensor> {
        let hidden = directions.first().map_or(0, |way| way.hidden.dim(1));
        let fit = |way: &LstmWeights| {
            way.input.shape() == [4 * hidden, x.dim(-1)]
                && way.hidden.shape() == [4 * hidden, hidden]
                && way.bias.shape() == [4 * hidden]
        };
        if x.ndim() != 2 || !(1..=2).contains(&directions.len()) || !directions.iter().all(fit) {
            let (x, count) = (x.shape(), directions.len());
            return Err(Error::Plan(format!("an LSTM of {count} directions and {hidden} states over {x:?}")));
        }
        match &self.0 {
            Backend::Cpu(cpu) => cpu.lstm(x, directions),
            Backend::Mlx => mlx::lstm::lstm(x, directions),
        }
    }
}
