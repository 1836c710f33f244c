//! Numbers as memory holds them, loaded as f32 vectors.

use half::{bf16, f16};

use crate::simd::Simd;

/// f32, f16 or bf16: what weights and KV caches are made of; and of caches, signed bytes.
pub(crate) trait Element: Copy + Default + Send + Sync + 'static {
    /// Whether this is f32, so that nothing needs widening.
    const IS_F32: bool = false;
    /// `LANES` elements from `p`, widened.
    ///
    /// # Safety
    /// They must be readable, and the processor must have the instruction set.
    unsafe fn load<S: Simd>(p: *const Self) -> S::V;
    /// The first `n <= LANES` elements from `p`, widened; 0 in the other lanes.
    ///
    /// # Safety
    /// `n` elements must be readable, and the processor must have the instruction set.
    #[inline(always)]
    unsafe fn load_first<S: Simd>(p: *const Self, n: usize) -> S::V {
        let mut lanes = [Self::default(); 16];
        // SAFETY: n elements are readable, and a vector has at most 16 lanes.
        unsafe {
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
            Self::load::<S>(lanes.as_ptr())
        }
    }
}

impl Element for f32 {
    const IS_F32: bool = true;

    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::V {
        // SAFETY: as this function's.
        unsafe { S::load(p) }
    }
    #[inline(always)]
    unsafe fn load_first<S: Simd>(p: *const Self, n: usize) -> S::V {
        // SAFETY: as this function's.
        unsafe { S::load_first(p, n) }
    }
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::V {
        // SAFETY: as this function's; `f16` is a `u16` in memory.
        unsafe { S::load_f16(p.cast()) }
    }
}

impl Element for bf16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::V {
        // SAFETY: as this function's; `bf16` is a `u16` in memory.
        unsafe { S::load_bf16(p.cast()) }
    }
}
