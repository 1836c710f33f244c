//! Convolutions in one dimension as networks that make sound have them: many channels, few taps, an activation function before
//! and a sum after, over thousands of frames.
//!
//! [`Taps`] are weights in the form that a pool's kernels want: brought into order once, and, where the pool's
//! [`Activations`](crate::Activations) say so, as integers.

mod around;
mod integers;
mod job;
mod kernel;
#[cfg(target_arch = "aarch64")]
mod neon;
mod packed;
#[cfg(test)]
mod tests;
mod tile;
mod toom;
mod transposed;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::{Conv1d, Filters, Pool, WeightArena, conv1d, with_scratch};

use around::discharge;
pub use around::{Inlet, Nonlinearity, Outlet, admit};
use job::{Integers, Job, Target};
use kernel::{Kernel, Numbers};
use packed::Packed;
pub use transposed::{TransposedTaps, convolve_transposed};

/// Weights of a convolution in one dimension, and its bias.
pub struct Taps {
    form: Form,
    outputs: usize,
    kernel: usize,
    /// Of a group.
    inputs: usize,
    conv: Conv1d,
    /// `[outputs]`, or none.
    bias: Vec<f32>,
}

enum Form {
    /// [outputs, kernel, inputs]
    Dense(Vec<f32>),
    Integers(Integers, &'static Kernel),
}

/// Channels or outputs below which integers are not worth their preparation.
const LEAST_WIDTH: usize = 16;

impl Taps {
    /// Weights [outputs, kernel, inputs / groups] of a convolution and a bias `[outputs]`, for `pool`.
    ///
    /// # Panics
    /// If a slice has another length than its shape, the outputs don't fit the groups, or a stride or dilation is 0.
    #[must_use]
    pub fn new(
        pool: &Pool,
        arena: &WeightArena,
        weights: &[f32],
        shape: [usize; 3],
        conv: Conv1d,
        bias: Option<&[f32]>,
    ) -> Self {
        let [outputs, kernel, inputs] = shape;
        assert_eq!(weights.len(), outputs * kernel * inputs, "taps of [{outputs}, {kernel}, {inputs}]");
        let Conv1d { stride, dilation, groups, .. } = conv;
        assert!(groups > 0 && outputs.is_multiple_of(groups), "{outputs} outputs in {groups} groups");
        assert!(stride > 0 && dilation > 0, "a stride of {stride}, a dilation of {dilation}");
        let bias = bias.unwrap_or_default();
        assert!(bias.is_empty() || bias.len() == outputs, "a bias of {} for {outputs} outputs", bias.len());
        let integers = integers(pool, arena, weights, shape, conv);
        let form = integers.map_or_else(|| Form::Dense(weights.into()), |(w, kernel)| Form::Integers(w, kernel));
        Self { form, outputs, kernel, inputs, conv, bias: bias.into() }
    }

    /// Channels of the result.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Channels of the input, those of all groups.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.inputs * self.conv.groups
    }

    /// How many frames a result sees.
    #[must_use]
    pub fn kernel(&self) -> usize {
        self.kernel
    }

    /// How the kernel goes over the frames.
    #[must_use]
    pub fn conv(&self) -> Conv1d {
        self.conv
    }

    /// Frames of the result for `length` of the input.
    #[must_use]
    pub fn output(&self, length: usize) -> usize {
        self.conv.output(length, self.kernel)
    }

    /// Bytes of memory.
    #[must_use]
    pub fn nbytes(&self) -> usize {
        let weights = match &self.form {
            Form::Dense(weights) => 4 * weights.len(),
            Form::Integers(weights, _) => weights.parts().iter().map(Packed::nbytes).sum(),
        };
        weights + 4 * self.bias.len()
    }
}

/// The weights as integers, if the pool wants them and they are worth it.
fn integers(
    pool: &Pool,
    arena: &WeightArena,
    weights: &[f32],
    shape: [usize; 3],
    conv: Conv1d,
) -> Option<(Integers, &'static Kernel)> {
    let [outputs, taps, inputs] = shape;
    let kernel = Kernel::of(pool.isa(), pool.activations())?;
    if conv.groups > 1 || taps == 0 || inputs < 2 * LEAST_WIDTH || outputs < LEAST_WIDTH {
        return None;
    }
    // Bytes have no precision to spare, and products of few taps are not that many.
    if kernel.numbers != Numbers::Pairs || taps < toom::TOGETHER || conv.stride > 1 {
        return Some((Integers::Plain(Packed::new(pool, arena, kernel, weights, shape)?), kernel));
    }
    let parts = [outputs, taps.div_ceil(toom::TOGETHER), inputs];
    let mut points = Vec::new();
    for point in 0..toom::POINTS {
        points.push(Packed::new(pool, arena, kernel, &toom::weights_at(point, weights, shape), parts)?);
    }
    Some((Integers::Points(Box::new(points.try_into().ok()?)), kernel))
}

/// `outlet(taps ∗ inlet(x) + bias)`: `x` `[batch, length, channels]` → `y` `[batch, taps.output(length), outputs]`.
///
/// # Panics
/// If the lengths of `x`, `y` or a list don't fit the shapes.
pub fn convolve(
    pool: &Pool,
    x: &[f32],
    [batch, length]: [usize; 2],
    taps: &Taps,
    inlet: &Inlet<'_>,
    outlet: &Outlet<'_>,
    y: &mut [f32],
) {
    let (channels, conv) = (taps.channels(), taps.conv);
    assert_eq!(x.len(), batch * length * channels, "convolve: x of [{batch}, {length}, {channels}]");
    if let Some(residual) = outlet.residual {
        assert_eq!(residual.len(), y.len(), "convolve: residual and y");
    }
    inlet.check(channels);
    match &taps.form {
        Form::Dense(weights) => {
            let shape = [taps.outputs, 1, taps.kernel, taps.inputs];
            let filters = Filters::new(weights, shape).expect("checked when the taps were made");
            if inlet.is_identity() {
                conv1d(pool, x, [batch, length], &filters, conv, y);
            } else {
                with_scratch(x.len(), |admitted| {
                    admit(pool, x, channels, inlet, admitted);
                    conv1d(pool, admitted, [batch, length], &filters, conv, y);
                });
            }
            discharge(pool, y, &taps.bias, outlet);
        }
        Form::Integers(weights, kernel) => {
            let places = taps.output(length);
            assert_eq!(y.len(), batch * places * taps.outputs, "convolve: y of [{batch}, {places}, {}]", taps.outputs);
            if y.is_empty() {
                return;
            }
            let target = Target { skipped: 0, len: places * taps.outputs };
            let bias = &*taps.bias;
            Job { kernel, weights, x, length, conv, places, bias, inlet, outlet, target }.run(pool, y);
        }
    }
}
