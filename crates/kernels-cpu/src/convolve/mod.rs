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
mod transposed;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::{Conv1d, Filters, Pool, WeightArena, conv1d, with_scratch};

use around::discharge;
pub use around::{Inlet, Nonlinearity, Outlet, admit};
use job::{Job, Target};
use kernel::Kernel;
use packed::Packed;
pub use transposed::{TransposedTaps, convolve_transposed};

/// Weights of a convolution in one dimension, and its bias.
pub struct Taps {
    form: Form,
    outputs: usize,
    kernel: usize,
    /// Of a group.
    inputs: usize,
    groups: usize,
    /// `[outputs]`, or none.
    bias: Vec<f32>,
}

enum Form {
    /// [outputs, kernel, inputs]
    Dense(Vec<f32>),
    Packed(Packed, &'static Kernel),
}

/// Channels or outputs below which integers are not worth their preparation.
const LEAST_WIDTH: usize = 16;

impl Taps {
    /// Weights [outputs, kernel, inputs / groups] and a bias `[outputs]`, for convolutions on `pool`.
    ///
    /// # Panics
    /// If a slice has another length than its shape, or the outputs don't fit the groups.
    #[must_use]
    pub fn new(
        pool: &Pool,
        arena: &WeightArena,
        weights: &[f32],
        [outputs, kernel, inputs]: [usize; 3],
        groups: usize,
        bias: Option<&[f32]>,
    ) -> Self {
        assert_eq!(weights.len(), outputs * kernel * inputs, "taps of [{outputs}, {kernel}, {inputs}]");
        assert!(groups > 0 && outputs.is_multiple_of(groups), "{outputs} outputs in {groups} groups");
        let bias = bias.unwrap_or_default();
        assert!(bias.is_empty() || bias.len() == outputs, "a bias of {} for {outputs} outputs", bias.len());
        let kernel_of = Kernel::of(pool.isa(), pool.activations());
        let wide = groups == 1 && inputs >= 2 * LEAST_WIDTH && outputs >= LEAST_WIDTH && kernel > 0;
        let packed = kernel_of.filter(|_| wide).and_then(|kernel_of| {
            Some((Packed::new(pool, arena, kernel_of, weights, [outputs, kernel, inputs])?, kernel_of))
        });
        let form = match packed {
            Some((packed, kernel_of)) => Form::Packed(packed, kernel_of),
            None => Form::Dense(weights.into()),
        };
        Self { form, outputs, kernel, inputs, groups, bias: bias.into() }
    }

    /// Channels of the result.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Channels of the input, those of all groups.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.inputs * self.groups
    }

    /// How many frames a result sees.
    #[must_use]
    pub fn kernel(&self) -> usize {
        self.kernel
    }

    /// Parts of the channels that don't mix.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Bytes of memory.
    #[must_use]
    pub fn nbytes(&self) -> usize {
        let weights = match &self.form {
            Form::Dense(weights) => 4 * weights.len(),
            Form::Packed(packed, _) => packed.nbytes(),
        };
        weights + 4 * self.bias.len()
    }
}

/// `outlet(taps ∗ inlet(x) + bias)`: `x` `[batch, length, channels]` → `y` `[batch, conv.output(length, kernel), outputs]`.
///
/// # Panics
/// If the lengths of `x`, `y` or a list don't fit the shapes, the groups aren't those of the taps, or a stride or dilation is 0.
#[allow(clippy::too_many_arguments)]
pub fn convolve(
    pool: &Pool,
    x: &[f32],
    [batch, length]: [usize; 2],
    taps: &Taps,
    conv: Conv1d,
    inlet: &Inlet<'_>,
    outlet: &Outlet<'_>,
    y: &mut [f32],
) {
    let channels = taps.channels();
    assert_eq!(conv.groups, taps.groups, "groups of the convolution and of its taps");
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
        Form::Packed(packed, kernel) => {
            let places = conv.output(length, taps.kernel);
            assert_eq!(y.len(), batch * places * taps.outputs, "convolve: y of [{batch}, {places}, {}]", taps.outputs);
            if y.is_empty() {
                return;
            }
            let target = Target { skipped: 0, len: places * taps.outputs };
            let bias = &*taps.bias;
            Job { kernel, packed, x, length, conv, places, bias, inlet, outlet, target }.run(pool, y);
        }
    }
}
