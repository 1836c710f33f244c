//! Sound files: bytes to samples and samples to bytes. No models, and no idea of what is said.
//!
//! *Invariant*: whatever the bytes, the result is samples within the limits or an error that says what is wrong with them.
#![forbid(unsafe_code)]

mod decode;
mod encode;
mod format;
mod resample;

pub use decode::{DecodeError, Limits, decode, decode_at};
pub use encode::{EncodeError, Encoder};
pub use format::{Format, UnknownFormat};
pub use resample::{Resampler, resample};

use std::time::Duration;

/// One channel of sound, as every model here takes and gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sound {
    /// Samples, usually within −1 to 1.
    pub samples: Vec<f32>,
    /// Samples a second.
    pub rate: u32,
}

impl Sound {
    /// How long it lasts.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.samples.len() as f64 / f64::from(self.rate))
    }
}
