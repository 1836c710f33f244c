//! What the tests of several kernels share: pools, numbers, comparison.

use std::fmt::Display;

use half::{bf16, f16};

use crate::{FloatKind, Floats, Isa, Pool};

/// A pool of two threads for every instruction set of this processor.
pub(crate) fn every_isa() -> Vec<Pool> {
    Isa::available().into_iter().map(|isa| Pool::with_isa(2, isa).expect("it is available")).collect()
}

/// `n` numbers in -1..1, the same for the same seed.
pub(crate) fn random(n: usize, seed: u64) -> Vec<f32> {
    // SplitMix64.
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678);
    (0..n)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Floats that own their numbers.
pub(crate) enum OwnedFloats {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl OwnedFloats {
    pub(crate) fn view(&self) -> Floats<'_> {
        match self {
            Self::F32(v) => Floats::F32(v),
            Self::F16(v) => Floats::F16(v),
            Self::Bf16(v) => Floats::Bf16(v),
        }
    }
}

/// The same `n` random numbers, rounded to each kind.
pub(crate) fn random_floats(n: usize, seed: u64) -> [(FloatKind, OwnedFloats); 3] {
    let v = random(n, seed);
    [
        (FloatKind::F16, OwnedFloats::F16(v.iter().map(|&v| f16::from_f32(v)).collect())),
        (FloatKind::Bf16, OwnedFloats::Bf16(v.iter().map(|&v| bf16::from_f32(v)).collect())),
        (FloatKind::F32, OwnedFloats::F32(v)),
    ]
}

/// Every number is within `tolerance`, relative to the larger of 1 and the number wanted.
#[track_caller]
pub(crate) fn assert_close(got: &[f32], wanted: impl IntoIterator<Item = f64>, tolerance: f64, what: impl Display) {
    let mut wanted = wanted.into_iter();
    for (i, &got) in got.iter().enumerate() {
        let wanted = wanted.next().unwrap_or_else(|| panic!("{what}: {i} numbers wanted, more found"));
        let error = (f64::from(got) - wanted).abs() / wanted.abs().max(1.0);
        assert!(error <= tolerance, "{what}: number {i} is {got}, {wanted} wanted (off by {error:e})");
    }
    assert!(wanted.next().is_none(), "{what}: only {} numbers found", got.len());
}
