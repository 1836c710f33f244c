//! Weights in the order in which the integer kernels read them.
//!
//! # Layout
//!
//! Rows stand in *panels* of 16, the last one filled up with zeros. A panel is one sequential stream of little-endian u32
//! words; for each group of `group_size` columns it has
//!
//! 1. 16 scales in the checkpoint's format (f16, bf16 or f32), one a row;
//! 2. 16 biases likewise, unless the matrix is symmetric;
//! 3. the codes: word after word, each of all 16 rows side by side.
//!
//! So lane `r` of a vector is row `r`, whatever its width: 16 lanes are a vector of AVX-512, two of AVX2, four of NEON.
//! An 8-bit word has four consecutive columns, a byte each, as in MLX. A 4-bit word has eight: the first four in the low halves
//! of its bytes, the last four in the high halves (MLX has them in order). Either way the bytes under a mask are four
//! consecutive columns, and activations can stay in their order.
//!
//! A matrix is *symmetric* if each bias is `−2^(bits−1) · scale`, as in GGUF's Q4_0 and Q8_0: its biases need no memory.

use std::{ops::Range, sync::Arc};

use half::{bf16, f16};

#[cfg(doc)]
use crate::qmm::packed_matmul;
use crate::{
    FloatKind, Floats, Pool, SharedMut, WeightArena,
    arena::Block,
    qmm::kernel::Kernel,
    quant::{Groups, QuantMatrix},
};

/// Rows of a panel.
pub(crate) const LANES: usize = 16;

/// What the words of a panel mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub bits: u8,
    pub group_size: usize,
    /// Of scales and biases.
    pub kind: FloatKind,
    /// Whether biases follow from the scales, and are not stored.
    pub symmetric: bool,
}

impl Layout {
    /// Words of the 16 scales of a group, and of its biases.
    pub fn number_words(&self) -> usize {
        LANES * self.kind.size() / 4
    }

    /// Words of a group before its codes.
    pub fn head_words(&self) -> usize {
        self.number_words() * if self.symmetric { 1 } else { 2 }
    }

    /// Words of the codes of one row in a group.
    pub fn code_words(&self) -> usize {
        self.group_size * usize::from(self.bits) / 32
    }

    pub fn group_words(&self) -> usize {
        self.head_words() + LANES * self.code_words()
    }
}

/// Affine weights `[rows, cols]` of 4 or 8 bits, packed once for many matmuls. Its memory is a part of a [`WeightArena`]'s.
pub struct PackedMatrix {
    block: Arc<Block>,
    /// The panel of the block that its rows begin with.
    first: usize,
    layout: Layout,
    rows: usize,
    cols: usize,
}

impl PackedMatrix {
    /// Packs `w` on the threads of `pool`, or gives `None` where a matmul with that pool would have no use for it: its
    /// instruction set has no integer kernel, its activations are to stay [f32](crate::Activations::F32), or the codes are neither of 4 nor
    /// of 8 bits, or floats. It is then for [`quantized_matmul`](crate::quantized_matmul).
    ///
    /// Also `None` if the system has no memory left to promise.
    #[must_use]
    pub fn pack(pool: &Pool, arena: &WeightArena, w: &QuantMatrix) -> Option<Self> {
        let Groups::Affine { scales, biases } = w.groups else { return None };
        if Kernel::of(pool.isa(), pool.activations()).is_none()
            || !matches!(w.bits, 4 | 8)
            || scales.kind() != biases.kind()
        {
            return None;
        }
        let layout = Layout {
            bits: w.bits,
            group_size: w.group_size,
            kind: scales.kind(),
            symmetric: is_symmetric(pool, w.bits, scales, biases),
        };
        let panel_words = w.row_groups() * layout.group_words();
        let mut block = arena.take(w.rows.div_ceil(LANES) * panel_words)?;
        if panel_words > 0 {
            pool.run_chunks(block.words_mut(), panel_words, |first, panel| {
                pack_panel(w, [scales, biases], &layout, first / panel_words * LANES, panel);
            });
        }
        Some(Self { block: Arc::new(block), first: 0, layout, rows: w.rows, cols: w.cols })
    }

    /// Some of its rows, over the same memory: an expert's of a stack.
    ///
    /// # Panics
    /// If `rows` does not begin with a panel, that is at a multiple of 16, or ends beyond the matrix.
    #[must_use]
    pub fn row_range(&self, rows: Range<usize>) -> Self {
        assert!(
            rows.start.is_multiple_of(LANES) && rows.start <= rows.end && rows.end <= self.rows,
            "rows {rows:?} of a packed matrix of {}",
            self.rows
        );
        let first = self.first + rows.start / LANES;
        Self { block: Arc::clone(&self.block), first, layout: self.layout, rows: rows.len(), cols: self.cols }
    }

    /// The matmul's output size.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The matmul's input size.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bits of a code.
    pub fn bits(&self) -> u8 {
        self.layout.bits
    }

    /// Columns that share a scale.
    pub fn group_size(&self) -> usize {
        self.layout.group_size
    }

    /// Bytes in memory, padding included.
    pub fn nbytes(&self) -> usize {
        4 * self.panels() * self.panel_words()
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Groups of a row.
    pub(crate) fn groups(&self) -> usize {
        self.cols / self.layout.group_size
    }

    pub(crate) fn panels(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    pub(crate) fn panel_words(&self) -> usize {
        self.groups() * self.layout.group_words()
    }

    /// Panel number `panel`.
    pub(crate) fn panel(&self, panel: usize) -> &[u32] {
        &self.block.words()[(self.first + panel) * self.panel_words()..][..self.panel_words()]
    }

    /// Dequantizes the rows `rows` into `y`, `[rows.len(), cols]`: an embedding look-up. To the same bits as
    /// [`dequantize_rows`](crate::dequantize_rows) of what was packed.
    ///
    /// # Panics
    /// If a row number is not below [`rows`](Self::rows), or `y` does not have `rows.len() · cols` elements.
    pub fn dequantize_rows(&self, pool: &Pool, rows: &[u32], y: &mut [f32]) {
        assert_eq!(y.len(), rows.len() * self.cols, "y of {} rows of {} columns", rows.len(), self.cols);
        if let Some(&row) = rows.iter().find(|&&row| row as usize >= self.rows) {
            panic!("row {row} of a packed matrix of {} rows", self.rows);
        }
        let y = SharedMut::new(y);
        pool.run(rows.len(), |i| {
            // SAFETY: each i is run once, and has its own row of y.
            let out = unsafe { y.slice(i * self.cols..(i + 1) * self.cols) };
            self.dequantize_row(rows[i] as usize, out);
        });
    }

    fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        let layout = &self.layout;
        let (panel, lane) = (self.panel(row / LANES), row % LANES);
        let zero = -f32::from(1u8 << (layout.bits - 1));
        for (out, group) in out.chunks_exact_mut(layout.group_size).zip(panel.chunks_exact(layout.group_words())) {
            let (head, codes) = group.split_at(layout.head_words());
            let scale = number(head, layout.kind, lane);
            let bias = if layout.symmetric { zero * scale } else { number(head, layout.kind, LANES + lane) };
            for (out, words) in out.chunks_exact_mut(32 / usize::from(layout.bits)).zip(codes.chunks_exact(LANES)) {
                let bytes = words[lane].to_le_bytes();
                for (i, out) in out.iter_mut().enumerate() {
                    let byte = bytes[i % 4];
                    let code = if layout.bits == 8 { byte } else { byte >> (4 * (i / 4)) & 15 };
                    *out = scale * f32::from(code) + bias;
                }
            }
        }
    }
}

fn is_symmetric(pool: &Pool, bits: u8, scales: Floats, biases: Floats) -> bool {
    const NUMBERS: usize = 1 << 14;
    let zero = -f32::from(1u8 << (bits - 1));
    let chunks = scales.len().div_ceil(NUMBERS);
    let mut differs = vec![false; chunks];
    pool.run_chunks(&mut differs, 1, |chunk, differs| {
        let mut range = chunk * NUMBERS..scales.len().min((chunk + 1) * NUMBERS);
        differs[0] = range.any(|i| biases.get(i) != zero * scales.get(i));
    });
    !differs.contains(&true)
}

/// The panel of the rows from `first` on, into `panel`, which is zeros.
fn pack_panel(w: &QuantMatrix, numbers: [Floats; 2], layout: &Layout, first: usize, panel: &mut [u32]) {
    let (code_words, heads) = (layout.code_words(), if layout.symmetric { 1 } else { 2 });
    for row in first..w.rows.min(first + LANES) {
        let lane = row - first;
        let words = &w.packed[row * w.row_words()..][..w.row_words()];
        let groups = words.chunks_exact(code_words).zip(panel.chunks_exact_mut(layout.group_words()));
        for (group, (words, out)) in groups.enumerate() {
            let (head, codes) = out.split_at_mut(layout.head_words());
            for (i, numbers) in numbers[..heads].iter().enumerate() {
                put_number(head, numbers, row * w.row_groups() + group, i * LANES + lane);
            }
            for (word, out) in words.iter().zip(codes.chunks_exact_mut(LANES)) {
                out[lane] = if layout.bits == 4 { halves(*word) } else { *word };
            }
        }
    }
}

/// Eight 4-bit codes in order → the first four in the low halves of the bytes, the last four in the high halves.
fn halves(word: u32) -> u32 {
    // Each of four codes into a byte of its own.
    let spread = |codes: u32| {
        let pairs = (codes | codes << 8) & 0x00ff_00ff;
        (pairs | pairs << 4) & 0x0f0f_0f0f
    };
    spread(word & 0xffff) | spread(word >> 16) << 4
}

/// Puts number `index` of `from` into place `place` of a head, which holds zeros there.
fn put_number(head: &mut [u32], from: &Floats, index: usize, place: usize) {
    let in_pair = |bits: u16| u32::from(bits) << (16 * (place % 2));
    match from {
        Floats::F32(v) => head[place] = v[index].to_bits(),
        Floats::F16(v) => head[place / 2] |= in_pair(v[index].to_bits()),
        Floats::Bf16(v) => head[place / 2] |= in_pair(v[index].to_bits()),
    }
}

/// The number at place `place` of a head.
fn number(head: &[u32], kind: FloatKind, place: usize) -> f32 {
    let of_pair = || (head[place / 2] >> (16 * (place % 2))) as u16;
    match kind {
        FloatKind::F32 => f32::from_bits(head[place]),
        FloatKind::F16 => f16::from_bits(of_pair()).to_f32(),
        FloatKind::Bf16 => bf16::from_bits(of_pair()).to_f32(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_keep_the_order_of_columns() {
        assert_eq!(halves(0x7654_3210), 0x7362_5140);
    }
}
