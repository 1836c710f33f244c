//! Weights as the checkpoint stores them: f32, f16 or bf16, widened where they are used.

use std::ops::Range;

use half::{bf16, f16};

/// Borrowed floating-point weights in one of three formats. Activations are always f32; only weights come as these.
#[derive(Clone, Copy, Debug)]
pub enum Floats<'a> {
    /// IEEE single precision.
    F32(&'a [f32]),
    /// IEEE half precision.
    F16(&'a [f16]),
    /// The upper half of single precision.
    Bf16(&'a [bf16]),
}

/// The format of [`Floats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FloatKind {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of single precision.
    Bf16,
}

impl FloatKind {
    /// Bytes of one number.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

impl<'a> Floats<'a> {
    /// How many numbers there are.
    pub const fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::F16(v) => v.len(),
            Self::Bf16(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The format.
    pub const fn kind(&self) -> FloatKind {
        match self {
            Self::F32(_) => FloatKind::F32,
            Self::F16(_) => FloatKind::F16,
            Self::Bf16(_) => FloatKind::Bf16,
        }
    }

    /// The numbers of `range`.
    ///
    /// # Panics
    /// If they are not all there.
    #[must_use]
    pub fn range(&self, range: Range<usize>) -> Self {
        match self {
            Self::F32(v) => Self::F32(&v[range]),
            Self::F16(v) => Self::F16(&v[range]),
            Self::Bf16(v) => Self::Bf16(&v[range]),
        }
    }

    /// Number `index`, widened (exactly).
    ///
    /// # Panics
    /// If `index` is out of range.
    #[inline]
    pub fn get(&self, index: usize) -> f32 {
        match self {
            Self::F32(v) => v[index],
            Self::F16(v) => v[index].to_f32(),
            Self::Bf16(v) => v[index].to_f32(),
        }
    }

    /// Widens `out.len()` numbers from `start` on into `out`.
    ///
    /// # Panics
    /// If `start + out.len()` is beyond the end.
    pub fn widen(&self, start: usize, out: &mut [f32]) {
        let end = start + out.len();
        match self {
            Self::F32(v) => out.copy_from_slice(&v[start..end]),
            Self::F16(v) => out.iter_mut().zip(&v[start..end]).for_each(|(o, w)| *o = w.to_f32()),
            Self::Bf16(v) => out.iter_mut().zip(&v[start..end]).for_each(|(o, w)| *o = w.to_f32()),
        }
    }
}

impl<'a> From<&'a [f32]> for Floats<'a> {
    fn from(v: &'a [f32]) -> Self {
        Self::F32(v)
    }
}

impl<'a> From<&'a [f16]> for Floats<'a> {
    fn from(v: &'a [f16]) -> Self {
        Self::F16(v)
    }
}

impl<'a> From<&'a [bf16]> for Floats<'a> {
    fn from(v: &'a [bf16]) -> Self {
        Self::Bf16(v)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_widens_exactly() {
        let wanted = [0.0, -1.5, 0.25, 3.0, 65504.0];
        let half: Vec<f16> = wanted.iter().map(|&v| f16::from_f32(v)).collect();
        let brain: Vec<bf16> = wanted[..4].iter().map(|&v| bf16::from_f32(v)).collect();
        for (name, floats, n) in [
            ("f32", Floats::from(&wanted[..]), 5),
            ("f16", Floats::from(&half[..]), 5),
            ("bf16", Floats::from(&brain[..]), 4),
        ] {
            assert_eq!(floats.len(), n, "{name}");
            let mut out = vec![f32::NAN; n - 1];
            floats.widen(1, &mut out);
            assert_eq!(out, wanted[1..n], "{name}");
            assert_eq!(floats.get(1), -1.5, "{name}");
        }
    }
}
