//! Dot products of bytes of Arm (`sdot`). Activations of two bytes stay f32 there: `smlal` takes as many products of i16 as `fmla` of f32.

use std::arch::{aarch64::*, asm};

use super::{
    kernel::{Kernel, Numbers, Reads, Tile},
    tile::{Dots, tile},
};
use crate::simd::Neon;

struct Bytes;

// SAFETY: as the trait asks.
unsafe impl Dots for Bytes {
    type S = Neon;
    type I = int32x4_t;
    const HEAD: bool = false;

    #[inline(always)]
    unsafe fn zero() -> int32x4_t {
        // SAFETY: by the caller's promise.
        unsafe { vdupq_n_s32(0) }
    }
    #[inline(always)]
    unsafe fn load(p: *const u32) -> int32x4_t {
        // SAFETY: by the caller's promise.
        unsafe { vld1q_s32(p.cast()) }
    }
    #[inline(always)]
    unsafe fn broadcast(p: *const u32) -> int32x4_t {
        // SAFETY: by the caller's promise.
        unsafe { vld1q_dup_s32(p.cast()) }
    }
    #[inline(always)]
    unsafe fn add(mut sums: int32x4_t, w: int32x4_t, x: int32x4_t) -> int32x4_t {
        // As assembly, because the intrinsic is not stable in Rust 1.95.
        // SAFETY: the instruction touches these registers alone; the processor has FEAT_DotProd by the caller's promise.
        unsafe {
            asm!(
                "sdot {sums:v}.4s, {w:v}.16b, {x:v}.16b",
                sums = inout(vreg) sums,
                w = in(vreg) w,
                x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        sums
    }
    #[inline(always)]
    unsafe fn float(sums: int32x4_t) -> float32x4_t {
        // SAFETY: by the caller's promise.
        unsafe { vcvtq_f32_s32(sums) }
    }
}

pub(super) static BYTES: Kernel = {
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn rows<const M: usize>(reads: &Reads, out: &mut Tile) {
        // SAFETY: by the caller's promise.
        unsafe { tile::<Bytes, M, 4>(reads, out) }
    }
    Kernel { numbers: Numbers::Signed, panels: 1, tiles: &[(6, rows::<6>), (3, rows::<3>), (1, rows::<1>)] }
};
