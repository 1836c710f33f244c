//! Vectors of f32, one interface over the instruction sets.
//!
//! A kernel is written once, as an `#[inline(always)]` generic function over [`Simd`], and instantiated for each
//! instruction set inside a function that enables its target features, by [`kernel::run`].

pub(crate) mod kernel;
pub(crate) mod math;
mod scalar;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
pub(crate) use scalar::Scalar;

/// A vector of `LANES` f32 of one instruction set.
///
/// # Safety
/// Every method but the consts requires that the processor has the instruction set; pointers must be valid for the
/// lanes they touch, at any alignment.
pub(crate) unsafe trait Simd: Copy + 'static {
    /// The vector register.
    type V: Copy;
    /// What a comparison gives.
    type M: Copy;
    /// f32 in a vector; divides 16.
    const LANES: usize;
    /// How many vectors wide a register tile of [`TILE_ROWS`] rows of accumulators can be without spilling.
    const TILE_VECTORS: usize;

    /// All lanes `v`.
    unsafe fn splat(v: f32) -> Self::V;
    /// `LANES` f32 from `p`.
    unsafe fn load(p: *const f32) -> Self::V;
    /// The first `n` lanes from `p`, the others zero; `n` ≤ `LANES`.
    unsafe fn load_first(p: *const f32, n: usize) -> Self::V;
    /// `LANES` f32 to `p`.
    unsafe fn store(p: *mut f32, v: Self::V);
    /// The first `n` lanes to `p`; `n` ≤ `LANES`.
    unsafe fn store_first(p: *mut f32, v: Self::V, n: usize);
    /// `a + b`.
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// `a − b`.
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    /// `a · b`.
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`.
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// The larger.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// The smaller.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// `a · b + c`, rounded once where the instruction set can (the scalar path rounds twice).
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The sum of all lanes, as a balanced tree.
    unsafe fn sum(v: Self::V) -> f32;
    /// The largest lane.
    unsafe fn max_lane(v: Self::V) -> f32;
    /// `LANES` f16 (as bits) from `p`, widened.
    unsafe fn load_f16(p: *const u16) -> Self::V;
    /// `LANES` bf16 (as bits) from `p`, widened.
    unsafe fn load_bf16(p: *const u16) -> Self::V;
    /// `LANES` signed bytes from `p`, as f32.
    unsafe fn load_i8(p: *const i8) -> Self::V;
    /// `v` rounded to the nearest integer, ties to even.
    unsafe fn round(v: Self::V) -> Self::V;
    /// 2ⁿ for lanes that hold integers in −126..=127.
    unsafe fn exp2_int(n: Self::V) -> Self::V;
    /// `a < b`; false where one is NaN.
    unsafe fn less(a: Self::V, b: Self::V) -> Self::M;
    /// `yes` where `mask`, else `no`.
    unsafe fn select(mask: Self::M, yes: Self::V, no: Self::V) -> Self::V;

    /// `a · b + c`, rounded once everywhere.
    #[inline(always)]
    unsafe fn fused_mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: as this function's.
        unsafe { Self::mul_add(a, b, c) }
    }
    /// `v` within `low..=high`; NaN stays NaN.
    #[inline(always)]
    unsafe fn clamp(v: Self::V, low: f32, high: f32) -> Self::V {
        // SAFETY: as this function's. Of a number and a NaN, x86 gives the second operand and Arm the NaN.
        unsafe { Self::min(Self::splat(high), Self::max(Self::splat(low), v)) }
    }
    /// `−v`.
    #[inline(always)]
    unsafe fn negate(v: Self::V) -> Self::V {
        // SAFETY: as this function's. (−0 − v is −v for zeros too.)
        unsafe { Self::sub(Self::splat(-0.0), v) }
    }
    /// |v|
    #[inline(always)]
    unsafe fn abs(v: Self::V) -> Self::V {
        // SAFETY: as this function's.
        unsafe { Self::max(v, Self::negate(v)) }
    }
    /// `v · 2ⁿ` for lanes `n` that hold integers in −252..=254.
    #[inline(always)]
    unsafe fn scale_exp2(v: Self::V, n: Self::V) -> Self::V {
        // In two steps, since neither 2⁻¹⁵⁰ nor 2¹²⁸ is a normal number.
        // SAFETY: as this function's; both halves are integers in −126..=127.
        unsafe {
            let half = Self::round(Self::mul(n, Self::splat(0.5)));
            let rest = Self::sub(n, half);
            Self::mul(Self::mul(v, Self::exp2_int(half)), Self::exp2_int(rest))
        }
    }
    /// The first `n` lanes from f16 (as bits) at `p`, the others zero; `n` ≤ `LANES`.
    #[inline(always)]
    unsafe fn load_f16_first(p: *const u16, n: usize) -> Self::V {
        // SAFETY: n numbers are readable by the caller's promise; the copy has as many as the widest vector.
        unsafe { Self::load_f16(padded(p, n).as_ptr()) }
    }
    /// The first `n` lanes from bf16 (as bits) at `p`, the others zero; `n` ≤ `LANES`.
    #[inline(always)]
    unsafe fn load_bf16_first(p: *const u16, n: usize) -> Self::V {
        // SAFETY: as above.
        unsafe { Self::load_bf16(padded(p, n).as_ptr()) }
    }
    /// [`Simd::sum`] of four vectors at once; each the same tree of additions, whatever the others hold.
    unsafe fn sums(v: [Self::V; 4]) -> [f32; 4];

    /// The lanes rounded to the nearest integers, ties to even, as `LANES` i16 to `p`; of what doesn't fit, something.
    #[inline(always)]
    unsafe fn store_i16(p: *mut i16, v: Self::V) {
        // SAFETY: as this function's; as many lanes as the widest vector has.
        unsafe {
            let mut lanes = [0.0; 16];
            Self::store(lanes.as_mut_ptr(), v);
            for (i, &v) in lanes[..Self::LANES].iter().enumerate() {
                *p.add(i) = rounded_bits(v) as i16;
            }
        }
    }
    /// As [`Simd::store_i16`], as `LANES` i8.
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, v: Self::V) {
        // SAFETY: as above.
        unsafe {
            let mut lanes = [0.0; 16];
            Self::store(lanes.as_mut_ptr(), v);
            for (i, &v) in lanes[..Self::LANES].iter().enumerate() {
                *p.add(i) = rounded_bits(v) as i8;
            }
        }
    }

    /// Asks for the cache line at `p`, which need not be readable.
    #[inline(always)]
    fn prefetch(p: *const u8) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: SSE is part of the baseline, and a prefetch of any address is harmless.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(p.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = p;
    }

    /// `a` and `b` lane by lane in turn, `a₀ b₀ a₁ b₁ …`, as two vectors.
    unsafe fn zip(a: Self::V, b: Self::V) -> (Self::V, Self::V);
    /// In which order [`Simd::sums`] adds lanes: neighbours of this list first, then neighbouring pairs, and so on.
    const TREE: [usize; 16];
    /// Rows of `x` that a tile of packed panels takes at once, beside [`Simd::PANEL_VECTORS`], so that the sums fill the
    /// registers.
    const PANEL_ROWS: usize;
    /// Vectors of weights, a row in each lane, that such a tile takes at once.
    const PANEL_VECTORS: usize;

    /// Rows of `x` that a matmul tile takes at once beside four rows of weights, so that the sums fill the registers.
    const TILE: usize;
    /// Vector `i` of the sixteen 4-bit codes in the 8 bytes at `p`, as f32. Where a vector holds all sixteen they are in the
    /// order 0, 8, 1, 9, … 7, 15, because that is cheaper.
    unsafe fn codes4(p: *const u8, i: usize) -> Self::V;
    /// Vector `i` of the sixteen 8-bit codes in the 16 bytes at `p`, as f32.
    unsafe fn codes8(p: *const u8, i: usize) -> Self::V;
    /// Vector `i` of the 32 codes of `BITS` (at most 6) bits in the `4 · BITS` bytes at `p`, as f32.
    #[inline(always)]
    unsafe fn codes<const BITS: usize>(p: *const u8, i: usize) -> Self::V {
        let mut lanes = [0.0f32; 16];
        for (lane, value) in lanes.iter_mut().enumerate().take(Self::LANES) {
            let bit = (i * Self::LANES + lane) * BITS;
            let (byte, shift) = (bit / 8, bit % 8);
            // SAFETY: the span's bytes are readable by the caller's promise; a code of at most 8 bits lies in two of
            // them, and only one is left to read where it ends with the span's last.
            let bits = unsafe {
                let low = u32::from(*p.add(byte));
                if shift + BITS > 8 { low | u32::from(*p.add(byte + 1)) << 8 } else { low }
            };
            *value = (bits >> shift & ((1 << BITS) - 1)) as f32;
        }
        // SAFETY: as many lanes as the widest vector has.
        unsafe { Self::load(lanes.as_ptr()) }
    }
}

/// Turns the first [`Simd::LANES`] vectors of `v`, rows of a square, into its columns.
///
/// # Safety
/// The processor has `S`.
#[inline(always)]
pub(crate) unsafe fn transpose<S: Simd>(v: &mut [S::V; 16]) {
    let half = S::LANES / 2;
    // Each round moves one bit of the row's number into the lane's.
    for _ in 0..S::LANES.ilog2() {
        let mut turned = *v;
        for i in 0..half {
            // SAFETY: by the caller's promise.
            (turned[2 * i], turned[2 * i + 1]) = unsafe { S::zip(v[i], v[i + half]) };
        }
        *v = turned;
    }
}

/// Rows of a register tile: see [`Simd::TILE_VECTORS`].
pub(crate) const TILE_ROWS: usize = 6;

/// Bits of which the lowest 22 are `v`, small, rounded to an integer: the last bit of the mantissa of what it is added to is 1.
#[inline(always)]
fn rounded_bits(v: f32) -> u32 {
    (v + 3.0 * (1 << 22) as f32).to_bits()
}

/// For each of 32 codes of `BITS` bits: the word in which it begins, and the bit of that word.
#[cfg(target_arch = "x86_64")]
const fn code_places<const BITS: usize>() -> ([i32; 32], [i32; 32]) {
    let (mut words, mut shifts) = ([0; 32], [0; 32]);
    let mut i = 0;
    while i < 32 {
        words[i] = (i * BITS / 32) as i32;
        shifts[i] = (i * BITS % 32) as i32;
        i += 1;
    }
    (words, shifts)
}

/// The first `n` (at most 16) numbers at `p`, and zeros.
#[inline(always)]
unsafe fn padded(p: *const u16, n: usize) -> [u16; 16] {
    let mut lanes = [0u16; 16];
    // SAFETY: n numbers are readable by the caller's promise, and n ≤ 16.
    unsafe { std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n) };
    lanes
}
