//! 128-bit vectors of 64-bit Arm: 4 f32.

use std::arch::aarch64::*;

use super::Simd;

#[derive(Clone, Copy)]
pub(crate) struct Neon;

// SAFETY: (of every block below, too) every 64-bit Arm core has Advanced SIMD; loads and stores work at any alignment.
unsafe impl Simd for Neon {
    type V = float32x4_t;
    type M = uint32x4_t;
    const LANES: usize = 4;
    const TILE_VECTORS: usize = 4;

    #[inline(always)]
    unsafe fn splat(v: f32) -> float32x4_t {
        // SAFETY: as stated above the block.
        unsafe { vdupq_n_f32(v) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> float32x4_t {
        // SAFETY: as stated above the block.
        unsafe { vld1q_f32(p) }
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> float32x4_t {
        let mut lanes = [0.0f32; 4];
        // SAFETY: n ≤ 4 lanes are readable by the caller's promise.
        unsafe {
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
            vld1q_f32(lanes.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: float32x4_t) {
        // SAFETY: as stated above the block.
        unsafe { vst1q_f32(p, v) }
    }
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, v: float32x4_t, n: usize) {
        let mut lanes = [0.0f32; 4];
        // SAFETY: n ≤ 4 lanes are writable by the caller's promise.
        unsafe {
            vst1q_f32(lanes.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n);
        }
    }
    #[inline(always)]
    unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: as stated above the block.
        unsafe { vaddq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: as stated above the block.
        unsafe { vsubq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: as stated above the block.
        unsafe { vmulq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: as stated above the block.
        unsafe { vdivq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: as stated above the block.
        unsafe { vmaxq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: as stated above the block.
        unsafe { vminq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: as stated above the block. The accumulator comes first in Arm's order.
        unsafe { vfmaq_f32(c, a, b) }
    }
    #[inline(always)]
    unsafe fn sum(v: float32x4_t) -> f32 {
        // SAFETY: as stated above the block.
        unsafe { vaddvq_f32(v) }
    }
    #[inline(always)]
    unsafe fn max_lane(v: float32x4_t) -> f32 {
        // SAFETY: as stated above the block.
        unsafe { vmaxvq_f32(v) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> float32x4_t {
        let widened: float32x4_t;
        // SAFETY: four u16 are readable by the caller's promise; `fcvtl` (f16 → f32) is part of the base instruction
        // set. It is written as assembly because its intrinsic is not stable in Rust 1.95's baseline types.
        unsafe {
            let bits = vld1_u16(p);
            std::arch::asm!(
                "fcvtl {wide:v}.4s, {narrow:v}.4h",
                wide = lateout(vreg) widened,
                narrow = in(vreg) bits,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        widened
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> float32x4_t {
        // SAFETY: as stated above the block.
        unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(p))) }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> float32x4_t {
        // SAFETY: as stated above the block; of the eight lanes that are widened, four bytes are the caller's.
        unsafe {
            let bytes = vcreate_s8(u64::from(p.cast::<u32>().read_unaligned()));
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))
        }
    }
    #[inline(always)]
    unsafe fn round(v: float32x4_t) -> float32x4_t {
        // SAFETY: as stated above the block.
        unsafe { vrndnq_f32(v) }
    }
    #[inline(always)]
    unsafe fn exp2_int(n: float32x4_t) -> float32x4_t {
        // SAFETY: as stated above the block.
        unsafe {
            let exponent = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))
        }
    }
    #[inline(always)]
    unsafe fn less(a: float32x4_t, b: float32x4_t) -> uint32x4_t {
        // SAFETY: as stated above the block.
        unsafe { vcltq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn select(mask: uint32x4_t, yes: float32x4_t, no: float32x4_t) -> float32x4_t {
        // SAFETY: as stated above the block.
        unsafe { vbslq_f32(mask, yes, no) }
    }
    #[inline(always)]
    unsafe fn sums(v: [float32x4_t; 4]) -> [f32; 4] {
        // SAFETY: as stated above the block.
        unsafe {
            let mut sums = [0.0; 4];
            vst1q_f32(sums.as_mut_ptr(), vpaddq_f32(vpaddq_f32(v[0], v[1]), vpaddq_f32(v[2], v[3])));
            sums
        }
    }

    #[inline(always)]
    unsafe fn zip(a: float32x4_t, b: float32x4_t) -> (float32x4_t, float32x4_t) {
        // SAFETY: as stated above the block.
        unsafe { (vzip1q_f32(a, b), vzip2q_f32(a, b)) }
    }
    const TREE: [usize; 16] = [0, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const PANEL_ROWS: usize = 8;
    const PANEL_VECTORS: usize = 3;

    const TILE: usize = 5;
    #[inline(always)]
    unsafe fn codes4(p: *const u8, i: usize) -> float32x4_t {
        static SHIFTS: [[i32; 4]; 2] = [[0, -4, -8, -12], [-16, -20, -24, -28]];
        // SAFETY: as stated above the block; the caller gives 8 readable bytes, of which quarter i (0 to 3) is used.
        unsafe {
            let word = vdupq_n_u32(p.add(4 * (i / 2)).cast::<u32>().read_unaligned());
            let shifted = vshlq_u32(word, vld1q_s32(SHIFTS[i % 2].as_ptr()));
            vcvtq_f32_u32(vandq_u32(shifted, vdupq_n_u32(15)))
        }
    }
    #[inline(always)]
    unsafe fn codes8(p: *const u8, i: usize) -> float32x4_t {
        // SAFETY: as stated above the block; the caller gives 16 readable bytes, of which quarter i (0 to 3) is used.
        unsafe {
            let half = vmovl_u8(vld1_u8(p.add(8 * (i / 2))));
            let four = if i.is_multiple_of(2) { vget_low_u16(half) } else { vget_high_u16(half) };
            vcvtq_f32_u32(vmovl_u16(four))
        }
    }
}
