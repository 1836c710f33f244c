//! RIFF WAVE: 16-bit PCM.

use super::to_i16;

/// What stands for a length that isn't known yet: players then read until the end.
const UNKNOWN: u32 = u32::MAX;

pub(super) struct Wav {
    /// Until it is sent.
    header: Option<[u8; 44]>,
}

impl Wav {
    /// `samples`: how many will come, if that is known.
    pub fn new(rate: u32, samples: Option<usize>) -> Self {
        Self { header: Some(header(rate, samples)) }
    }

    /// The header goes out with the first samples, or alone.
    pub fn push(&mut self, samples: &[f32]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(44 + 2 * samples.len());
        bytes.extend(self.header.take().into_iter().flatten());
        bytes.extend(samples.iter().flat_map(|&sample| to_i16(sample).to_le_bytes()));
        bytes
    }
}

fn header(rate: u32, samples: Option<usize>) -> [u8; 44] {
    let length = samples.and_then(|samples| u32::try_from(2 * samples).ok());
    let data = length.unwrap_or(UNKNOWN);
    // Behind this field.
    let riff = length.and_then(|length| length.checked_add(36)).unwrap_or(UNKNOWN);
    let mut header = [0; 44];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        header[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(b"RIFF");
    put(&riff.to_le_bytes());
    put(b"WAVEfmt ");
    put(&16u32.to_le_bytes());
    put(&1u16.to_le_bytes()); // PCM
    put(&1u16.to_le_bytes()); // channels
    put(&rate.to_le_bytes());
    put(&rate.saturating_mul(2).to_le_bytes()); // bytes a second
    put(&2u16.to_le_bytes()); // bytes a frame
    put(&16u16.to_le_bytes()); // bits
    put(b"data");
    put(&data.to_le_bytes());
    header
}
