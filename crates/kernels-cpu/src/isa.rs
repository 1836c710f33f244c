//! Which instruction set the kernels use.

use std::{fmt, str::FromStr, sync::OnceLock};

/// The environment variable that lowers the instruction set [`Isa::detect`] picks: `scalar`, `neon`, `neondot`, `avx2`, `avxvnni`,
/// `avx512`, `avx512vnni`.
pub(crate) const ISA_VARIABLE: &str = "VLLM_CPU_ISA";

/// An instruction set for which kernels are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Isa {
    /// No SIMD intrinsics; what the compiler makes of plain loops for the baseline target.
    Scalar,
    /// Arm's Advanced SIMD, 128 bit; part of every 64-bit Arm core.
    Neon,
    /// [`Isa::Neon`] with byte dot products (Armv8.2's FEAT_DotProd: Apple M1, Cortex-A76, Neoverse N1 and later). Only
    /// quantized matmuls differ.
    NeonDot,
    /// x86-64 with AVX2, FMA and F16C (Haswell, Zen and later).
    Avx2,
    /// [`Isa::Avx2`] with AVX-VNNI, integer dot products of its vectors (Alder Lake, Zen 5 and later). Only quantized matmuls
    /// differ, and they in speed alone.
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, VL and DQ, and all of [`Isa::Avx2`] (Skylake-SP, Zen 4 and later).
    Avx512,
    /// [`Isa::Avx512`] with VNNI, byte dot products (Cascade Lake, Zen 4 and later). Weights of 4 and 8 bits are
    /// [packed](crate::PackedMatrix) for it; nothing else differs.
    Avx512Vnni,
}

/// An instruction set that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IsaError {
    /// The name is none that we know.
    #[error("instruction set {0:?} is unknown: it must be scalar, neon, neondot, avx2, avxvnni, avx512 or avx512vnni")]
    Unknown(String),
    /// This processor lacks it.
    #[error("instruction set {wanted} is not available on this processor: it has {}", names(available))]
    Unavailable {
        /// The one asked for.
        wanted: Isa,
        /// Those that this processor has.
        available: Vec<Isa>,
    },
}

/// Worst first.
const ALL: [Isa; 7] = [Isa::Scalar, Isa::Neon, Isa::NeonDot, Isa::Avx2, Isa::AvxVnni, Isa::Avx512, Isa::Avx512Vnni];

fn names(isas: &[Isa]) -> String {
    isas.iter().map(Isa::to_string).collect::<Vec<_>>().join(", ")
}

impl Isa {
    /// The best instruction set of this processor, or the one that the environment variable `VLLM_CPU_ISA` names,
    /// if the processor has it. The answer is the same for the life of the process.
    pub fn detect() -> Self {
        static DETECTED: OnceLock<Isa> = OnceLock::new();
        *DETECTED.get_or_init(|| {
            let named = std::env::var(ISA_VARIABLE).ok();
            named.and_then(|name| name.parse::<Self>().ok()).filter(|isa| isa.is_supported()).unwrap_or_else(Self::best)
        })
    }

    fn best() -> Self {
        Self::available().pop().unwrap_or(Self::Scalar)
    }

    /// Every instruction set that this processor has, worst first; never empty. Tests loop over it.
    pub fn available() -> Vec<Self> {
        ALL.into_iter().filter(|isa| isa.is_supported()).collect()
    }

    /// Whether this processor can run the kernels written for `self`.
    pub fn is_supported(self) -> bool {
        match self {
            Self::Scalar => true,
            Self::Neon => cfg!(target_arch = "aarch64"),
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => std::arch::is_aarch64_feature_detected!("dotprod"),
            #[cfg(not(target_arch = "aarch64"))]
            Self::NeonDot => false,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => Self::Avx2.is_supported() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_supported()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => Self::Avx512.is_supported() && is_x86_feature_detected!("avx512vnni"),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::AvxVnni | Self::Avx512 | Self::Avx512Vnni => false,
        }
    }

    /// `self`, or an error that lists what this processor has instead.
    pub fn require(self) -> Result<Self, IsaError> {
        if self.is_supported() {
            Ok(self)
        } else {
            Err(IsaError::Unavailable { wanted: self, available: Self::available() })
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            Self::Neon => "neon",
            Self::NeonDot => "neondot",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512vnni",
        })
    }
}

impl FromStr for Isa {
    type Err = IsaError;

    fn from_str(name: &str) -> Result<Self, IsaError> {
        match name.to_ascii_lowercase().as_str() {
            "scalar" => Ok(Self::Scalar),
            "neon" => Ok(Self::Neon),
            "neondot" => Ok(Self::NeonDot),
            "avx2" => Ok(Self::Avx2),
            "avxvnni" => Ok(Self::AvxVnni),
            "avx512" => Ok(Self::Avx512),
            "avx512vnni" => Ok(Self::Avx512Vnni),
            _ => Err(IsaError::Unknown(name.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detected_set_is_available_and_scalar_always_is() {
        assert!(Isa::available().contains(&Isa::detect()));
        assert!(Isa::available().contains(&Isa::Scalar));
    }

    #[test]
    fn names_parse_back() {
        for isa in ALL {
            assert_eq!(isa.to_string().parse(), Ok(isa));
        }
        assert_eq!("sse9".parse::<Isa>(), Err(IsaError::Unknown("sse9".into())));
    }

    #[test]
    fn an_absent_set_is_refused_with_those_present() {
        let absent = if cfg!(target_arch = "aarch64") { Isa::Avx2 } else { Isa::Neon };
        let message = absent.require().unwrap_err().to_string();
        assert!(message.contains(&absent.to_string()) && message.contains("scalar"), "{message}");
    }
}
