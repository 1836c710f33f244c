//! MLX's own kernels.

use mlx_rs::{
    fast::rope_dynamic,
    ops::{addmm, erf, indexing::take_axis, maximum, sigmoid, tanh},
};

use super::{Activation, Matrix, Projection, QuantizedMatrix};
use crate::{Batch, Error, Result, Tensor, batch::dim, ffi};

pub(super) fn linear(x: &Tensor, Projection { weight, bias, heads }: Projection<'_>) -> Result<Tensor> {
    let y = match (weight, bias) {
        (Matrix::Dense(w), Some(bias)) => addmm(bias, x, w.as_dtype(x.dtype())?.t(), None, None)?,
        (Matrix::Dense(w), None) => x.matmul(w.as_dtype(x.dtype())?.t())?,
        (Matrix::Quantized(q), Some(bias)) => ffi::quantized_matmul(x, q)?.add(bias)?,
        (Matrix::Quantized(q), None) => ffi::quantized_matmul(x, q)?,
        (Matrix::Packed(_), _) => return Err(packed()),
    };
    match heads {
        Some(heads) => Ok(y.reshape(&[x.dim(0), dim(heads), dim(weight.rows() / heads)])?),
        None => Ok(y),
    }
}

pub(super) fn embed(ids: &Tensor, weight: &Matrix) -> Result<Tensor> {
    let rows = |w: &Tensor| take_axis(w, ids, 0);
    match weight {
        Matrix::Dense(w) => Ok(rows(w)?),
        Matrix::Quantized(q) => {
            let picked = QuantizedMatrix {
                packed: rows(&q.packed)?,
                scales: rows(&q.scales)?,
                biases: q.biases.as_ref().map(rows).transpose()?,
                ..*q
            };
            ffi::dequantize(&picked)
        }
        Matrix::Packed(_) => Err(packed()),
    }
}

pub(super) fn wanted_rows(x: &Tensor, batch: &Batch) -> Result<Tensor> {
    let layout = batch.layout();
    let rows = Tensor::from_slice(layout.wanted(), &[dim(layout.wanted().len())]);
    Ok(take_axis(x, rows, 0)?)
}

fn packed() -> Error {
    Error::Plan("weights packed for the CPU's kernels are no use to MLX's".into())
}

pub(super) fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    let scalar = |v: f32| Tensor::from_f32(v).as_dtype(x.dtype());
    Ok(match activation {
        Activation::Silu => x.multiply(sigmoid(x)?)?,
        Activation::Gelu => {
            let both_tails = erf(x.multiply(scalar(std::f32::consts::FRAC_1_SQRT_2)?)?)?.add(scalar(1.0)?)?;
            x.multiply(scalar(0.5)?)?.multiply(both_tails)?
        }
        Activation::GeluTanh => {
            let cubic = x.multiply(x)?.multiply(x)?.multiply(scalar(0.044_715)?)?;
            let inner = x.add(cubic)?.multiply(scalar((2.0 / std::f32::consts::PI).sqrt())?)?;
            x.multiply(scalar(0.5)?)?.multiply(tanh(inner)?.add(scalar(1.0)?)?)?
        }
        Activation::Relu => maximum(x, scalar(0.0)?)?,
    })
}

pub(super) fn gated(gate: &Tensor, up: &Tensor, activation: Activation) -> Result<Tensor> {
    Ok(activate(gate, activation)?.multiply(up)?)
}

/// MLX takes one offset a batch entry, so every token is an entry of its own: [tokens, heads, 1, head_dim].
pub(super) fn rope(x: &Tensor, batch: &Batch, pairs: usize, periods: &Tensor, magnitude: f32) -> Result<Tensor> {
    let &[tokens, heads, head_dim] = x.shape() else {
        return Err(Error::Plan(format!("rope wants [tokens, heads, head_dim], not {:?}", x.shape())));
    };
    let rows = x.reshape(&[tokens, heads, 1, head_dim])?;
    let rotated = rope_dynamic(
        rows,
        dim(2 * pairs),
        false,
        None,
        1.0,
        batch.positions.as_dtype(mlx_rs::Dtype::Int32)?,
        Some(periods),
    )?;
    let rotated = rotated.reshape(&[tokens, heads, head_dim])?;
    if magnitude == 1.0 {
        return Ok(rotated);
    }
    // YaRN's factor is on the rotated elements; all of a head's are, in every model that uses it.
    Ok(rotated.multiply(Tensor::from_f32(magnitude).as_dtype(x.dtype())?)?)
}
