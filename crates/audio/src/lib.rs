//! Sound files: bytes to samples and samples to bytes. No models, and no idea of what is said.
//!
//! *Invariant*: whatever the bytes, the result is samples within the limits or an error that says what is wrong with them.
#![forbid(unsafe_code)]

/// One channel of sound, as every model here takes and gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sound {
    /// Samples, usually within −1 to 1.
    pub samples: Vec<f32>,
    /// Samples a second.
    pub rate: u32,
}
