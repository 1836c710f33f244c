//! Activations as integers, for the byte dot products of AVX-512 VNNI.
//!
//! Each 32 columns of a row of `x` share a power of two `2ᵉ`, the largest for which `X = round(x · 2ᵉ)` fits three signed
//! bytes: `X = 65536 · d₂ + 256 · d₁ + d₀`, every digit in −128..=127. The rounding is at most `2⁻²³` of the largest of
//! the 32, about what f32 itself rounds when it adds products of that size. From there on the sums of a group are
//! exact integers: `Σ code · X` needs no rounding at all until it is scaled.
//!
//! Groups in which nothing is above `2⁻¹²⁶` become zeros; a NaN or an infinity makes its group's power NaN.

use std::arch::x86_64::*;

/// Columns that share a power of two.
const SPAN: usize = 32;

/// How a row of `x` is laid out for codes of `BITS` bits: for each block of columns, as many as 16 words hold codes,
/// vectors of 64 bytes: the digits, highest first, then the powers `2⁻ᵉ`, one for each lane of four bytes. For
/// 4-bit codes each digit has two vectors, of the even and of the odd columns, as the low and high nibbles of the words have
/// them. After the blocks come the sums of `x` over each group of the weights, padded with zeros to whole vectors.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) cols: usize,
    pub(super) group_size: usize,
    /// Columns of a block.
    pub(super) block: usize,
    /// f32 (of 4 bytes) that a block's vectors take.
    pub(super) block_len: usize,
}

impl Layout {
    pub(super) fn new(bits: usize, cols: usize, group_size: usize) -> Self {
        let block_len = if bits == 4 { 7 * 16 } else { 4 * 16 };
        Self { cols, group_size, block: 512 / bits, block_len }
    }

    pub(super) fn blocks(&self) -> usize {
        self.cols.div_ceil(self.block)
    }

    /// Where a row's sums begin, in f32.
    pub(super) fn sums(&self) -> usize {
        self.blocks() * self.block_len
    }

    /// f32 that a row takes.
    pub(super) fn row_len(&self) -> usize {
        self.sums() + (self.cols / self.group_size).next_multiple_of(16)
    }
}

/// Splits the row `x` into `out` (of [`Layout::row_len`]), for codes of `BITS` (4 or 8) bits.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn split<const BITS: usize>(x: &[f32], layout: &Layout, out: &mut [f32]) {
    assert!(x.len() == layout.cols && out.len() == layout.row_len() && x.len().is_multiple_of(SPAN));
    let (blocks, sums) = out.split_at_mut(layout.sums());
    sums.fill(0.0);
    if !x.len().is_multiple_of(layout.block) {
        blocks[layout.sums() - layout.block_len..].fill(0.0);
    }
    let spans_per_group = layout.group_size / SPAN;
    for (i, span) in x.chunks_exact(SPAN).enumerate() {
        let column = i * SPAN;
        let block = &mut blocks[column / layout.block * layout.block_len..][..layout.block_len];
        // SAFETY: a span is 32 f32.
        let (a, b) = unsafe { (_mm512_loadu_ps(span.as_ptr()), _mm512_loadu_ps(span.as_ptr().add(16))) };
        sums[i / spans_per_group] += _mm512_reduce_add_ps(_mm512_add_ps(a, b));
        let magnitude = _mm512_set1_epi32(0x7fff_ffff);
        let (size_a, size_b) = (_mm512_castps_si512(a), _mm512_castps_si512(b));
        // As integers, so that NaN and infinity, the largest patterns of all, win.
        let size = _mm512_max_epi32(_mm512_and_si512(size_a, magnitude), _mm512_and_si512(size_b, magnitude));
        let (power, inverse) = powers(_mm512_reduce_max_epi32(size) as u32);
        let power = _mm512_set1_ps(power);
        let column = column % layout.block;
        let lanes = SPAN * BITS / 32;
        block[layout.block_len - 16 + column * BITS / 32..][..lanes].fill(inverse);
        // SAFETY: `block` has the vectors of `layout`, and columns column .. column + 32 lie in it.
        unsafe {
            let bytes = block.as_mut_ptr().cast::<u8>();
            store_digits::<BITS>(_mm512_mul_ps(a, power), bytes, column);
            store_digits::<BITS>(_mm512_mul_ps(b, power), bytes, column + 16);
        }
    }
}

/// The power of two that takes numbers up to `|size|` (as its bits) to three signed bytes, and its inverse.
#[inline]
fn powers(size: u32) -> (f32, f32) {
    if size >= 0x7f80_0000 {
        return (0.0, f32::NAN);
    }
    // The size's exponent, rounded up from mantissas of 1.99 on: below that, size · 2ᵉ is less than
    // 1.99 · 2²² = 8,346,664, and three digits reach to 127 · (65536 + 256 + 1) = 8,355,711.
    let exponent = ((size + 83_886) >> 23).max(23);
    (f32::from_bits((276 - exponent) << 23), f32::from_bits((exponent - 22) << 23))
}

/// Stores the digits of sixteen scaled columns, the first of which is `column` of the block.
///
/// # Safety
/// `block` is a block of the layout for `BITS`, and has these columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn store_digits<const BITS: usize>(scaled: __m512, block: *mut u8, column: usize) {
    // Adding 128 to each digit makes all of them non-negative; flipping each top bit takes it off again, each in its byte.
    let halves = _mm512_set1_epi32(0x0080_8080);
    let digits = _mm512_xor_si512(_mm512_add_epi32(_mm512_cvtps_epi32(scaled), halves), halves);
    // SAFETY: by the caller's promise.
    unsafe {
        if BITS == 4 {
            let at = block.add(column / 2).cast::<__m128i>();
            let byte = |n: usize| at.byte_add(64 * n);
            _mm_storel_epi64(byte(0), _mm512_cvtepi64_epi8(_mm512_srli_epi64::<16>(digits)));
            _mm_storel_epi64(byte(1), _mm512_cvtepi64_epi8(_mm512_srli_epi64::<48>(digits)));
            _mm_storel_epi64(byte(2), _mm512_cvtepi64_epi8(_mm512_srli_epi64::<8>(digits)));
            _mm_storel_epi64(byte(3), _mm512_cvtepi64_epi8(_mm512_srli_epi64::<40>(digits)));
            _mm_storel_epi64(byte(4), _mm512_cvtepi64_epi8(digits));
            _mm_storel_epi64(byte(5), _mm512_cvtepi64_epi8(_mm512_srli_epi64::<32>(digits)));
        } else {
            let at = block.add(column).cast::<__m128i>();
            _mm_storeu_si128(at, _mm512_cvtepi32_epi8(_mm512_srli_epi32::<16>(digits)));
            _mm_storeu_si128(at.byte_add(64), _mm512_cvtepi32_epi8(_mm512_srli_epi32::<8>(digits)));
            _mm_storeu_si128(at.byte_add(128), _mm512_cvtepi32_epi8(digits));
        }
    }
}
