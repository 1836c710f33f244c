//! The fallback: eight f32 in an array, which the compiler may or may not keep in registers.

use half::{bf16, f16};

use super::Simd;

#[derive(Clone, Copy)]
pub(crate) struct Scalar;

const N: usize = 8;

#[inline(always)]
fn zip(a: [f32; N], b: [f32; N], f: impl Fn(f32, f32) -> f32) -> [f32; N] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

// SAFETY: plain Rust; pointers are read and written unaligned, within the bounds the trait states.
unsafe impl Simd for Scalar {
    type V = [f32; N];
    type M = [bool; N];
    const LANES: usize = N;
    const TILE_VECTORS: usize = 1;

    #[inline(always)]
    unsafe fn splat(v: f32) -> Self::V {
        [v; N]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        // SAFETY: the caller gives N readable f32.
        unsafe { p.cast::<[f32; N]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Self::V {
        // SAFETY: the caller gives n readable f32; no other is read.
        std::array::from_fn(|i| if i < n { unsafe { p.add(i).read_unaligned() } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        // SAFETY: the caller gives N writable f32.
        unsafe { p.cast::<[f32; N]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, v: Self::V, n: usize) {
        for (i, &lane) in v.iter().enumerate().take(n) {
            // SAFETY: the caller gives n writable f32.
            unsafe { p.add(i).write_unaligned(lane) }
        }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, f32::max)
    }
    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, f32::min)
    }
    #[inline(always)]
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // Not `f32::mul_add`: without the instruction that is a call into the maths library.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn sum(v: Self::V) -> f32 {
        ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
    }
    #[inline(always)]
    unsafe fn max_lane(v: Self::V) -> f32 {
        v.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self::V {
        // SAFETY: the caller gives N readable u16.
        std::array::from_fn(|i| f16::from_bits(unsafe { p.add(i).read_unaligned() }).to_f32())
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::V {
        // SAFETY: the caller gives N readable u16.
        std::array::from_fn(|i| bf16::from_bits(unsafe { p.add(i).read_unaligned() }).to_f32())
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self::V {
        // SAFETY: the caller gives N readable bytes.
        std::array::from_fn(|i| f32::from(unsafe { p.add(i).read() }))
    }
    #[inline(always)]
    unsafe fn round(v: Self::V) -> Self::V {
        v.map(f32::round_ties_even)
    }
    #[inline(always)]
    unsafe fn exp2_int(n: Self::V) -> Self::V {
        n.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn less(a: Self::V, b: Self::V) -> [bool; N] {
        std::array::from_fn(|i| a[i] < b[i])
    }
    #[inline(always)]
    unsafe fn select(mask: [bool; N], yes: Self::V, no: Self::V) -> Self::V {
        std::array::from_fn(|i| if mask[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    unsafe fn fused_mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // The product of two f32 is exact in f64, so only the sum rounds.
        std::array::from_fn(|i| (f64::from(a[i]) * f64::from(b[i]) + f64::from(c[i])) as f32)
    }
    #[inline(always)]
    unsafe fn clamp(v: Self::V, low: f32, high: f32) -> Self::V {
        v.map(|v| v.clamp(low, high))
    }
    #[inline(always)]
    unsafe fn sums(v: [Self::V; 4]) -> [f32; 4] {
        // SAFETY: plain Rust.
        v.map(|v| unsafe { Self::sum(v) })
    }

    #[inline(always)]
    unsafe fn zip(a: Self::V, b: Self::V) -> (Self::V, Self::V) {
        let lane = |i: usize| if i.is_multiple_of(2) { a[i / 2] } else { b[i / 2] };
        (std::array::from_fn(lane), std::array::from_fn(|i| lane(N + i)))
    }
    const TREE: [usize; 16] = [0, 4, 2, 6, 1, 5, 3, 7, 0, 0, 0, 0, 0, 0, 0, 0];
    const PANEL_ROWS: usize = 2;
    const PANEL_VECTORS: usize = 2;

    const TILE: usize = 2;
    #[inline(always)]
    unsafe fn codes4(p: *const u8, i: usize) -> Self::V {
        // SAFETY: the caller gives 8 readable bytes, of which half i (0 or 1) is read.
        let word = u32::from_le_bytes(unsafe { p.add(4 * i).cast::<[u8; 4]>().read() });
        std::array::from_fn(|k| (word >> (4 * k) & 15) as f32)
    }
    #[inline(always)]
    unsafe fn codes8(p: *const u8, i: usize) -> Self::V {
        // SAFETY: the caller gives 16 readable bytes, of which half i (0 or 1) is read.
        unsafe { p.add(8 * i).cast::<[u8; 8]>().read() }.map(f32::from)
    }
}
