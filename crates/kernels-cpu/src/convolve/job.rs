//! A convolution in integers: cut into tasks, each of which makes integers of the frames that it sees.

mod blocks;
mod emit;

use super::{
    Inlet, Outlet,
    kernel::{Kernel, ROWS},
    packed::Packed,
    toom::{POINTS, TOGETHER},
};
use crate::{Conv1d, Pool, SharedMut};

/// Bytes of integers that a task has at once: they and some weights are to stay in a core's L2.
const BLOCK_BYTES: usize = 192 << 10;
/// Rows of results below which a block would see much more than it gives.
const LEAST_ROWS: usize = 4 * ROWS;

/// Weights, in one of the forms that jobs take.
pub(super) enum Integers {
    /// A product for each tap.
    Plain(Packed),
    /// For each of [`super::toom`]'s points, with a third of the taps.
    Points(Box<[Packed; POINTS]>),
}

impl Integers {
    /// All parts, which are alike but for their numbers.
    pub fn parts(&self) -> &[Packed] {
        match self {
            Self::Plain(packed) => std::slice::from_ref(packed),
            Self::Points(points) => &points[..],
        }
    }
}

/// Where results go: output `o` of place `t` to number `t · outputs + o − skipped` of a batch entry's `len`, if there is such a number.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub skipped: usize,
    pub len: usize,
}

/// A convolution over a batch.
pub(super) struct Job<'a> {
    pub kernel: &'static Kernel,
    pub weights: &'a Integers,
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
    pub fn run(&self, pool: &Pool, y: &mut [f32]) {
        let packed = &self.weights.parts()[0];
        let batch = self.x.len() / (self.length * packed.channels);
        let columns = packed.panels / self.kernel.panels;
        let rows = match self.weights {
            Integers::Plain(_) => self.places,
            Integers::Points(_) => self.places.div_ceil(TOGETHER * self.conv.dilation) * self.conv.dilation,
        };
        // As many tasks as even out busy cores, of blocks that are not too short, or else of parts of the weights.
        let wanted = (pool.threads() * 4).div_ceil(batch);
        let by_bytes = BLOCK_BYTES / (4 * packed.row_words() * self.conv.stride * self.weights.parts().len());
        let by_threads = rows.div_ceil(wanted).max(LEAST_ROWS);
        let (most, _) = self.kernel.tiles[0];
        // Whole tiles, and of groups whole cycles of the dilation.
        let unit = match self.weights {
            Integers::Plain(_) => most,
            Integers::Points(_) => (1..=most).map(|n| n * self.conv.dilation).find(|n| n % most == 0).unwrap_or(most),
        };
        let block = by_bytes.min(by_threads).max(1).next_multiple_of(unit);
        let blocks = rows.div_ceil(block);
        let parts = if pool.threads() == 1 { 1 } else { (pool.threads() * 2).div_ceil(batch * blocks).min(columns) };
        let y = SharedMut::new(y);
        pool.run(batch * blocks * parts, |task| {
            let (entry, part) = (task / parts / blocks, task % parts);
            let first = task / parts % blocks * block;
            let rows = first..rows.min(first + block);
            let columns = part * columns / parts..(part + 1) * columns / parts;
            match self.weights {
                Integers::Plain(packed) => self.plain(pool, packed, entry, rows, columns, y),
                Integers::Points(points) => self.points(pool, points, entry, rows, columns, y),
            }
        });
    }
}
