//! GGML's tensor kinds: their numbers, block sizes, and what we turn them into.
//!
//! Source: the GGUF specification and `ggml.h` (numbers, sizes).

use crate::tensor::{Dtype, QuantMode, QuantParams};

/// A tensor kind that this crate reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub(crate) enum Kind {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4_K,
    Q5_K,
    Q6_K,
}

/// How a kind's tensors are handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Becomes {
    /// The same numbers.
    Dense(Dtype),
    /// The same codes in MLX's order.
    Affine(QuantParams),
    /// Numbers rounded to half precision: Q6_K's groups of 16 fit no MLX group size.
    Half,
}

/// Elements that share a scale in every kind that becomes affine.
pub(crate) const GROUP: usize = 32;

impl Kind {
    /// The kind of GGML type number `n`; the error names what the number means.
    pub(crate) fn from_number(n: u32) -> Result<Self, String> {
        Ok(match n {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4_K,
            13 => Self::Q5_K,
            14 => Self::Q6_K,
            30 => Self::Bf16,
            _ => {
                let name = UNSUPPORTED.iter().find(|(number, _)| *number == n).map_or("unknown", |(_, name)| name);
                return Err(format!(
                    "GGML type {n} ({name}) is not supported; supported are F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, \
                     Q8_0, Q4_K, Q5_K and Q6_K"
                ));
            }
        })
    }

    /// Elements and bytes of a block.
    pub(crate) fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q4_K => (256, 144),
            Self::Q5_K => (256, 176),
            Self::Q6_K => (256, 210),
        }
    }

    pub(crate) fn becomes(self) -> Becomes {
        let affine = |bits| Becomes::Affine(QuantParams { mode: QuantMode::Affine, bits, group_size: GROUP });
        match self {
            Self::F32 => Becomes::Dense(Dtype::F32),
            Self::F16 => Becomes::Dense(Dtype::F16),
            Self::Bf16 => Becomes::Dense(Dtype::Bf16),
            Self::Q4_0 | Self::Q4_1 | Self::Q4_K => affine(4),
            Self::Q5_0 | Self::Q5_1 | Self::Q5_K => affine(5),
            Self::Q8_0 => affine(8),
            Self::Q6_K => Becomes::Half,
        }
    }

    /// Whether scales are 6-bit numbers times a half: 17 significant bits, which only f32 holds.
    pub(crate) fn has_wide_scales(self) -> bool {
        matches!(self, Self::Q4_K | Self::Q5_K)
    }
}

const UNSUPPORTED: [(u32, &str); 22] = [
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];
