//! How much sound a file may hold.

use std::{ops::RangeInclusive, time::Duration};

/// What a file may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The longest sound. What is longer is refused when its header says so, or else as soon as that much has been decoded.
    pub duration: Duration,
    /// The most channels, before they are mixed down.
    pub channels: usize,
    /// Samples a second.
    pub rates: RangeInclusive<u32>,
}

impl Default for Limits {
    /// Half an hour (110 MB of samples at 16 kHz), 16 channels, 1 to 768 kHz.
    fn default() -> Self {
        Self { duration: Duration::from_secs(30 * 60), channels: 16, rates: 1_000..=768_000 }
    }
}
