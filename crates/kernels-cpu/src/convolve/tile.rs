//! The innermost loop: a few rows of activations by one or two panels of weights.

#![expect(clippy::needless_range_loop, reason = "tiles index several arrays of registers by the same numbers")]

use super::{
    kernel::{Reads, Tile},
    packed::LANES,
};
use crate::simd::Simd;

/// Dot products of an instruction set.
///
/// # Safety
/// Every method requires that the processor has it; [`Dots::load`] reads a vector, [`Dots::broadcast`] a word.
pub(super) unsafe trait Dots {
    /// Vectors of f32.
    type S: Simd;
    /// Vectors of as many words.
    type I: Copy;
    /// Whether sums of a segment begin with what stands before its integers, rather than with zeros.
    const HEAD: bool;

    /// Zeros.
    unsafe fn zero() -> Self::I;
    /// The words at `p`.
    unsafe fn load(p: *const u32) -> Self::I;
    /// The word at `p` in all lanes.
    unsafe fn broadcast(p: *const u32) -> Self::I;
    /// `sums + w · x`, where a lane is the dot product of a word's numbers.
    unsafe fn add(sums: Self::I, w: Self::I, x: Self::I) -> Self::I;
    /// To f32, rounded.
    unsafe fn float(sums: Self::I) -> <Self::S as Simd>::V;
}

/// `M` rows by `V` vectors, which are the panels of a tile.
///
/// # Safety
/// As [`Multiply`](super::kernel::Multiply), and `V` vectors are one or two panels.
#[inline(always)]
pub(super) unsafe fn tile<D: Dots, const M: usize, const V: usize>(reads: &Reads, out: &mut Tile) {
    let Reads { panel, panel_words, x, units, row_words, stride, dilation, taps, segments, segment_words } = *reads;
    let per_panel = LANES / D::S::LANES;
    // SAFETY: by the caller's promise: each segment of each tap has its words in each panel, and each row and unit is there.
    unsafe {
        let mut starts = [panel; V];
        for v in 0..V {
            starts[v] = panel.add(v / per_panel * panel_words + v % per_panel * D::S::LANES);
        }
        // In memory: the sums take all registers.
        for row in &mut out.0[..M] {
            for v in 0..V {
                D::S::store(row.as_mut_ptr().add(v * D::S::LANES), D::S::splat(0.0));
            }
        }
        let mut at = 0;
        for tap in 0..taps {
            let first = tap * dilation;
            for segment in 0..segments {
                let mut sums = [[D::zero(); V]; M];
                if D::HEAD {
                    for v in 0..V {
                        let head = D::load(starts[v].add(at));
                        for i in 0..M {
                            sums[i][v] = head;
                        }
                    }
                    at += LANES;
                }
                let mut rows = [x; M];
                for i in 0..M {
                    rows[i] = x.add((first + i * stride) * row_words + segment * segment_words);
                }
                for word in 0..segment_words {
                    let mut w = [D::zero(); V];
                    for v in 0..V {
                        w[v] = D::load(starts[v].add(at));
                    }
                    at += LANES;
                    for i in 0..M {
                        let x = D::broadcast(rows[i].add(word));
                        for v in 0..V {
                            sums[i][v] = D::add(sums[i][v], w[v], x);
                        }
                    }
                }
                for i in 0..M {
                    let unit = D::S::splat(*units.add(first + i * stride));
                    for v in 0..V {
                        let total = out.0[i].as_mut_ptr().add(v * D::S::LANES);
                        D::S::store(total, D::S::fused_mul_add(D::float(sums[i][v]), unit, D::S::load(total)));
                    }
                }
            }
        }
    }
}
