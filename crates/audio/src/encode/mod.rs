//! Samples to bytes, as they come.

mod wav;

use crate::{Format, Sound};

/// Why samples can't be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A rate that the format doesn't have.
    #[error("{format} can't have {rate} samples a second")]
    Rate {
        /// The format.
        format: Format,
        /// Samples a second.
        rate: u32,
    },
    /// NaN or infinity among the samples.
    #[error("a sample to be written isn't a number")]
    NotFinite,
    /// What the format's encoder says.
    #[error("{format} can't be written: {reason}")]
    Failed {
        /// The format.
        format: Format,
        /// Why.
        reason: String,
    },
}

/// Writes one channel of sound, piece by piece.
pub struct Encoder {
    inner: Inner,
}

enum Inner {
    Wav(wav::Wav),
    Pcm,
}

impl Encoder {
    /// A stream of unknown length.
    ///
    /// # Errors
    /// [`EncodeError::Rate`].
    pub fn new(format: Format, rate: u32) -> Result<Self, EncodeError> {
        let inner = match format {
            Format::Wav => Inner::Wav(wav::Wav::new(rate, None)),
            Format::Pcm => Inner::Pcm,
            _ => return Err(EncodeError::Failed { format, reason: "no encoder".into() }),
        };
        Ok(Self { inner })
    }

    /// A whole file, its header telling its length.
    ///
    /// # Errors
    /// As [`new`](Self::new) and [`push`](Self::push).
    pub fn whole(format: Format, sound: &Sound) -> Result<Vec<u8>, EncodeError> {
        let mut encoder = Self::new(format, sound.rate)?;
        if let Inner::Wav(wav) = &mut encoder.inner {
            *wav = wav::Wav::new(sound.rate, Some(sound.samples.len()));
        }
        let mut bytes = encoder.push(&sound.samples)?;
        bytes.extend(encoder.finish()?);
        Ok(bytes)
    }

    /// Takes samples and gives the bytes that are ready: they can be sent at once. What is beyond ±1 is clipped.
    ///
    /// # Errors
    /// [`EncodeError::NotFinite`].
    pub fn push(&mut self, samples: &[f32]) -> Result<Vec<u8>, EncodeError> {
        if samples.iter().any(|sample| !sample.is_finite()) {
            return Err(EncodeError::NotFinite);
        }
        match &mut self.inner {
            Inner::Wav(wav) => Ok(wav.push(samples)),
            Inner::Pcm => Ok(samples.iter().flat_map(|&sample| to_i16(sample).to_le_bytes()).collect()),
        }
    }

    /// The last bytes.
    ///
    /// # Errors
    /// [`EncodeError::Failed`].
    pub fn finish(self) -> Result<Vec<u8>, EncodeError> {
        match self.inner {
            Inner::Wav(mut wav) => Ok(wav.push(&[])),
            Inner::Pcm => Ok(Vec::new()),
        }
    }
}

/// 16 bits, such that decoding (a division by 32768) gives back what was read from 16 bits.
fn to_i16(sample: f32) -> i16 {
    (sample * 32768.0).round().clamp(-32768.0, 32767.0) as i16
}
