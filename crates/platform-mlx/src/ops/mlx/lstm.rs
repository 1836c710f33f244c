//! Long short-term memory as a chain of MLX's operations, a few for each frame.

use mlx_rs::ops::{concatenate, indexing::TryIndexOp, sigmoid, split_equal, tanh, zeros};

use crate::{Result, Tensor, ops::LstmWeights};

pub(in super::super) fn lstm(x: &Tensor, directions: &[LstmWeights]) -> Result<Tensor> {
    let ways: Result<Vec<_>> = directions.iter().enumerate().map(|(way, w)| direction(x, w, way == 1)).collect();
    Ok(concatenate(&ways?, 1)?)
}

fn direction(x: &Tensor, w: &LstmWeights, backward: bool) -> Result<Tensor> {
    let (frames, hidden) = (x.dim(0), w.hidden.dim(1));
    let from_input = x.matmul(w.input.as_dtype(x.dtype())?.t())?.add(w.bias.as_dtype(x.dtype())?)?;
    let weights = w.hidden.as_dtype(x.dtype())?;
    let mut state = zeros::<f32>(&[1, hidden])?.as_dtype(x.dtype())?;
    let mut cell = state.clone();
    let mut states = Vec::new();
    for step in 0..frames {
        let at = if backward { frames - 1 - step } else { step };
        let gates = from_input.try_index(at..at + 1)?.add(state.matmul(weights.t())?)?;
        let parts = split_equal(&gates, 4, 1)?;
        let new = sigmoid(&parts[0])?.multiply(tanh(&parts[2])?)?;
        cell = sigmoid(&parts[1])?.multiply(&cell)?.add(new)?;
        state = sigmoid(&parts[3])?.multiply(tanh(&cell)?)?;
        states.push(state.clone());
    }
    if backward {
        states.reverse();
    }
    Ok(concatenate(&states, 0)?)
}
