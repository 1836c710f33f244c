//! Transposed convolutions: each frame of the input becomes several of the output.
//!
//! With a stride `s` an output `t · s + r` sees the taps `r`, `r + s`, … alone, those of its *phase* `r`. So the `s` outputs from
//! `t · s` on are one result of a plain convolution with `s` times as many outputs and a kernel `s` times as short, and lie
//! beside each other as they should.

use super::{
    Form, Inlet, Outlet, Taps, admit, convolve, discharge,
    job::{Job, Target},
};
use crate::{Conv1d, Pool, WeightArena, with_scratch};

/// Weights of a transposed convolution in one dimension, and its bias.
pub struct TransposedTaps {
    form: TransposedForm,
    outputs: usize,
    kernel: usize,
    stride: usize,
    /// `[outputs]`, or none.
    bias: Vec<f32>,
}

enum TransposedForm {
    /// A plain convolution with a result for each phase and output.
    Phases(Taps),
    /// [kernel, channels]: a filter for each channel.
    Depthwise(Vec<f32>),
}

impl TransposedTaps {
    /// Weights [inputs, kernel, outputs] and a bias `[outputs]` of a convolution with that stride, for `pool`.
    ///
    /// # Panics
    /// If a slice has another length than its shape, or the stride is 0.
    #[must_use]
    pub fn new(
        pool: &Pool,
        arena: &WeightArena,
        weights: &[f32],
        [inputs, kernel, outputs]: [usize; 3],
        stride: usize,
        bias: Option<&[f32]>,
    ) -> Self {
        assert_eq!(weights.len(), inputs * kernel * outputs, "taps of [{inputs}, {kernel}, {outputs}]");
        assert!(stride > 0 && kernel > 0, "a stride of {stride}, a kernel of {kernel}");
        let reach = kernel.div_ceil(stride);
        let mut phases = vec![0.0; stride * outputs * reach * inputs];
        for (i, taps) in weights.chunks_exact(kernel * outputs).enumerate() {
            for (tap, row) in taps.chunks_exact(outputs).enumerate() {
                // The tap `phase + j · stride` is for the frame `j` before.
                let (phase, place) = (tap % stride, reach - 1 - tap / stride);
                for (output, &w) in row.iter().enumerate() {
                    phases[((phase * outputs + output) * reach + place) * inputs + i] = w;
                }
            }
        }
        let conv = Conv1d { padding: reach - 1, ..Conv1d::default() };
        let taps = Taps::new(pool, arena, &phases, [stride * outputs, reach, inputs], conv, None);
        Self { form: TransposedForm::Phases(taps), outputs, kernel, stride, bias: bias_of(bias, outputs) }
    }

    /// Weights [channels, kernel], a filter for each channel.
    ///
    /// # Panics
    /// As [`TransposedTaps::new`].
    #[must_use]
    pub fn depthwise(weights: &[f32], [channels, kernel]: [usize; 2], stride: usize, bias: Option<&[f32]>) -> Self {
        assert_eq!(weights.len(), channels * kernel, "taps of [{channels}, {kernel}]");
        assert!(stride > 0 && kernel > 0, "a stride of {stride}, a kernel of {kernel}");
        let mut turned = vec![0.0; weights.len()];
        for (channel, filter) in weights.chunks_exact(kernel).enumerate() {
            filter.iter().enumerate().for_each(|(tap, &w)| turned[tap * channels + channel] = w);
        }
        let bias = bias_of(bias, channels);
        Self { form: TransposedForm::Depthwise(turned), outputs: channels, kernel, stride, bias }
    }

    /// Channels of the input.
    #[must_use]
    pub fn channels(&self) -> usize {
        match &self.form {
            TransposedForm::Phases(taps) => taps.channels(),
            TransposedForm::Depthwise(_) => self.outputs,
        }
    }

    /// Channels of the result.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Frames of the result for `length` of the input, of which `padding` fall away at either end, and with `extra` at the last.
    #[must_use]
    pub fn output(&self, length: usize, padding: usize, extra: usize) -> usize {
        if length == 0 { 0 } else { ((length - 1) * self.stride + self.kernel + extra).saturating_sub(2 * padding) }
    }

    /// Bytes of memory.
    #[must_use]
    pub fn nbytes(&self) -> usize {
        let weights = match &self.form {
            TransposedForm::Phases(taps) => taps.nbytes(),
            TransposedForm::Depthwise(weights) => 4 * weights.len(),
        };
        weights + 4 * self.bias.len()
    }
}

fn bias_of(bias: Option<&[f32]>, outputs: usize) -> Vec<f32> {
    let bias = bias.unwrap_or_default();
    assert!(bias.is_empty() || bias.len() == outputs, "a bias of {} for {outputs} outputs", bias.len());
    bias.into()
}

/// The transposed convolution of `inlet(x)`: `x` `[length, channels]` → `y` `[frames, outputs]`, with the frames that
/// [`TransposedTaps::output`] tells.
///
/// # Panics
/// If the lengths of `x`, `y` or a list don't fit.
pub fn convolve_transposed(
    pool: &Pool,
    x: &[f32],
    taps: &TransposedTaps,
    [padding, extra]: [usize; 2],
    inlet: &Inlet<'_>,
    y: &mut [f32],
) {
    let (channels, outputs) = (taps.channels(), taps.outputs);
    assert!(x.len().is_multiple_of(channels), "transposed: {} numbers are not frames of {channels}", x.len());
    let length = x.len() / channels;
    let frames = taps.output(length, padding, extra);
    assert_eq!(y.len(), frames * outputs, "transposed: y of [{frames}, {outputs}]");
    inlet.check(channels);
    if y.is_empty() {
        return;
    }
    match &taps.form {
        TransposedForm::Phases(phases) => {
            let (conv, rows) = (phases.conv(), phases.output(length));
            if let Form::Integers(weights, kernel) = &phases.form {
                // Frames beyond all phases see nothing.
                let reached = (rows * phases.outputs()).saturating_sub(padding * outputs).min(y.len());
                y[reached..].fill(0.0);
                let target = Target { skipped: padding * outputs, len: reached };
                let (places, bias, outlet) = (rows, &[][..], &Outlet::default());
                let job = Job { kernel, weights, x, length, conv, places, bias, inlet, outlet, target };
                job.run(pool, &mut y[..reached]);
                return discharge(pool, y, &taps.bias, &Outlet::default());
            }
            with_scratch(rows * phases.outputs(), |whole| {
                convolve(pool, x, [1, length], phases, inlet, &Outlet::default(), whole);
                let kept = whole.get(padding * outputs..).unwrap_or_default();
                let kept = &kept[..kept.len().min(y.len())];
                y[..kept.len()].copy_from_slice(kept);
                y[kept.len()..].fill(0.0);
            });
        }
        TransposedForm::Depthwise(weights) => with_scratch(x.len(), |admitted| {
            admit(pool, x, channels, inlet, admitted);
            y.fill(0.0);
            for (t, x) in admitted.chunks_exact(channels).enumerate() {
                for (tap, filter) in weights.chunks_exact(channels).enumerate() {
                    let frame = (t * taps.stride + tap).checked_sub(padding).filter(|&frame| frame < frames);
                    if let Some(frame) = frame {
                        let y = &mut y[frame * channels..][..channels];
                        y.iter_mut().zip(x.iter().zip(filter)).for_each(|(y, (x, w))| *y += x * w);
                    }
                }
            }
        }),
    }
    discharge(pool, y, &taps.bias, &Outlet::default());
}
