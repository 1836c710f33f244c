//! Activations as integers of two signed bytes, for the byte dot products of AVX-512 VNNI.
//!
//! Each 32 columns (a *span*) of a row of `x` share a power of two `2ᵉ`, the largest for which `X = round(x · 2ᵉ)` fits
//! `X = 256 · d₁ + d₀` with both digits in −128..=127. The largest number of a span becomes an `X` of 16,302 (`1.99 · 2¹³`) to
//! 32,604 (`1.99 · 2¹⁴`), so that rounding moves no number of it by more than 3.1·10⁻⁵ (½ in 16,302) of the largest. All
//! else in a span is exact: `Σ code · X` and `Σ X` are integers that need no rounding until they are scaled.
//!
//! `2ᵉ` ends at `2¹²⁶`: where nothing above `2⁻¹¹²` stands in a span, what is below `2⁻¹²⁷` becomes zero. A NaN or an infinity
//! makes the power of its span NaN.

use std::arch::x86_64::*;

/// Columns that share a power of two.
pub(super) const SPAN: usize = 32;
/// Columns of a block: those that a vector of 4-bit codes covers.
pub(super) const BLOCK: usize = 4 * SPAN;
/// A block of a row in f32 (of 4 bytes): six vectors, each of 16 of them.
///
/// Two are the upper digits, two the lower ones, four bytes for each word of codes in the order of those codes: for 4 bits
/// of the even columns (the low nibbles) and of the odd ones, for 8 bits of the first and of the last 64 columns.
/// Then come [the powers](POWERS) and [the sums](SUMS), four equal numbers for each span.
pub(super) const BLOCK_LEN: usize = 6 * 16;
/// Where a block's lower digits begin.
pub(super) const LOWER: usize = 2 * 16;
/// Where a block's powers `2⁻ᵉ` begin.
pub(super) const POWERS: usize = 4 * 16;
/// Where a block's sums `2⁻ᵉ · Σ X` begin.
pub(super) const SUMS: usize = 5 * 16;

/// f32 that a row of `cols` columns takes.
pub(super) fn row_len(cols: usize) -> usize {
    cols.div_ceil(BLOCK) * BLOCK_LEN
}

/// Splits the row `x` into `out` (of [`row_len`]), for codes of `BITS` (4 or 8) bits. Columns up to a whole block are zeros.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn split<const BITS: usize>(x: &[f32], out: &mut [f32]) {
    assert!(out.len() == row_len(x.len()) && x.len().is_multiple_of(SPAN));
    for (x, block) in x.chunks(BLOCK).zip(out.chunks_exact_mut(BLOCK_LEN)) {
        let mut halves = [[_mm512_setzero_ps(); 2]; 4];
        for (span, x) in halves.iter_mut().zip(x.chunks_exact(SPAN)) {
            // SAFETY: a span is 32 f32.
            *span = unsafe { [_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16))] };
        }
        // SAFETY: a block has six vectors.
        unsafe { split_block::<BITS>(halves, block.as_mut_ptr()) }
    }
}

/// # Safety
/// `block` is writable for [`BLOCK_LEN`] f32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn split_block<const BITS: usize>(x: [[__m512; 2]; 4], block: *mut f32) {
    let magnitude = _mm512_set1_epi32(0x7fff_ffff);
    // As integers, so that NaN and infinity, the largest patterns of all, win.
    let sizes = x.map(|[a, b]| {
        let (a, b) = (_mm512_castps_si512(a), _mm512_castps_si512(b));
        _mm512_max_epi32(_mm512_and_si512(a, magnitude), _mm512_and_si512(b, magnitude))
    });
    let (powers, inverses) = powers(reduce(sizes, |a, b| _mm512_max_epi32(a, b)));
    let mut pairs = [_mm512_setzero_si512(); 4];
    for (span, [a, b]) in x.into_iter().enumerate() {
        let power = _mm512_permutexvar_ps(_mm512_set1_epi32(4 * span as i32), powers);
        let integers = |x: __m512| _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(x, power)));
        let x = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(integers(a)), integers(b));
        pairs[span] = _mm512_madd_epi16(x, _mm512_set1_epi16(1));
        // Adding 128 to the lower digit makes it non-negative; flipping its top bit takes them off again, in its byte alone.
        let half = _mm512_set1_epi16(0x80);
        let digits = _mm512_xor_si512(_mm512_add_epi16(x, half), half);
        // SAFETY: a span has a quarter of each pair of digits' vectors.
        unsafe {
            if BITS == 4 {
                // A lane of four bytes has the two digits of an even column and those of an odd one.
                let at = block.add(4 * span).cast::<__m128i>();
                _mm_storeu_si128(at, _mm512_cvtepi32_epi8(_mm512_srli_epi32::<8>(digits)));
                _mm_storeu_si128(at.add(4), _mm512_cvtepi32_epi8(_mm512_srli_epi32::<24>(digits)));
                _mm_storeu_si128(at.add(8), _mm512_cvtepi32_epi8(digits));
                _mm_storeu_si128(at.add(12), _mm512_cvtepi32_epi8(_mm512_srli_epi32::<16>(digits)));
            } else {
                let at = block.add(8 * span).cast::<__m256i>();
                _mm256_storeu_si256(at, _mm512_cvtepi16_epi8(_mm512_srli_epi16::<8>(digits)));
                _mm256_storeu_si256(at.add(4), _mm512_cvtepi16_epi8(digits));
            }
        }
    }
    // At most 32 · 32,639 < 2²⁴: exact.
    let sums = _mm512_cvtepi32_ps(reduce(pairs, |a, b| _mm512_add_epi32(a, b)));
    // SAFETY: by the caller's promise.
    unsafe {
        _mm512_storeu_ps(block.add(POWERS), inverses);
        _mm512_storeu_ps(block.add(SUMS), _mm512_mul_ps(sums, inverses));
    }
}

/// The 16 lanes of each of four vectors reduced to one; the result of vector `i` in lanes `4 i .. 4 i + 4`.
#[inline]
#[target_feature(enable = "avx512f")]
fn reduce(v: [__m512i; 4], with: impl Fn(__m512i, __m512i) -> __m512i) -> __m512i {
    let quarters = |a, b| {
        let low = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b);
        with(low, _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b))
    };
    // Quarter i has what is left of vector i.
    let v = quarters(quarters(v[0], v[1]), quarters(v[2], v[3]));
    let v = with(v, _mm512_shuffle_epi32::<0b01_00_11_10>(v));
    with(v, _mm512_shuffle_epi32::<0b10_11_00_01>(v))
}

/// The powers of two that take numbers up to `sizes` (as their bits) to two signed bytes, and their inverses.
#[inline]
#[target_feature(enable = "avx512f")]
fn powers(sizes: __m512i) -> (__m512, __m512) {
    // A size's exponent, rounded up from mantissas of 1.99 on: below that, size · 2ᵉ is less than 1.99 · 2¹⁴ = 32,605, and
    // two digits reach to 127 · 257 = 32,639. At least 15, so that the inverse is a normal number.
    let exponents = _mm512_srli_epi32::<23>(_mm512_add_epi32(sizes, _mm512_set1_epi32(83_886)));
    let exponents = _mm512_max_epi32(exponents, _mm512_set1_epi32(15));
    let finite = _mm512_cmplt_epi32_mask(sizes, _mm512_set1_epi32(0x7f80_0000));
    let powers = _mm512_slli_epi32::<23>(_mm512_sub_epi32(_mm512_set1_epi32(268), exponents));
    let inverses = _mm512_slli_epi32::<23>(_mm512_sub_epi32(exponents, _mm512_set1_epi32(14)));
    (
        _mm512_castsi512_ps(_mm512_maskz_mov_epi32(finite, powers)),
        _mm512_mask_mov_ps(_mm512_set1_ps(f32::NAN), finite, _mm512_castsi512_ps(inverses)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    /// The numbers that the digits of a block for `BITS` bits stand for.
    fn numbers<const BITS: usize>(block: &[f32]) -> Vec<f64> {
        let byte = |at: usize| f64::from(block[at / 4].to_bits().to_le_bytes()[at % 4] as i8);
        let number = |column: usize| {
            let place = if BITS == 4 { column % 2 * 64 + column / 2 } else { column };
            let x = 256.0 * byte(place) + byte(4 * LOWER + place);
            x * f64::from(block[POWERS + column / SPAN * 4])
        };
        (0..BLOCK).map(number).collect()
    }

    fn assert_split<const BITS: usize>(x: &[f32]) {
        let mut out = vec![f32::NAN; row_len(x.len())];
        // SAFETY: the caller has seen that the processor has it.
        unsafe { split::<BITS>(x, &mut out) }
        let found: Vec<f64> = out.chunks_exact(BLOCK_LEN).flat_map(numbers::<BITS>).collect();
        for (i, span) in x.chunks_exact(SPAN).enumerate() {
            let found = &found[i * SPAN..][..SPAN];
            let largest = span.iter().fold(0.0, |m: f64, x| m.max(f64::from(x.abs())));
            let allowed = (largest * 0.5 / (1.99 * 8192.0)).max(2f64.powi(-127));
            for (x, found) in span.iter().zip(found) {
                assert!((f64::from(*x) - found).abs() <= allowed, "{BITS} bits: {found} for {x} beside {largest}");
            }
            let sums = &out[i / 4 * BLOCK_LEN + SUMS + i % 4 * 4..][..4];
            assert!(sums.iter().all(|&sum| f64::from(sum) == found.iter().sum::<f64>()), "{BITS} bits: {sums:?}");
        }
        assert!(found[x.len()..].iter().all(|&v| v == 0.0), "columns beyond the last are zeros");
    }

    #[test]
    fn digits_are_the_numbers_within_the_rounding() {
        if !Isa::available().contains(&Isa::Avx512Vnni) {
            return;
        }
        // The largest of each span runs through all mantissas and, by its sign, both ends of the digits.
        let spans = (0..200).map(|i| {
            let largest = (1.0 + i as f32 / 200.0) * [1.0, -1e-3, 3e36, -1e-36, 1e-42][i % 5];
            (0..SPAN).map(move |c| if c == i % SPAN { largest } else { largest * ((c * c + i) as f32).sin() })
        });
        let mut x: Vec<f32> = spans.flatten().collect();
        x.extend([0.0; SPAN]);
        assert_split::<4>(&x);
        assert_split::<8>(&x);
    }
}
