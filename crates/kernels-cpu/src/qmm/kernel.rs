//! What an instruction set contributes to matmuls of packed weights: a way to split activations, and a tile.

use super::packed::{LANES, Layout};
use crate::{Activations, Isa};

/// Most panels that a tile takes beside each other.
pub(super) const PANELS: usize = 2;
/// Most rows of `x` in a tile.
pub(super) const ROWS: usize = 6;

/// Results of a tile: for each row of `x` one number for each row of the panels.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Tile(pub [[f32; PANELS * LANES]; ROWS]);

impl Default for Tile {
    fn default() -> Self {
        Self([[0.0; PANELS * LANES]; ROWS])
    }
}

/// Panels of one matrix, each of `groups` groups.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a> {
    pub layout: &'a Layout,
    pub groups: usize,
    pub starts: [*const u32; PANELS],
}

/// Fills the rows of a tile for which it was chosen, for the first panels for which it was.
///
/// # Safety
/// The processor has the kernel's instruction set; the panels are there, in the layout for which it was chosen; `x` points to that
/// many rows of records of as many columns, made by the kernel's [`split`](Kernel::split), `row_len` words apart.
pub(super) type Multiply = unsafe fn(panels: Panels<'_>, x: *const u32, row_len: usize, out: &mut Tile);

/// Integer arithmetic of an instruction set.
pub(super) struct Kernel {
    /// Words of the record of a span.
    pub record_len: usize,
    /// Most rows of `x` in a tile, at most [`ROWS`].
    pub rows: usize,
    /// Panels in a tile of several rows, at most [`PANELS`].
    pub panels: usize,
    /// Makes records of a row of `x`. The processor must have the instruction set.
    pub split: unsafe fn(x: &[f32], out: &mut [u32]),
    /// The tile for that layout, so many rows of `x`, and so many panels: [`Self::panels`], or one where there is one row.
    pub multiply: fn(layout: &Layout, rows: usize, panels: usize) -> Multiply,
}

impl Kernel {
    /// The one that matmuls of packed weights use; none where weights are not packed.
    pub fn of(isa: Isa, activations: Activations) -> Option<&'static Self> {
        match (isa, activations) {
            (_, Activations::F32) => None,
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512Vnni, Activations::Int16) => Some(&super::vnni::TWO_DIGITS),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512Vnni, Activations::Int8) => Some(&super::vnni::ONE_DIGIT),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2 | Isa::Avx512, Activations::Int16) => Some(&super::avx2::PAIRS),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2 | Isa::Avx512, Activations::Int8) => Some(&super::avx2::BYTES),
            #[cfg(target_arch = "x86_64")]
            (Isa::AvxVnni, Activations::Int16) => Some(&super::avx2::VNNI_PAIRS),
            #[cfg(target_arch = "x86_64")]
            (Isa::AvxVnni, Activations::Int8) => Some(&super::avx2::VNNI_BYTES),
            #[cfg(target_arch = "aarch64")]
            (Isa::NeonDot, Activations::Int16) => Some(&super::neon::TWO_DIGITS),
            #[cfg(target_arch = "aarch64")]
            (Isa::NeonDot, Activations::Int8) => Some(&super::neon::ONE_DIGIT),
            _ => None,
        }
    }
}
