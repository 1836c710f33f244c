//! Vectors of f32, one interface over the instruction sets.
//!
//! A kernel is written once, as an `#[inline(always)]` generic function over [`Simd`], and instantiated for each
//! instruction set inside a function that enables its target features, by [`dispatch!`].

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
    /// f32 in a vector.
    const LANES: usize;

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
    /// `v` rounded to the nearest integer, ties to even.
    unsafe fn round(v: Self::V) -> Self::V;
    /// 2ⁿ for lanes that hold integers in −126..=127.
    unsafe fn exp2_int(n: Self::V) -> Self::V;
}

/// Calls the kernel `$f::<S>(args…)` (an `#[inline(always)] unsafe fn` generic over [`Simd`]) for the instruction set
/// `$isa`, compiled with its target features.
///
/// The caller must hold an [`Isa`](crate::Isa) that this processor has; that is what a [`Pool`](crate::Pool) vouches for.
macro_rules! dispatch {
    ($isa:expr, $f:ident ( $($arg:ident : $ty:ty),* $(,)? ) $(-> $ret:ty)?) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
        unsafe fn avx512($($arg: $ty),*) $(-> $ret)? {
            // SAFETY: the caller vouches for the features and for the kernel's own conditions.
            unsafe { $f::<$crate::simd::Avx512>($($arg),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn avx2($($arg: $ty),*) $(-> $ret)? {
            // SAFETY: as above.
            unsafe { $f::<$crate::simd::Avx2>($($arg),*) }
        }
        #[cfg(target_arch = "aarch64")]
        #[target_feature(enable = "neon")]
        unsafe fn neon($($arg: $ty),*) $(-> $ret)? {
            // SAFETY: as above.
            unsafe { $f::<$crate::simd::Neon>($($arg),*) }
        }
        match $isa {
            #[cfg(target_arch = "x86_64")]
            $crate::Isa::Avx512 => avx512($($arg),*),
            #[cfg(target_arch = "x86_64")]
            $crate::Isa::Avx2 => avx2($($arg),*),
            #[cfg(target_arch = "aarch64")]
            $crate::Isa::Neon => neon($($arg),*),
            _ => $f::<$crate::simd::Scalar>($($arg),*),
        }
    }};
}
pub(crate) use dispatch;
