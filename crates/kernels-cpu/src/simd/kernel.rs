//! Kernels as values: for those that are generic in more than the instruction set.

use super::{Scalar, Simd};
use crate::{Isa, Pool};

/// A kernel with its arguments, whose work is to be compiled once for each instruction set.
pub(crate) trait Kernel {
    /// What it gives back.
    type Output;
    /// Does the work. Implementations are `#[inline(always)]`, and so is what they call: that is how the intrinsics
    /// come to stand in a function that enables them.
    ///
    /// # Safety
    /// The processor must have the instruction set of `S`.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// Runs `kernel` on the calling thread with the instruction set of `pool`.
pub(crate) fn run<K: Kernel>(pool: &Pool, kernel: K) -> K::Output {
    // SAFETY: a pool's instruction set is one that this processor has.
    unsafe {
        match pool.isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Vnni => run_avx512(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::AvxVnni => run_avx2(kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::NeonDot => run_neon(kernel),
            _ => kernel.run::<Scalar>(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: as this function's.
    unsafe { kernel.run::<super::Avx512>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: as this function's.
    unsafe { kernel.run::<super::Avx2>() }
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn run_neon<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: as this function's.
    unsafe { kernel.run::<super::Neon>() }
}
