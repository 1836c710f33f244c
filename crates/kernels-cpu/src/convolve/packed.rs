//! Weights of a convolution as integers, in the order in which the tiles read them.
//!
//! # Layout
//!
//! Outputs stand in *panels* of 16, a lane an output, the last ones filled up with zeros. A panel is one stream of u32 words: for each
//! tap, for each *segment* of channels,
//!
//! 1. with bytes, what the sum of a segment begins with, i32, one for each lane (see below);
//! 2. the integers: word after word, each of all 16 lanes side by side. A word has two channels as i16, or four as bytes.
//!
//! # The integers
//!
//! Each output has a unit. With i16 it is such that no sum of a segment can leave i32, whatever the activations: these
//! are at most [`LARGEST`], so the weights of a segment may add up to `2³¹ / LARGEST` in magnitude. For 256 channels of
//! normally distributed weights that makes the usual one about 1280.
//!
//! With bytes weights are in −127..=127. The instructions of x86 want one operand without a sign: there activations have 128 added,
//! and a segment's sums begin with `−128 · Σ w`.

use crate::{Pool, SharedMut, WeightArena, arena::Block};

use super::kernel::{Kernel, Numbers};

/// Lanes of a panel.
pub(super) const LANES: usize = 16;
/// The largest magnitude of an activation as i16.
pub(super) const LARGEST: i32 = 8191;
/// Channels whose products are summed as integers.
const SEGMENT: usize = 256;

/// Weights as integers.
pub(super) struct Packed {
    words: Block,
    pub outputs: usize,
    pub kernel: usize,
    pub channels: usize,
    /// Parts of the channels that are summed by themselves.
    pub segments: usize,
    /// Of a segment, of one lane.
    pub segment_words: usize,
    /// Words of one lane before a segment's integers: 1 or 0.
    pub head: usize,
    pub panels: usize,
    /// Of each output, up to the panels' end.
    pub units: Vec<f32>,
}

impl Packed {
    /// Weights [outputs, kernel, channels] for the kernel; `None` if there is no memory.
    pub fn new(
        pool: &Pool,
        arena: &WeightArena,
        kernel: &Kernel,
        weights: &[f32],
        [outputs, taps, channels]: [usize; 3],
    ) -> Option<Self> {
        let per_word = kernel.numbers.per_word();
        let segments = channels.div_ceil(SEGMENT);
        let segment_words = channels.div_ceil(segments).div_ceil(per_word);
        let head = usize::from(kernel.numbers == Numbers::Unsigned);
        let panels = outputs.div_ceil(LANES).next_multiple_of(kernel.panels);
        let panel_words = taps * segments * (segment_words + head) * LANES;
        let mut packed = Self {
            words: arena.take(panels * panel_words)?,
            outputs,
            kernel: taps,
            channels,
            segments,
            segment_words,
            head,
            panels,
            units: vec![0.0; panels * LANES],
        };
        let segment = segment_words * per_word;
        let units = SharedMut::new(&mut packed.units);
        pool.run_chunks(packed.words.words_mut(), panel_words, |first, panel| {
            let panel_number = first / panel_words;
            for lane in 0..LANES {
                let output = panel_number * LANES + lane;
                if output >= outputs {
                    break;
                }
                let filter = &weights[output * taps * channels..][..taps * channels];
                let unit = unit(kernel.numbers, filter, channels, segment);
                // SAFETY: each output is visited once.
                unsafe { units.slice(output..output + 1)[0] = unit };
                let inverse = if unit > 0.0 { 1.0 / f64::from(unit) } else { 0.0 };
                let mut at = lane;
                for tap in filter.chunks_exact(channels) {
                    for part in 0..segments {
                        let tap = &tap[(part * segment).min(channels)..channels.min((part + 1) * segment)];
                        let integers: Vec<i32> =
                            tap.iter().map(|&w| (f64::from(w) * inverse).round_ties_even() as i32).collect();
                        if head == 1 {
                            panel[at] = (-128 * integers.iter().sum::<i32>()) as u32;
                            at += LANES;
                        }
                        let mut words = integers.chunks(per_word);
                        for _ in 0..segment_words {
                            let bits = 32 / per_word;
                            let word = words.next().unwrap_or_default().iter().enumerate();
                            panel[at] = word
                                .fold(0, |word, (i, &v)| word | (v as u32 & (u32::MAX >> (32 - bits))) << (i * bits));
                            at += LANES;
                        }
                    }
                }
            }
        });
        Some(packed)
    }

    /// Words of one lane of a row of activations.
    pub fn row_words(&self) -> usize {
        self.segments * self.segment_words
    }

    /// Words of a panel.
    pub fn panel_words(&self) -> usize {
        self.kernel * self.segments * (self.segment_words + self.head) * LANES
    }

    /// From the first word of a panel to the end.
    pub fn panels_from(&self, panel: usize) -> &[u32] {
        &self.words.words()[panel * self.panel_words()..]
    }

    pub fn nbytes(&self) -> usize {
        4 * (self.words.words().len() + self.units.len())
    }
}

/// What an integer of an output's weights stands for.
fn unit(numbers: Numbers, filter: &[f32], channels: usize, segment: usize) -> f32 {
    let largest = filter.iter().fold(0.0, |m: f32, w| m.max(w.abs()));
    match numbers {
        Numbers::Signed | Numbers::Unsigned => largest / 127.0,
        Numbers::Pairs => {
            // Rounding adds a half to each magnitude at most; two are for the roundings of the unit itself.
            let room = f64::from(i32::MAX / LARGEST) - 0.5 * segment as f64 - 2.0;
            let sum = |w: &[f32]| w.iter().map(|&w| f64::from(w.abs())).sum::<f64>();
            let taps = filter.chunks_exact(channels).flat_map(|tap| tap.chunks(segment));
            let most = taps.map(sum).fold(0.0, f64::max);
            (most / room).max(f64::from(largest) / 32_766.0) as f32
        }
    }
}
