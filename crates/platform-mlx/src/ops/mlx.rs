//! MLX's own kernels.

pub(super) mod convolve;
pub(super) mod lstm;

use mlx_rs::{
    Dtype,
    fast::rope_dynamic,
    ops::{
        addmm, argsort_axis, concatenate, erf,
        indexing::{TryIndexOp, take_axis},
        maximum, sigmoid, softmax_axis, tanh,
    },
};

use super::{Activation, ExpertWeights, Matrix, Projection, QuantizedMatrix, RopeFrequencies, Routing};
use crate::{Batch, Error, Layout, Result, Tensor, batch::dim, ffi};

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

pub(super) fn received(batch: &Batch, width: usize, dtype: Dtype) -> Result<Tensor> {
    let layout = batch.layout();
    let numbers = layout.received(width).map_err(Error::Plan)?;
    Ok(Tensor::from_slice(numbers, &[dim(layout.len()), dim(width)]).as_dtype(dtype)?)
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
        Activation::QuickGelu => x.multiply(sigmoid(x.multiply(scalar(1.702)?)?)?)?,
        Activation::Relu => maximum(x, scalar(0.0)?)?,
    })
}

pub(super) fn gated(gate: &Tensor, up: &Tensor, activation: Activation) -> Result<Tensor> {
    Ok(activate(gate, activation)?.multiply(up)?)
}

/// MLX takes one offset a batch entry, so every token is an entry of its own: [tokens, heads, 1, head_dim].
pub(super) fn rope(x: &Tensor, batch: &Batch, frequencies: &RopeFrequencies) -> Result<Tensor> {
    let &[tokens, heads, head_dim] = x.shape() else {
        return Err(Error::Plan(format!("rope wants [tokens, heads, head_dim], not {:?}", x.shape())));
    };
    let RopeFrequencies { inv_freq, periods, axes, magnitude } = frequencies;
    let layout = (!axes.is_empty()).then(|| batch.layout()).filter(|layout| layout.has_axes());
    let rotated = match layout {
        Some(layout) => rope_on_axes(x, &layout, inv_freq, axes)?,
        None => rope_dynamic(
            x.reshape(&[tokens, heads, 1, head_dim])?,
            dim(2 * inv_freq.len()),
            false,
            None,
            1.0,
            batch.positions.as_dtype(Dtype::Int32)?,
            Some(periods),
        )?
        .reshape(&[tokens, heads, head_dim])?,
    };
    if *magnitude == 1.0 {
        return Ok(rotated);
    }
    // YaRN's factor is on the rotated elements; all of a head's are, in every model that uses it.
    Ok(rotated.multiply(Tensor::from_f32(*magnitude).as_dtype(x.dtype())?)?)
}

/// MLX's own kernel knows one position a token: here each pair has its own.
fn rope_on_axes(x: &Tensor, layout: &Layout, inv_freq: &[f32], axes: &[u8]) -> Result<Tensor> {
    let (tokens, pairs) = (x.dim(0), dim(inv_freq.len()));
    let on = [0, 1, 2].map(|axis| layout.on_axis(axis));
    let angle = |token: usize| inv_freq.iter().zip(axes).map(move |(f, &axis)| on[usize::from(axis)][token] as f32 * f);
    let angles: Vec<f32> = (0..layout.len()).flat_map(angle).collect();
    let angles = Tensor::from_slice(&angles, &[tokens, 1, pairs]);
    let (cos, sin) = (angles.cos()?.as_dtype(x.dtype())?, angles.sin()?.as_dtype(x.dtype())?);
    let (a, b) = (x.try_index((.., .., ..pairs))?, x.try_index((.., .., pairs..2 * pairs))?);
    let first = a.multiply(&cos)?.subtract(b.multiply(&sin)?)?;
    let second = a.multiply(&sin)?.add(b.multiply(&cos)?)?;
    Ok(concatenate(&[first, second, x.try_index((.., .., 2 * pairs..))?], -1)?)
}

/// Rows of x that hold no picture's place, and the features of the others, in order.
fn with_features(x: &Tensor, batch: &Batch, level: usize, zeros: bool) -> Result<Tensor> {
    let (layout, width) = (batch.layout(), x.dim(1));
    let mut pieces = Vec::new();
    let mut row = 0;
    let rest = |from: usize, to: usize| -> Result<Tensor> {
        let rows = x.try_index(dim(from)..dim(to))?;
        Ok(if zeros { mlx_rs::ops::zeros_like(rows)? } else { rows })
    };
    for placed in layout.features() {
        if placed.row > row {
            pieces.push(rest(row, placed.row)?);
        }
        let features = placed.level(level, width as usize).map_err(Error::Plan)?;
        pieces.push(Tensor::from_slice(features, &[dim(placed.len), width]).as_dtype(x.dtype())?);
        row = placed.row + placed.len;
    }
    if row < layout.len() {
        pieces.push(rest(row, layout.len())?);
    }
    Ok(concatenate(&pieces, 0)?)
}

pub(super) fn place_features(x: &Tensor, batch: &Batch) -> Result<Tensor> {
    if batch.layout().features().is_empty() { Ok(x.clone()) } else { with_features(x, batch, 0, false) }
}

pub(super) fn add_features(x: &Tensor, batch: &Batch, level: usize) -> Result<Tensor> {
    if batch.layout().features().is_empty() {
        return Ok(x.clone());
    }
    Ok(x.add(with_features(x, batch, level, true)?)?)
}

/// The experts of each token, most probable first, and their weights: [tokens, per_token] each.
fn route(logits: &Tensor, Routing { per_token, normalize }: Routing) -> Result<(Tensor, Tensor)> {
    let probabilities = softmax_axis(logits, -1, true)?;
    let order = argsort_axis(probabilities.negative()?, -1)?;
    let chosen = take_axis(&order, Tensor::from_iter(0..dim(per_token), &[dim(per_token)]), -1)?;
    let weights = probabilities.take_along_axis(&chosen, -1)?;
    let weights = if normalize { weights.divide(weights.sum_axis(-1, true)?)? } else { weights };
    Ok((chosen, weights))
}

pub(super) fn moe(
    x: &Tensor,
    logits: &Tensor,
    experts: &ExpertWeights,
    routing: Routing,
    activation: Activation,
) -> Result<Tensor> {
    let (chosen, weights) = route(logits, routing)?;
    let (tokens, hidden) = (x.dim(0), x.dim(1));
    // A batch entry is a token's row for one of its experts: [tokens, experts of it, 1, …].
    let rows = x.reshape(&[tokens, 1, 1, hidden])?;
    let gate = ffi::gather_matmul(&rows, &experts.gate, experts.count, &chosen)?;
    let up = ffi::gather_matmul(&rows, &experts.up, experts.count, &chosen)?;
    let down = ffi::gather_matmul(&gated(&gate, &up, activation)?, &experts.down, experts.count, &chosen)?;
    let down = down.reshape(&[tokens, dim(routing.per_token), hidden])?;
    Ok(down.multiply(weights.expand_dims(-1)?)?.sum_axis(-2, false)?.as_dtype(x.dtype())?)
}
