//! How precisely matmuls take activations.

use std::fmt;

/// What activations become for multiplication with packed weights ([`PackedMatrix`](crate::PackedMatrix), and
/// [`Taps`](crate::Taps), where the unit is a frame's instead of that of each 32). Chosen when a [`Pool`](crate::Pool) is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Activations {
    /// Integers of two signed bytes under a power of two for each 32: none moves by more than 3.1·10⁻⁵ of the largest of its 32.
    #[default]
    Int16,
    /// Integers of one signed byte under a scale for each 32, twice as fast where arithmetic is what takes time: none moves by
    /// more than 1/254 of the largest of its 32.
    Int8,
    /// As they are. Nothing is packed.
    F32,
}

impl fmt::Display for Activations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Int16 => "int16",
            Self::Int8 => "int8",
            Self::F32 => "f32",
        })
    }
}
