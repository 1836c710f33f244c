//! A convolution in integers: cut into tasks, each of which makes integers of the frames that it sees.

use super::{
    Inlet, Outlet,
    integers::Quantize,
    kernel::{Kernel, Numbers, ROWS, Reads, Tile},
    packed::{LANES, Packed},
};
use crate::{Conv1d, Pool, SharedMut, scratch, simd::kernel::run};

/// Bytes of integers that a task has at once: they and some weights are to stay in a core's L2.
const BLOCK_BYTES: usize = 128 << 10;
/// Results below which a block would see much more than it gives.
const LEAST_BLOCK: usize = 4 * ROWS;

/// Where results go: output `o` of place `t` to number `t · outputs + o − skipped` of a batch entry's `len`, if there is such a number.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub skipped: usize,
    pub len: usize,
}

/// A convolution over a batch.
pub(super) struct Job<'a> {
    pub kernel: &'static Kernel,
    pub packed: &'a Packed,
    /// [batch, length, channels]
    pub x: &'a [f32],
    pub length: usize,
    pub conv: Conv1d,
    /// Results of a batch entry.
    pub places: usize,
    /// For each output, or none.
    pub bias: &'a [f32],
    pub inlet: &'a Inlet<'a>,
    pub outlet: &'a Outlet<'a>,
    pub target: Target,
}

impl Job<'_> {
    /// Fills `y`, [batch, target.len].
    pub(super) fn run(&self, pool: &Pool, y: &mut [f32]) {
        let packed = self.packed;
        let batch = self.x.len() / (self.length * packed.channels);
        let columns = packed.panels / self.kernel.panels;
        // As many tasks as even out busy cores, of blocks that are not too short, or else of parts of the weights.
        let wanted = (pool.threads() * 4).div_ceil(batch);
        let by_bytes = BLOCK_BYTES / (4 * packed.row_words() * self.conv.stride);
        let by_threads = self.places.div_ceil(wanted).max(LEAST_BLOCK);
        let block = by_bytes.min(by_threads).max(ROWS).next_multiple_of(ROWS);
        let blocks = self.places.div_ceil(block);
        let parts = if pool.threads() == 1 { 1 } else { wanted.div_ceil(blocks).min(columns) };
        let y = SharedMut::new(y);
        pool.run(batch * blocks * parts, |task| {
            let (entry, part) = (task / parts / blocks, task % parts);
            let first = task / parts % blocks * block;
            let places = first..self.places.min(first + block);
            let columns = part * columns / parts..(part + 1) * columns / parts;
            self.block(pool, entry, places, columns, y);
        });
    }

    /// The results `places` of a batch entry, of the panels in `columns`, each as many as a tile takes.
    fn block(
        &self,
        pool: &Pool,
        entry: usize,
        places: std::ops::Range<usize>,
        columns: std::ops::Range<usize>,
        y: SharedMut<'_, f32>,
    ) {
        let (packed, conv) = (self.packed, self.conv);
        let row_words = packed.row_words();
        let rows = (places.len() - 1) * conv.stride + (packed.kernel - 1) * conv.dilation + 1;
        let mut scratch = scratch::take(rows * row_words + rows + packed.channels);
        let (integers, rest) = scratch.split_at_mut(rows * row_words);
        // SAFETY: f32 and u32 are alike in size and alignment, and any bits are either.
        let integers = unsafe { std::slice::from_raw_parts_mut(integers.as_mut_ptr().cast::<u32>(), integers.len()) };
        let (units, room) = rest.split_at_mut(rows);
        self.admit(pool, entry, places.start * conv.stride, integers, units, room);
        let mut tile = Tile([[0.0; 2 * LANES]; ROWS]);
        for column in columns {
            let panel = column * self.kernel.panels;
            let mut at = places.start;
            while at < places.end {
                let left = places.end - at;
                let &(count, multiply) =
                    self.kernel.tiles.iter().find(|&&(rows, _)| rows <= left).expect("the last has one row");
                let first = (at - places.start) * conv.stride;
                let reads = Reads {
                    panel: packed.from_panel(panel).as_ptr(),
                    panel_words: packed.panel_words(),
                    x: integers[first * row_words..].as_ptr(),
                    units: units[first..].as_ptr(),
                    row_words,
                    stride: conv.stride,
                    dilation: conv.dilation,
                    taps: packed.kernel,
                    segments: packed.segments,
                    segment_words: packed.segment_words,
                };
                // SAFETY: the kernel was chosen for this processor; the last row that the last tap of the last result sees is the
                // last of `rows`, and the panels are a multiple of what a tile takes.
                unsafe { multiply(&reads, &mut tile) };
                for (i, results) in tile.0[..count].iter().enumerate() {
                    for p in 0..self.kernel.panels {
                        self.emit(entry, at + i, panel + p, &results[p * LANES..(p + 1) * LANES], y);
                    }
                }
                at += count;
            }
        }
    }

    /// Makes integers of the frames from `first` of the padded input on.
    fn admit(&self, pool: &Pool, entry: usize, first: usize, rows: &mut [u32], units: &mut [f32], room: &mut [f32]) {
        let (packed, padding) = (self.packed, self.conv.padding);
        let row_words = packed.row_words();
        let zero = if self.kernel.numbers == Numbers::Unsigned { 0x8080_8080 } else { 0 };
        // Rows of padding before the frames, and of frames.
        let before = padding.saturating_sub(first).min(units.len());
        let begin = (first + before).saturating_sub(padding).min(self.length);
        let count = (units.len() - before).min(self.length - begin);
        rows[..before * row_words].fill(zero);
        units[..before].fill(0.0);
        rows[(before + count) * row_words..].fill(zero);
        units[before + count..].fill(0.0);
        if count == 0 {
            return;
        }
        let start = (entry * self.length + begin) * packed.channels;
        let x = &self.x[start..start + count * packed.channels];
        let rows = &mut rows[before * row_words..(before + count) * row_words];
        let units = &mut units[before..before + count];
        let (channels, inlet, numbers) = (packed.channels, self.inlet, self.kernel.numbers);
        run(pool, Quantize { x, channels, inlet, numbers, room, rows, units });
    }

    /// Stores a panel's results of a place.
    #[inline]
    fn emit(&self, entry: usize, place: usize, panel: usize, results: &[f32], y: SharedMut<'_, f32>) {
        let packed = self.packed;
        let first = panel * LANES;
        let lanes = LANES.min(packed.outputs.saturating_sub(first));
        let flat = place * packed.outputs + first;
        // Lanes that are kept: those within the entry.
        let from = self.target.skipped.saturating_sub(flat).min(lanes);
        let to = (self.target.len + self.target.skipped).saturating_sub(flat).min(lanes);
        if from >= to {
            return;
        }
        let start = entry * self.target.len + flat + from - self.target.skipped;
        // SAFETY: tasks differ in places, entries or panels.
        let y = unsafe { y.slice(start..start + to - from) };
        let units = &packed.units[first + from..first + to];
        let factor = self.outlet.factor;
        for (y, (v, unit)) in y.iter_mut().zip(results[from..to].iter().zip(units)) {
            *y = v * unit;
        }
        if !self.bias.is_empty() {
            y.iter_mut().zip(&self.bias[first + from..]).for_each(|(y, b)| *y += b);
        }
        if let Some(residual) = self.outlet.residual {
            y.iter_mut().zip(&residual[start..]).for_each(|(y, r)| *y += r);
        }
        if factor != 1.0 {
            y.iter_mut().for_each(|y| *y *= factor);
        }
    }
}
