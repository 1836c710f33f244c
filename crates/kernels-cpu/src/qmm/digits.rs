//! Activations as integers of one or two signed bytes, for integer dot products.
//!
//! Each 32 columns (a *span*) of a row of `x` share a unit `u`, with `x ≈ u · X`.
//!
//! * Two digits: `X = 256 · d₁ + d₀` with both in −128..=127, and `u` the smallest power of two for which that holds. The largest
//!   number of a span becomes an `X` of 16,302 (`1.99 · 2¹³`) to 32,604 (`1.99 · 2¹⁴`), so that rounding moves no number of it
//!   by more than 3.1·10⁻⁵ (½ in 16,302) of the largest. `u` is at least `2⁻¹²⁶`: where nothing above `2⁻¹¹²` stands in a
//!   span, what is below `2⁻¹²⁷` becomes zero.
//! * One digit: `u` is the largest magnitude in 127; rounding moves no number by more than 1/254 of the largest. Spans of nothing
//!   above `2⁻¹¹⁹` become zeros.
//!
//! The same on every instruction set. All else in a span is exact: `Σ code · X` and `Σ X` are integers. A NaN or an infinity makes the unit of its span NaN.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Columns that share a unit.
pub(super) const SPAN: usize = 32;
/// Words of the digits in one place of a span.
pub(super) const WORDS: usize = SPAN / 4;

/// Where things lie in the record of a span with `DIGITS` digits, in words. It begins with the integers, either
///
/// * in digits, four columns a word, in order, the upper digits before the lower ones; or
/// * whole, as i16: for each four columns a word of the first and the third, and one of the second and the fourth.
///
/// Three numbers follow.
pub(super) struct Record<const DIGITS: usize>;

impl<const DIGITS: usize> Record<DIGITS> {
    /// `u`, f32.
    pub const UNIT: usize = DIGITS * WORDS;
    /// `u · Σ X`, f32.
    pub const SUM: usize = Self::UNIT + 1;
    /// `Σ X`, i32.
    pub const INTEGER_SUM: usize = Self::UNIT + 2;
    /// Words of a record.
    pub const LEN: usize = Self::UNIT + 3;
}

/// Splits a row into digits: the record of each span of `x` into `out`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn split<const DIGITS: usize>(x: &[f32], out: &mut [u32]) {
    assert!(x.len().is_multiple_of(SPAN) && out.len() == x.len() / SPAN * Record::<DIGITS>::LEN);
    let magnitude = _mm512_set1_epi32(0x7fff_ffff);
    for (x, record) in x.chunks_exact(SPAN).zip(out.chunks_exact_mut(Record::<DIGITS>::LEN)) {
        // SAFETY: a span is 32 f32.
        let (a, b) = unsafe { (_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16))) };
        // As integers, so that NaN and infinity, the largest patterns of all, win.
        let size = |v| _mm512_and_si512(_mm512_castps_si512(v), magnitude);
        let largest = _mm512_reduce_max_epi32(_mm512_max_epi32(size(a), size(b))) as u32;
        let (unit, inverse) = if DIGITS == 2 { power_of_two(largest) } else { part_of_127(largest) };
        let integers = |v| _mm512_cvtps_epi32(_mm512_mul_ps(v, _mm512_set1_ps(inverse)));
        let (a, b) = (integers(a), integers(b));
        let sum = _mm512_reduce_add_epi32(_mm512_add_epi32(a, b));
        let at = record.as_mut_ptr().cast::<__m128i>();
        // SAFETY: a record begins with 32 bytes for each digit.
        unsafe {
            if DIGITS == 2 {
                // With 128 added the lower digit is the remainder of a division that rounds down.
                let upper =
                    |v| _mm512_cvtepi32_epi8(_mm512_srai_epi32::<8>(_mm512_add_epi32(v, _mm512_set1_epi32(128))));
                _mm_storeu_si128(at, upper(a));
                _mm_storeu_si128(at.add(1), upper(b));
            }
            _mm_storeu_si128(at.add(2 * DIGITS - 2), _mm512_cvtepi32_epi8(a));
            _mm_storeu_si128(at.add(2 * DIGITS - 1), _mm512_cvtepi32_epi8(b));
        }
        record[Record::<DIGITS>::UNIT] = unit.to_bits();
        // At most 32 · 32,639 < 2²⁴: exact but for the multiplication by a unit that is no power of two.
        record[Record::<DIGITS>::SUM] = (unit * sum as f32).to_bits();
        record[Record::<DIGITS>::INTEGER_SUM] = sum as u32;
    }
}

/// As [`split`], by plain code: compiled for the instruction set of the function that it is inlined into.
#[inline(always)]
pub(super) fn split_bytes<const DIGITS: usize>(x: &[f32], out: &mut [u32]) {
    by_spans::<DIGITS>(x, out, |integers, words| {
        for digit in 0..DIGITS {
            let bytes = integers.map(|v| if digit + 1 < DIGITS { ((v + 128) >> 8) as i8 } else { v as i8 });
            for (word, bytes) in words[digit * WORDS..].iter_mut().zip(bytes.as_chunks().0) {
                *word = u32::from_le_bytes(bytes.map(|byte: i8| byte as u8));
            }
        }
    });
}

/// As [`split_bytes`], but integers of two digits stay whole.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn split_pairs(x: &[f32], out: &mut [u32]) {
    let pair = |a: i32, b: i32| (a as u32 & 0xffff) | (b as u32) << 16;
    by_spans::<2>(x, out, |integers, words| {
        for (words, four) in words.as_chunks_mut().0.iter_mut().zip(integers.as_chunks().0) {
            let [a, b, c, d] = *four;
            *words = [pair(a, c), pair(b, d)];
        }
    });
}

/// The record of each span of `x` into `out`; `place` puts the integers there.
#[inline(always)]
fn by_spans<const DIGITS: usize>(x: &[f32], out: &mut [u32], place: impl Fn(&[i32; SPAN], &mut [u32])) {
    /// A number of which the last bit of the mantissa is 1: a small one added to it is rounded to an integer, ties to even.
    const ROUND: f32 = 3.0 * (1 << 22) as f32;
    assert!(x.len().is_multiple_of(SPAN) && out.len() == x.len() / SPAN * Record::<DIGITS>::LEN);
    for (x, record) in x.as_chunks::<SPAN>().0.iter().zip(out.chunks_exact_mut(Record::<DIGITS>::LEN)) {
        let largest = x.iter().fold(0, |m, v| m.max(v.to_bits() & 0x7fff_ffff));
        let (unit, inverse) = if DIGITS == 2 { power_of_two(largest) } else { part_of_127(largest) };
        // Of infinities and NaN anything may come; the unit tells.
        let integers = x.map(|v| (v * inverse + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32);
        let sum = integers.iter().fold(0, |sum: i32, &v| sum.wrapping_add(v));
        place(&integers, &mut record[..Record::<DIGITS>::UNIT]);
        record[Record::<DIGITS>::UNIT] = unit.to_bits();
        record[Record::<DIGITS>::SUM] = (unit * sum as f32).to_bits();
        record[Record::<DIGITS>::INTEGER_SUM] = sum as u32;
    }
}

/// The unit that takes numbers up to the one with the bits `largest` to two signed bytes, and its inverse.
#[inline]
fn power_of_two(largest: u32) -> (f32, f32) {
    if largest >= f32::INFINITY.to_bits() {
        return (f32::NAN, 0.0);
    }
    // The exponent, rounded up from mantissas of 1.99 on: below that, the largest X is less than 1.99 · 2¹⁴ = 32,605, and
    // two digits reach to 127 · 257 = 32,639. At least 15, so that the unit is a normal number.
    let exponent = ((largest + 83_886) >> 23).max(15);
    (f32::from_bits((exponent - 14) << 23), f32::from_bits((268 - exponent) << 23))
}

/// The unit that takes the number with the bits `largest` to 127, and its inverse.
#[inline]
fn part_of_127(largest: u32) -> (f32, f32) {
    /// `2⁻¹¹⁹`: the inverse is finite from here on.
    const LEAST: u32 = (127 - 119) << 23;
    match f32::from_bits(largest) {
        _ if largest < LEAST => (0.0, 0.0),
        largest if largest.is_finite() => (largest / 127.0, 127.0 / largest),
        _ => (f32::NAN, 0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "x86_64")]
    use crate::Isa;

    /// Splits `x` by plain code, and checks the records: what they stand for is within `rounding` of the largest number of its
    /// span, or `least`.
    fn assert_split<const DIGITS: usize>(x: &[f32], rounding: f64, least: f64) -> Vec<u32> {
        let len = Record::<DIGITS>::LEN;
        let mut out = vec![u32::MAX; x.len() / SPAN * len];
        split_bytes::<DIGITS>(x, &mut out);
        for (x, record) in x.chunks_exact(SPAN).zip(out.chunks_exact(len)) {
            let unit = f32::from_bits(record[Record::<DIGITS>::UNIT]);
            let largest = x.iter().fold(0.0, |m: f64, x| m.max(f64::from(x.abs())));
            let allowed = (largest * rounding).max(least);
            let integers = integers::<DIGITS>(record);
            for (&x, &integer) in x.iter().zip(&integers) {
                let found = f64::from(integer) * f64::from(unit);
                assert!((f64::from(x) - found).abs() <= allowed, "{DIGITS}: {found} for {x} beside {largest}");
            }
            let sum: i32 = integers.iter().sum();
            assert_eq!(record[Record::<DIGITS>::INTEGER_SUM] as i32, sum);
            assert_eq!(f32::from_bits(record[Record::<DIGITS>::SUM]), unit * sum as f32);
        }
        out
    }

    /// The integers of a record in digits.
    fn integers<const DIGITS: usize>(record: &[u32]) -> [i32; SPAN] {
        let byte = |at: usize| i32::from(record[at / 4].to_le_bytes()[at % 4] as i8);
        std::array::from_fn(|i| (0..DIGITS).fold(0, |sum, digit| 256 * sum + byte(digit * SPAN + i)))
    }

    #[test]
    fn digits_are_the_numbers_within_the_rounding_on_every_instruction_set() {
        // The largest of each span runs through all mantissas and, by its sign, both ends of the digits.
        let spans = (0..200).map(|i| {
            let largest = (1.0 + i as f32 / 200.0) * [1.0, -1e-3, 3e36, -1e-35, 1e-42][i % 5];
            (0..SPAN).map(move |c| if c == i % SPAN { largest } else { largest * ((c * c + i) as f32).sin() })
        });
        let mut x: Vec<f32> = spans.flatten().collect();
        x.extend([0.0; SPAN]);
        let two = assert_split::<2>(&x, 0.5 / (1.99 * 8192.0), 2f64.powi(-127));
        let one = assert_split::<1>(&x, 0.5001 / 127.0, 2f64.powi(-119));
        #[cfg(target_arch = "x86_64")]
        {
            let mut pairs = vec![u32::MAX; two.len()];
            split_pairs(&x, &mut pairs);
            for (pairs, record) in pairs.chunks_exact(Record::<2>::LEN).zip(two.chunks_exact(Record::<2>::LEN)) {
                let half = |word: u32, i: usize| i32::from((word >> (16 * i)) as i16);
                let found = std::array::from_fn(|i| half(pairs[i / 4 * 2 + i % 2], i % 4 / 2));
                assert_eq!(integers::<2>(record), found);
                assert_eq!(record[Record::<2>::UNIT..], pairs[Record::<2>::UNIT..]);
            }
            if Isa::Avx512.is_supported() {
                let [mut again_two, mut again_one] = [&two, &one].map(|records| vec![u32::MAX; records.len()]);
                // SAFETY: the processor has it.
                unsafe {
                    split::<2>(&x, &mut again_two);
                    split::<1>(&x, &mut again_one);
                }
                assert!(again_two == two && again_one == one);
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (two, one);
    }
}
