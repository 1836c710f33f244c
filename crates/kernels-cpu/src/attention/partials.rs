//! Results of chunks, and how they become the result of all.

use std::ops::Range;

use crate::{
    kv_pool::Layout,
    simd::{Simd, math},
};

/// Alignment of everything in scratch memory, in f32; and the most lanes that a vector has.
pub(super) const LINE: usize = 16;

/// What is known of some rows after each of some chunks.
pub(super) struct Partials<'a> {
    /// `[.., rows, value_stride]`, followed by `[.., rows]` twice: see [`Partials::size`].
    memory: &'a mut [f32],
    rows: usize,
    stride: usize,
}

impl<'a> Partials<'a> {
    /// f32 that one chunk of `rows` rows takes.
    pub fn size(rows: usize, layout: &Layout) -> usize {
        rows * layout.value_stride + 2 * rows.next_multiple_of(LINE)
    }

    /// Lays partial results of one or more chunks into `memory`.
    pub fn new(memory: &'a mut [f32], rows: usize, layout: &Layout) -> Self {
        Self { memory, rows, stride: layout.value_stride }
    }

    /// Rows `rows` of chunk `i`.
    #[inline(always)]
    pub fn part(&mut self, i: usize, rows: Range<usize>) -> Part<'_> {
        let padded = self.rows.next_multiple_of(LINE);
        let size = self.rows * self.stride + 2 * padded;
        let (sums, rest) = self.memory[i * size..(i + 1) * size].split_at_mut(self.rows * self.stride);
        let (greatest, weights) = rest.split_at_mut(padded);
        Part {
            sums: &mut sums[rows.start * self.stride..rows.end * self.stride],
            greatest: &mut greatest[rows.clone()],
            weights: &mut weights[rows],
            stride: self.stride,
        }
    }

    /// All rows of chunk `i`.
    #[inline(always)]
    pub fn chunk(&mut self, i: usize) -> Part<'_> {
        self.part(i, 0..self.rows)
    }

    pub fn chunks(&self) -> usize {
        self.memory.len() / (self.rows * self.stride + 2 * self.rows.next_multiple_of(LINE))
    }
}

/// What is known of some rows after some chunks: for each row the sum of values, weighted by `2^(score − greatest)`,
/// the greatest score, and the sum of the weights.
pub(super) struct Part<'a> {
    /// `[rows, stride]`
    pub sums: &'a mut [f32],
    pub greatest: &'a mut [f32],
    pub weights: &'a mut [f32],
    stride: usize,
}

impl Part<'_> {
    /// The result of no chunk at all. (Sums count for nothing where no score is greatest.)
    pub fn clear(&mut self) {
        self.sums.fill(0.0);
        self.greatest.fill(f32::NEG_INFINITY);
        self.weights.fill(0.0);
    }

    /// Adds the same rows of the chunk that comes next.
    ///
    /// Sums so far are rescaled only if a greater score turned up: else the factor is 1, which changes no bit.
    ///
    /// # Safety
    /// The instruction set must be there.
    #[inline(always)]
    pub unsafe fn merge<S: Simd>(&mut self, next: &Part<'_>) {
        let (rows, stride) = (self.greatest.len(), self.stride);
        assert!(next.greatest.len() == rows && next.stride == stride);
        let (mut keep, mut take) = ([0.0f32; LINE], [0.0f32; LINE]);
        for first in (0..rows).step_by(S::LANES) {
            let lanes = S::LANES.min(rows - first);
            // SAFETY: partial loads and stores stay within the rows; `keep` and `take` have as many numbers as the
            // widest vector; sums are `[rows, stride]`, and the stride is a multiple of 16 and so of the lanes.
            unsafe {
                let old = S::load_first(self.greatest.as_ptr().add(first), lanes);
                let new = S::load_first(next.greatest.as_ptr().add(first), lanes);
                let both = S::max(old, new);
                // Where nothing has been seen at all, −∞ − −∞ would be no number.
                let shift = S::max(both, S::splat(f32::MIN));
                let (keeping, taking) = (math::exp2::<S>(S::sub(old, shift)), math::exp2::<S>(S::sub(new, shift)));
                let weights = S::mul(S::load_first(self.weights.as_ptr().add(first), lanes), keeping);
                let added = S::load_first(next.weights.as_ptr().add(first), lanes);
                S::store_first(self.weights.as_mut_ptr().add(first), S::mul_add(added, taking, weights), lanes);
                S::store_first(self.greatest.as_mut_ptr().add(first), both, lanes);
                S::store(keep.as_mut_ptr(), keeping);
                S::store(take.as_mut_ptr(), taking);
                for lane in 0..lanes {
                    let row = first + lane;
                    if next.greatest[row] == f32::NEG_INFINITY {
                        // The row sees nothing of this chunk.
                        continue;
                    }
                    let (to, from) = (self.sums.as_mut_ptr().add(row * stride), next.sums.as_ptr().add(row * stride));
                    let factor = S::splat(take[lane]);
                    if keep[lane] == 1.0 {
                        for i in (0..stride).step_by(S::LANES) {
                            S::store(to.add(i), S::mul_add(S::load(from.add(i)), factor, S::load(to.add(i))));
                        }
                    } else {
                        let keep = S::splat(keep[lane]);
                        for i in (0..stride).step_by(S::LANES) {
                            let kept = S::mul(S::load(to.add(i)), keep);
                            S::store(to.add(i), S::mul_add(S::load(from.add(i)), factor, kept));
                        }
                    }
                }
            }
        }
    }
}
