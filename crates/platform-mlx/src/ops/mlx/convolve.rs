//! Convolutions in one dimension by MLX's own kernels, and what stands around them.

use mlx_rs::ops::{conv_transpose1d as mlx_conv_transpose1d, conv1d as mlx_conv1d, indexing::TryIndexOp, select};

use crate::{
    Result, Tensor,
    batch::dim,
    ops::convolve::{
        ChannelMap, ConvGeometry, Inlet, Nonlinearity, Outlet, TransposedGeometry, frames_of, with_frames,
    },
};

pub(in super::super) fn admit(x: &Tensor, inlet: Inlet<'_>) -> Result<Tensor> {
    let mapped = match inlet.map {
        Some(ChannelMap { scale, shift }) => x.multiply(scale)?.add(shift)?,
        None => x.clone(),
    };
    Ok(match inlet.function {
        Nonlinearity::Identity => mapped,
        Nonlinearity::LeakyRelu(slope) => {
            let part = mapped.multiply(Tensor::from_f32(slope).as_dtype(x.dtype())?)?;
            select(mapped.lt(Tensor::from_f32(0.0).as_dtype(x.dtype())?)?, part, mapped)?
        }
        Nonlinearity::Snake(alpha) => {
            let alpha = alpha.reshape(&[x.dim(-1)])?;
            let sine = mapped.multiply(&alpha)?.sin()?;
            mapped.add(sine.multiply(&sine)?.divide(alpha)?)?
        }
    })
}

/// With a batch before it, as MLX wants it.
fn batched(x: &Tensor) -> Result<Tensor> {
    let [batch, frames, channels] = frames_of(x)?;
    Ok(x.reshape(&[batch, frames, channels].map(dim))?)
}

pub(in super::super) fn conv1d(
    x: &Tensor,
    weights: &Tensor,
    bias: Option<&Tensor>,
    geometry: ConvGeometry,
    inlet: Inlet<'_>,
    outlet: Outlet<'_>,
) -> Result<Tensor> {
    let ConvGeometry { stride, padding, dilation, groups } = geometry;
    let weights = weights.as_dtype(x.dtype())?;
    let input = batched(&admit(x, inlet)?)?;
    let y = mlx_conv1d(input, weights, dim(stride), dim(padding), dim(dilation), dim(groups))?;
    let mut y = y.reshape(&with_frames(x, y.dim(1) as usize, y.dim(2) as usize))?;
    if let Some(bias) = bias {
        y = y.add(bias.as_dtype(x.dtype())?)?;
    }
    if let Some(residual) = outlet.residual {
        y = y.add(residual)?;
    }
    if outlet.factor != 1.0 {
        y = y.multiply(Tensor::from_f32(outlet.factor).as_dtype(x.dtype())?)?;
    }
    Ok(y)
}

pub(in super::super) fn conv_transpose1d(
    x: &Tensor,
    weights: &Tensor,
    bias: Option<&Tensor>,
    geometry: TransposedGeometry,
    inlet: Inlet<'_>,
) -> Result<Tensor> {
    let TransposedGeometry { stride, padding, output_padding, depthwise } = geometry;
    let groups = if depthwise { x.dim(-1) } else { 1 };
    let weights = weights.as_dtype(x.dtype())?;
    let input = batched(&admit(x, inlet)?)?;
    let y = mlx_conv_transpose1d(input, weights, dim(stride), dim(padding), 1, dim(output_padding), groups)?;
    let y = y.reshape(&with_frames(x, y.dim(1) as usize, y.dim(2) as usize))?;
    match bias {
        Some(bias) => Ok(y.add(bias.as_dtype(x.dtype())?)?),
        None => Ok(y),
    }
}

pub(in super::super) fn adaptive_norm(x: &Tensor, style: &Tensor, eps: f32) -> Result<ChannelMap> {
    let [_, frames, channels] = frames_of(x)?;
    let (frames, channels) = (dim(frames), dim(channels));
    let x = x.reshape(&[frames, channels])?;
    let style = style.reshape(&[2, channels])?;
    let scalar = |v: f32| Tensor::from_f32(v).as_dtype(x.dtype());
    let mean = x.mean_axis(0, false)?;
    let deviation = x.subtract(&mean)?;
    let variance = deviation.multiply(&deviation)?.mean_axis(0, false)?;
    let gain = style.try_index(0)?.add(scalar(1.0)?)?;
    let scale = gain.multiply(variance.add(scalar(eps)?)?.rsqrt()?)?;
    let shift = style.try_index(1)?.subtract(mean.multiply(&scale)?)?;
    Ok(ChannelMap { scale, shift })
}
