//! Quantized weights in MLX's layouts, and their plain dequantization.

use std::ops::Range;

use crate::{Pool, floats::Floats, pool::SharedMut};

/// How codes become numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuantMode {
    /// `scale · code + bias`, an unsigned code of 2, 3, 4, 5, 6 or 8 bits; groups of 32, 64 or 128.
    Affine,
    /// 4-bit floats (E2M1) times a power of two (E8M0) for each 32; OCP Microscaling Formats v1.0.
    Mxfp4,
    /// 8-bit floats (E4M3) times a power of two (E8M0) for each 32; OCP Microscaling Formats v1.0.
    Mxfp8,
    /// 4-bit floats (E2M1) times an 8-bit float (E4M3) for each 16.
    Nvfp4,
}

/// The numbers that a group of codes shares.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Groups<'a> {
    Affine { scales: Floats<'a>, biases: Floats<'a> },
    Float { mode: QuantMode, scales: &'a [u8] },
}

/// What is wrong with the parts of a quantized matrix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantError {
    /// No kernel for this width of code.
    #[error("affine codes of {0} bits: they must have 2, 3, 4, 5, 6 or 8")]
    Bits(u8),
    /// No kernel for this group.
    #[error("groups of {0}: they must be of 32, 64 or 128")]
    GroupSize(usize),
    /// Groups must not cross rows.
    #[error("rows of {cols} columns in groups of {group_size}: the columns must be a multiple of the group")]
    Ragged {
        /// Columns (the matmul's input size).
        cols: usize,
        /// Columns of a group.
        group_size: usize,
    },
    /// A part has another length than the shape wants.
    #[error("{part} of a [{rows}, {cols}] quantized matrix: {found} elements found, {wanted} wanted")]
    Length {
        /// `packed`, `scales` or `biases`.
        part: &'static str,
        /// Rows (the matmul's output size).
        rows: usize,
        /// Columns (the matmul's input size).
        cols: usize,
        /// Elements in the slice.
        found: usize,
        /// Elements that the shape, bits and group size ask for.
        wanted: usize,
    },
}

/// A quantized weight matrix `[rows, cols]`, borrowed, in the layout in which MLX stores it.
///
/// `rows` is the matmul's output size and `cols` its input size. Each row is a little-endian stream of codes, code
/// `i` at bit `i · bits`, in u32 words; `cols · bits / 32` words a row. A group of `group_size` consecutive columns
/// shares a scale (and, when affine, a bias); `cols / group_size` of them a row.
#[derive(Clone, Copy, Debug)]
pub struct QuantMatrix<'a> {
    pub(crate) packed: &'a [u32],
    pub(crate) groups: Groups<'a>,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) bits: u8,
    pub(crate) group_size: usize,
}

impl<'a> QuantMatrix<'a> {
    /// An affine matrix: `w = scale · code + bias`.
    ///
    /// # Errors
    /// If `bits` or `group_size` is none that MLX has, `cols` is no multiple of `group_size`, or a part does not have
    /// the length that the shape asks for.
    pub fn affine(
        packed: &'a [u32],
        scales: Floats<'a>,
        biases: Floats<'a>,
        [rows, cols]: [usize; 2],
        bits: u8,
        group_size: usize,
    ) -> Result<Self, QuantError> {
        if !matches!(bits, 2 | 3 | 4 | 5 | 6 | 8) {
            return Err(QuantError::Bits(bits));
        }
        if !matches!(group_size, 32 | 64 | 128) {
            return Err(QuantError::GroupSize(group_size));
        }
        let matrix = Self { packed, groups: Groups::Affine { scales, biases }, rows, cols, bits, group_size };
        matrix.check([("scales", scales.len()), ("biases", biases.len())])
    }

    /// A matrix of 4- or 8-bit floats with 8-bit scales, as they are stored; `mode` fixes bits and group size.
    ///
    /// # Errors
    /// If `cols` is no multiple of the mode's group, or a part does not have the length that the shape asks for.
    ///
    /// # Panics
    /// If `mode` is [`QuantMode::Affine`].
    pub fn float(
        mode: QuantMode,
        packed: &'a [u32],
        scales: &'a [u8],
        [rows, cols]: [usize; 2],
    ) -> Result<Self, QuantError> {
        let (bits, group_size) = match mode {
            QuantMode::Affine => panic!("an affine matrix has scales and biases: use QuantMatrix::affine"),
            QuantMode::Mxfp4 => (4, 32),
            QuantMode::Mxfp8 => (8, 32),
            QuantMode::Nvfp4 => (4, 16),
        };
        let matrix = Self { packed, groups: Groups::Float { mode, scales }, rows, cols, bits, group_size };
        matrix.check([("scales", scales.len()), ("scales", scales.len())])
    }

    fn check(self, groups: [(&'static str, usize); 2]) -> Result<Self, QuantError> {
        let Self { rows, cols, group_size, .. } = self;
        if !cols.is_multiple_of(group_size) || !(cols * usize::from(self.bits)).is_multiple_of(32) {
            return Err(QuantError::Ragged { cols, group_size });
        }
        let parts = [("packed", self.packed.len(), rows * self.row_words())];
        let groups = groups.map(|(part, found)| (part, found, rows * self.row_groups()));
        for (part, found, wanted) in parts.into_iter().chain(groups) {
            if found != wanted {
                return Err(QuantError::Length { part, rows, cols, found, wanted });
            }
        }
        Ok(self)
    }

    /// The rows `range` as a matrix of their own.
    ///
    /// # Panics
    /// If they are not all there.
    #[must_use]
    pub fn row_range(&self, range: Range<usize>) -> Self {
        let (words, groups) = (self.row_words(), self.row_groups());
        let numbers = range.start * groups..range.end * groups;
        let groups = match self.groups {
            Groups::Affine { scales, biases } => {
                Groups::Affine { scales: scales.range(numbers.clone()), biases: biases.range(numbers) }
            }
            Groups::Float { mode, scales } => Groups::Float { mode, scales: &scales[numbers] },
        };
        Self { packed: &self.packed[range.start * words..range.end * words], groups, rows: range.len(), ..*self }
    }

    /// The matmul's output size.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The matmul's input size.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// How codes become numbers.
    pub fn mode(&self) -> QuantMode {
        match self.groups {
            Groups::Affine { .. } => QuantMode::Affine,
            Groups::Float { mode, .. } => mode,
        }
    }

    /// Bits of a code.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Columns that share a scale.
    pub fn group_size(&self) -> usize {
        self.group_size
    }

    pub(crate) fn row_words(&self) -> usize {
        self.cols * usize::from(self.bits) / 32
    }

    pub(crate) fn row_groups(&self) -> usize {
        self.cols / self.group_size
    }

    /// Dequantizes row `row` into `out` (`cols` long).
    pub(crate) fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        match self.bits {
            2 => self.dequantize_codes::<2>(row, out),
            3 => self.dequantize_codes::<3>(row, out),
            4 => self.dequantize_codes::<4>(row, out),
            5 => self.dequantize_codes::<5>(row, out),
            6 => self.dequantize_codes::<6>(row, out),
            _ => self.dequantize_codes::<8>(row, out),
        }
    }

    /// [`QuantMatrix::dequantize_row`], 32 codes at a time: they fill `BITS` words exactly.
    fn dequantize_codes<const BITS: usize>(&self, row: usize, out: &mut [f32]) {
        let words = &self.packed[row * self.row_words()..][..self.row_words()];
        let (words, _) = words.as_chunks::<BITS>();
        let (out, _) = out.as_chunks_mut::<32>();
        let groups = row * self.row_groups()..(row + 1) * self.row_groups();
        for (i, (words, out)) in words.iter().zip(out).enumerate() {
            let codes = unpack(words);
            match self.groups {
                Groups::Affine { scales, biases } => {
                    let group = groups.start + i * 32 / self.group_size;
                    let (scale, bias) = (scales.get(group), biases.get(group));
                    out.iter_mut().zip(codes).for_each(|(o, code)| *o = scale * f32::from(code) + bias);
                }
                Groups::Float { mode, scales } => {
                    let (elements, scale): (&[f32], fn(u8) -> f32) = match mode {
                        QuantMode::Mxfp8 => (&E4M3, e8m0),
                        QuantMode::Nvfp4 => (&E2M1, |scale| E4M3[usize::from(scale)]),
                        _ => (&E2M1, e8m0),
                    };
                    let scales = &scales[groups.clone()];
                    for (j, out) in out.chunks_exact_mut(16).enumerate() {
                        let scale = scale(scales[(i * 32 + j * 16) / self.group_size]);
                        let codes = &codes[j * 16..];
                        out.iter_mut().zip(codes).for_each(|(o, &code)| *o = scale * elements[usize::from(code)]);
                    }
                }
            }
        }
    }
}

/// The 32 codes of `BITS` bits in as many words.
#[inline(always)]
fn unpack<const BITS: usize>(words: &[u32; BITS]) -> [u8; 32] {
    let mut codes = [0; 32];
    for (i, code) in codes.iter_mut().enumerate() {
        let (word, shift) = (i * BITS / 32, i * BITS % 32);
        let mut bits = words[word] >> shift;
        if shift + BITS > 32 {
            bits |= words[word + 1] << (32 - shift);
        }
        *code = (bits & ((1 << BITS) - 1)) as u8;
    }
    codes
}

/// 4-bit floats: sign, two exponent bits (bias 1), one mantissa bit.
const E2M1: [f32; 16] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// 8-bit floats: sign, four exponent bits (bias 7), three mantissa bits; no infinities, all ones is NaN.
static E4M3: [f32; 256] = {
    let mut values = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        let (exponent, mantissa) = (code >> 3 & 15, (code & 7) as f32);
        let magnitude = if exponent == 15 && code & 7 == 7 {
            f32::NAN
        } else if exponent == 0 {
            mantissa / 512.0
        } else {
            // (8 + mantissa) · 2^(exponent − 10), the power made of its bits.
            (8.0 + mantissa) * f32::from_bits(((exponent + 117) as u32) << 23)
        };
        values[code] = if code & 0x80 == 0 { magnitude } else { -magnitude };
        code += 1;
    }
    values
};

/// An 8-bit power of two (bias 127); all ones is NaN.
fn e8m0(code: u8) -> f32 {
    match code {
        0 => f32::from_bits(1 << 22), // 2⁻¹²⁷, subnormal in f32
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(code) << 23),
    }
}

/// Dequantizes the rows `rows` of `w` into `y`, `[rows.len(), cols]`: an embedding look-up.
///
/// # Panics
/// If a row number is not below `w.rows()`, or `y` does not have `rows.len() · w.cols()` elements.
pub fn dequantize_rows(pool: &Pool, w: &QuantMatrix, rows: &[u32], y: &mut [f32]) {
    assert_eq!(y.len(), rows.len() * w.cols, "y of {} rows of {} columns", rows.len(), w.cols);
    if let Some(&row) = rows.iter().find(|&&row| row as usize >= w.rows) {
        panic!("row {row} of a quantized matrix of {} rows", w.rows);
    }
    let y = SharedMut::new(y);
    pool.run(rows.len(), |i| {
        // SAFETY: each i is run once, and has its own row of y.
        let out = unsafe { y.slice(i * w.cols..(i + 1) * w.cols) };
        w.dequantize_row(rows[i] as usize, out);
    });
}
