//! Rows of weights that stand in memory as f32, f16 or bf16.

use crate::simd::Simd;

use super::tile::{PREFETCH_BYTES, ROWS, Rows};

/// Four rows of numbers of type `T`.
#[derive(Clone, Copy)]
pub(crate) struct Stored<T> {
    rows: [*const T; ROWS],
}

impl<T> Stored<T> {
    /// The rows `first .. first + 4` of a matrix of `rows` rows of `columns`; rows beyond the last repeat it.
    #[inline(always)]
    pub(crate) fn new(data: &[T], first: usize, rows: usize, columns: usize) -> Self {
        Self { rows: std::array::from_fn(|r| data[(first + r).min(rows - 1) * columns..][..columns].as_ptr()) }
    }
}

/// A number that vectors of f32 are loaded from.
///
/// # Safety
/// As [`Simd::load`]: the processor has `S`, and `p` is readable for the lanes loaded.
pub(crate) unsafe trait Number: Copy {
    unsafe fn load<S: Simd>(p: *const Self) -> S::V;
    unsafe fn load_first<S: Simd>(p: *const Self, n: usize) -> S::V;
}

// SAFETY: loads what the trait says.
unsafe impl Number for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::V {
        // SAFETY: by the caller's promise.
        unsafe { S::load(p) }
    }
    #[inline(always)]
    unsafe fn load_first<S: Simd>(p: *const Self, n: usize) -> S::V {
        // SAFETY: by the caller's promise.
        unsafe { S::load_first(p, n) }
    }
}

// SAFETY: loads what the trait says; `half::f16` is a transparent u16.
unsafe impl Number for half::f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::V {
        // SAFETY: by the caller's promise.
        unsafe { S::load_f16(p.cast()) }
    }
    #[inline(always)]
    unsafe fn load_first<S: Simd>(p: *const Self, n: usize) -> S::V {
        // SAFETY: by the caller's promise.
        unsafe { S::load_f16_first(p.cast(), n) }
    }
}

// SAFETY: loads what the trait says; `half::bf16` is a transparent u16.
unsafe impl Number for half::bf16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::V {
        // SAFETY: by the caller's promise.
        unsafe { S::load_bf16(p.cast()) }
    }
    #[inline(always)]
    unsafe fn load_first<S: Simd>(p: *const Self, n: usize) -> S::V {
        // SAFETY: by the caller's promise.
        unsafe { S::load_bf16_first(p.cast(), n) }
    }
}

// SAFETY: reads row r from `column` on, as the trait says.
unsafe impl<T: Number> Rows for Stored<T> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, r: usize, column: usize) -> S::V {
        // SAFETY: by the caller's promise.
        unsafe { T::load::<S>(self.rows[r].add(column)) }
    }
    #[inline(always)]
    unsafe fn prefetch<S: Simd>(&self, column: usize) {
        // The four rows lie one after the other.
        let line = self.rows[0].cast::<u8>().wrapping_add(PREFETCH_BYTES + column * ROWS * size_of::<T>());
        for i in 0..(S::LANES * ROWS * size_of::<T>()).div_ceil(64) {
            S::prefetch(line.wrapping_add(64 * i));
        }
    }

    #[inline(always)]
    unsafe fn partial<S: Simd>(&self, r: usize, column: usize, n: usize) -> S::V {
        // SAFETY: by the caller's promise.
        unsafe { T::load_first::<S>(self.rows[r].add(column), n) }
    }
}
