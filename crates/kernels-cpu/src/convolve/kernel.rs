//! What an instruction set contributes to convolutions in integers: a tile.

use super::packed::LANES;
use crate::{Activations, Isa};

/// Most rows of a tile.
pub(super) const ROWS: usize = 12;
/// Most panels of a tile.
pub(super) const PANELS: usize = 2;

/// What activations and weights are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbers {
    /// Both i16, two a word.
    Pairs,
    /// Weights i8, activations u8 that have 128 added.
    Unsigned,
    /// Both i8.
    #[cfg_attr(not(target_arch = "aarch64"), expect(dead_code, reason = "Arm's"))]
    Signed,
}

impl Numbers {
    /// Channels in a word.
    pub fn per_word(self) -> usize {
        if self == Self::Pairs { 2 } else { 4 }
    }
}

/// Results of a tile: for each row one number for each output of the panels, to be multiplied by the output's unit.
#[repr(align(64))]
pub(super) struct Tile(pub [[f32; PANELS * LANES]; ROWS]);

/// What a tile reads.
#[derive(Clone, Copy)]
pub(super) struct Reads {
    /// The first panel, and the words from one to the next.
    pub panel: *const u32,
    pub panel_words: usize,
    /// The row of activations under the first tap of the first result.
    pub x: *const u32,
    /// Units of the rows from that one on.
    pub units: *const f32,
    /// Words of a row.
    pub row_words: usize,
    /// Rows from one result to the next.
    pub stride: usize,
    /// Rows from one tap to the next.
    pub dilation: usize,
    pub taps: usize,
    pub segments: usize,
    pub segment_words: usize,
}

/// Fills the rows of a tile for which it was chosen.
///
/// # Safety
/// The processor has the kernel's instruction set, and all that `reads` speaks of is there: the panels, in the layout of
/// [`super::packed`], and the rows with their units.
pub(super) type Multiply = unsafe fn(reads: &Reads, out: &mut Tile);

/// Integer arithmetic of an instruction set.
pub(super) struct Kernel {
    pub numbers: Numbers,
    /// Panels that a tile takes beside each other, at most [`PANELS`].
    pub panels: usize,
    /// Tiles by their number of rows, the largest first; the last has one.
    pub tiles: &'static [(usize, Multiply)],
}

impl Kernel {
    /// The one that convolutions use; none where they stay in f32.
    pub fn of(isa: Isa, activations: Activations) -> Option<&'static Self> {
        match (isa, activations) {
            (_, Activations::F32) => None,
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512Vnni, Activations::Int16) => Some(&super::x86::VNNI_PAIRS),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512Vnni, Activations::Int8) => Some(&super::x86::VNNI_BYTES),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512, _) => Some(&super::x86::WIDE_PAIRS),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, _) => Some(&super::x86::PAIRS),
            #[cfg(target_arch = "x86_64")]
            (Isa::AvxVnni, Activations::Int16) => Some(&super::x86::AVX_VNNI_PAIRS),
            #[cfg(target_arch = "x86_64")]
            (Isa::AvxVnni, Activations::Int8) => Some(&super::x86::AVX_VNNI_BYTES),
            #[cfg(target_arch = "aarch64")]
            (Isa::NeonDot, Activations::Int8) => Some(&super::neon::BYTES),
            _ => None,
        }
    }
}
