//! What a pool stores a number as.

use half::{bf16, f16, slice::HalfFloatSliceExt};

use crate::{element::Element, simd::Simd};

/// What a [`KvPool`](super::KvPool) stores a number as. Only f32 keeps what was written exactly; what isn't finite stays so
/// in all of them but f16, where infinities saturate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvKind {
    /// IEEE single precision.
    F32,
    /// IEEE half precision, relative error up to 2⁻¹¹; numbers beyond ±65504 become ±65504.
    F16,
    /// The upper half of single precision, relative error up to 2⁻⁸, and the range of f32.
    Bf16,
    /// Signed bytes, and for each head of each token one f32 that multiplies those of its keys and one for its values. The
    /// error is up to 1/254 of the head's largest value; keys are rotated first, so that their outliers don't cost the
    /// others their precision, and the same holds of what they are then.
    Int8,
}

impl KvKind {
    /// Bytes of one number, without what its head shares.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Int8 => 1,
        }
    }

    /// Bytes that all numbers of one head of a token share.
    pub const fn scale_size(self) -> usize {
        if matches!(self, Self::Int8) { size_of::<f32>() } else { 0 }
    }
}

/// A number as a pool stores it. Stored zeros are zero whatever the scale.
pub(crate) trait KvNumber: Element {
    /// Whether numbers are to be multiplied with a scale that is kept beside them, and keys are rotated.
    const SCALED: bool = false;
    /// The scale for a head's numbers; 1 if there are none.
    fn scale(_numbers: &[f32]) -> f32 {
        1.0
    }
    /// Stores numbers of a head whose scale is `scale`, at most [`PIECE`] of them.
    fn encode(numbers: &[f32], scale: f32, stored: &mut [Self]);
    /// The stored number without its scale, exactly.
    fn widen(self) -> f32;
    /// To little-endian bytes.
    fn put(self, bytes: &mut [u8]);
    /// From little-endian bytes.
    fn get(bytes: &[u8]) -> Self;
}

/// How many numbers are encoded at a time.
pub(super) const PIECE: usize = 64;

macro_rules! bytes {
    ($type:ty) => {
        #[inline]
        fn put(self, bytes: &mut [u8]) {
            bytes.copy_from_slice(&self.to_le_bytes());
        }
        #[inline]
        fn get(bytes: &[u8]) -> Self {
            <$type>::from_le_bytes(bytes.try_into().expect("the bytes of one number"))
        }
    };
}

impl KvNumber for f32 {
    fn encode(numbers: &[f32], _: f32, stored: &mut [Self]) {
        stored.copy_from_slice(numbers);
    }
    fn widen(self) -> f32 {
        self
    }
    bytes!(f32);
}

impl KvNumber for f16 {
    fn encode(numbers: &[f32], _: f32, stored: &mut [Self]) {
        let mut within = [0.0; PIECE];
        let within = &mut within[..numbers.len()];
        let greatest = Self::MAX.to_f32();
        within.iter_mut().zip(numbers).for_each(|(to, number)| *to = number.clamp(-greatest, greatest));
        stored.convert_from_f32_slice(within);
    }
    fn widen(self) -> f32 {
        self.to_f32()
    }
    bytes!(f16);
}

impl KvNumber for bf16 {
    fn encode(numbers: &[f32], _: f32, stored: &mut [Self]) {
        stored.convert_from_f32_slice(numbers);
    }
    fn widen(self) -> f32 {
        self.to_f32()
    }
    bytes!(bf16);
}

/// 1.5·2²³: a number under 2²² added to this is rounded to a whole one, ties to even, and the sum's low byte is that one's.
const ROUND: f32 = (3 << 22) as f32;
const GREATEST_CODE: f32 = 127.0;

impl KvNumber for i8 {
    const SCALED: bool = true;

    /// NaN if a number isn't finite: then the whole head is none.
    fn scale(numbers: &[f32]) -> f32 {
        // Magnitudes are ordered as their bits are, infinities and NaNs last.
        let bits = numbers.iter().fold(0, |max, number| max.max((number.to_bits() & 0x7fff_ffff).cast_signed()));
        let scale = f32::from_bits(bits.cast_unsigned()) / GREATEST_CODE;
        if !scale.is_finite() {
            f32::NAN
        } else if scale.is_normal() {
            scale
        } else {
            0.0
        }
    }
    fn encode(numbers: &[f32], scale: f32, stored: &mut [Self]) {
        if scale.is_normal() {
            for (code, number) in stored.iter_mut().zip(numbers) {
                *code = (number / scale + ROUND).to_bits() as i8;
            }
        } else {
            stored.fill(0);
        }
    }
    fn widen(self) -> f32 {
        f32::from(self)
    }
    bytes!(i8);
}

impl Element for i8 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::V {
        // SAFETY: as this function's.
        unsafe { S::load_i8(p) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    fn int8(numbers: &[f32]) -> Vec<f32> {
        let mut codes = vec![0i8; numbers.len()];
        let scale = i8::scale(numbers);
        i8::encode(numbers, scale, &mut codes);
        codes.iter().map(|code| code.widen() * scale).collect()
    }

    #[test]
    fn bytes_lose_no_more_than_half_a_step() {
        for factor in [1e-30, 1e-3, 1.0, 300.0, 1e38] {
            let numbers: Vec<f32> = random(PIECE, 3).iter().map(|n| n * factor).collect();
            let greatest = numbers.iter().fold(0.0f32, |max, n| max.max(n.abs()));
            for (wanted, got) in numbers.iter().zip(int8(&numbers)) {
                assert!((wanted - got).abs() <= greatest / 253.9, "{wanted} {got} of {greatest}");
            }
        }
        assert_eq!(int8(&[0.0; 5]), [0.0; 5]);
        assert_eq!(int8(&[1e-42, 0.0]), [0.0; 2], "what is too small for a normal scale is nothing");
        assert_eq!(int8(&[-254.0, 2.0, 254.0, 127.0]), [-254.0, 2.0, 254.0, 128.0], "ties go to the even code");
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(int8(&[1.0, bad, 2.0]).iter().all(|n| n.is_nan()), "{bad}");
        }
    }

    #[test]
    fn f16_saturates() {
        let mut stored = [f16::ZERO; 5];
        f16::encode(&[1e9, -70_000.0, 65_519.0, f32::INFINITY, f32::NAN], 1.0, &mut stored);
        assert_eq!(stored[..4].iter().map(|n| n.to_f32()).collect::<Vec<_>>(), [65504.0, -65504.0, 65504.0, 65504.0]);
        assert!(stored[4].is_nan());
    }
}
