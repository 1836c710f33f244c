//! Bytes of a checkpoint as numbers.

use std::borrow::Cow;

use half::{bf16, f16};
use vllm_checkpoint::{DenseTensor, Dtype};
use vllm_kernels_cpu::Floats;

/// A number of which any bytes are one.
///
/// # Safety
/// Any bit pattern is a value, and there is no padding.
pub unsafe trait Plain: Copy {}

// SAFETY: an integer without padding.
unsafe impl Plain for u32 {}
// SAFETY: every bit pattern is an f32.
unsafe impl Plain for f32 {}
// SAFETY: a u16.
unsafe impl Plain for f16 {}
// SAFETY: a u16.
unsafe impl Plain for bf16 {}

/// `bytes` as numbers of the machine's order, which is little-endian as are files; copied only where they aren't aligned. What
/// does not fill a number is left out.
#[must_use]
pub fn elements<T: Plain>(bytes: &[u8]) -> Cow<'_, [T]> {
    // SAFETY: any bytes are values of T.
    let (before, aligned, _) = unsafe { bytes.align_to::<T>() };
    if before.is_empty() {
        return Cow::Borrowed(aligned);
    }
    let bytes = bytes.chunks_exact(size_of::<T>());
    // SAFETY: a chunk has the bytes of a T, and is read without asking for alignment.
    Cow::Owned(bytes.map(|bytes| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }).collect())
}

/// Scales or biases of a checkpoint, in whichever float type they are.
pub enum NumberView<'a> {
    /// f32
    F32(Cow<'a, [f32]>),
    /// f16
    F16(Cow<'a, [f16]>),
    /// bf16
    Bf16(Cow<'a, [bf16]>),
}

impl<'a> NumberView<'a> {
    /// The tensor's numbers, or `None` if they aren't floats.
    #[must_use]
    pub fn new(tensor: &'a DenseTensor<'_>) -> Option<Self> {
        Some(match tensor.dtype {
            Dtype::F32 => Self::F32(elements(&tensor.bytes)),
            Dtype::F16 => Self::F16(elements(&tensor.bytes)),
            Dtype::Bf16 => Self::Bf16(elements(&tensor.bytes)),
            _ => return None,
        })
    }

    /// As kernels take them.
    #[must_use]
    pub fn floats(&self) -> Floats<'_> {
        match self {
            Self::F32(v) => Floats::F32(v),
            Self::F16(v) => Floats::F16(v),
            Self::Bf16(v) => Floats::Bf16(v),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unaligned_bytes_are_copied_and_aligned_ones_are_not() {
        let bytes: Vec<u8> = (0..20).collect();
        let lead = bytes.as_ptr().align_offset(4);
        let aligned = elements::<u32>(&bytes[lead..lead + 8]);
        assert!(matches!(aligned, Cow::Borrowed([_, _])));
        let first = lead as u32 + 1;
        let shifted = elements::<u32>(&bytes[lead + 1..lead + 9]);
        assert!(matches!(&shifted, Cow::Owned(words) if words.len() == 2));
        assert_eq!(shifted[0], first | (first + 1) << 8 | (first + 2) << 16 | (first + 3) << 24);
    }
}
