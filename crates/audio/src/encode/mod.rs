//! Samples to bytes, as they come.

mod flac;
mod mp3;
mod opus;
mod wav;

use crate::{Format, Resampler, Sound, resample};

/// Why samples can't be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A rate of 0, or beyond what the format can have.
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
///
/// ```
/// use vllm_audio::{Encoder, Format};
///
/// let mut encoder = Encoder::new(Format::Wav, 24_000)?;
/// let mut sent = encoder.push(&[0.0, 0.5])?;
/// sent.extend(encoder.push(&[-0.5])?);
/// sent.extend(encoder.finish()?);
/// assert_eq!(sent.len(), 44 + 3 * 2);
/// # Ok::<(), vllm_audio::EncodeError>(())
/// ```
pub struct Encoder {
    /// To a rate that the format has.
    resampler: Option<Resampler>,
    inner: Inner,
}

enum Inner {
    Wav(wav::Wav),
    Mp3(Box<mp3::Mp3>),
    Flac(Box<flac::Flac>),
    Opus(Box<opus::Opus>),
    Pcm,
}

impl Encoder {
    /// A stream of unknown length: what is written first can't say how much will follow, and doesn't. MP3 and Opus have but some
    /// rates: others become the next higher one, or 48 kHz.
    ///
    /// # Errors
    /// [`EncodeError::Rate`].
    pub fn new(format: Format, rate: u32) -> Result<Self, EncodeError> {
        Self::of(format, rate, None)
    }

    /// A whole file, its header telling its length.
    ///
    /// # Errors
    /// As [`new`](Self::new) and [`push`](Self::push).
    pub fn whole(format: Format, sound: &Sound) -> Result<Vec<u8>, EncodeError> {
        let mut encoder = Self::of(format, sound.rate, Some(sound.samples.len()))?;
        if format == Format::Mp3 && !sound.samples.is_empty() {
            check(&sound.samples)?;
            return match written_at(format, sound.rate)? {
                rate if rate == sound.rate => mp3::whole(&sound.samples, rate),
                rate => mp3::whole(&resample(sound.clone(), rate).samples, rate),
            };
        }
        let mut bytes = encoder.push(&sound.samples)?;
        bytes.extend(encoder.finish()?);
        Ok(bytes)
    }

    fn of(format: Format, rate: u32, samples: Option<usize>) -> Result<Self, EncodeError> {
        let written = written_at(format, rate)?;
        let inner = match format {
            Format::Wav => Inner::Wav(wav::Wav::new(rate, samples)),
            Format::Mp3 => Inner::Mp3(Box::new(mp3::Mp3::new(written)?)),
            Format::Flac => Inner::Flac(Box::new(flac::Flac::new(rate, samples)?)),
            Format::Opus => Inner::Opus(Box::new(opus::Opus::new(written)?)),
            Format::Pcm => Inner::Pcm,
        };
        Ok(Self { resampler: (rate != written).then(|| Resampler::new(rate, written)), inner })
    }

    /// Takes samples and gives the bytes that are ready: they can be sent at once. What is beyond ±1 is clipped.
    ///
    /// # Errors
    /// [`EncodeError::NotFinite`], and then none of the samples are taken; [`EncodeError::Failed`].
    pub fn push(&mut self, samples: &[f32]) -> Result<Vec<u8>, EncodeError> {
        check(samples)?;
        match &mut self.resampler {
            Some(resampler) => self.inner.push(&resampler.push(samples)),
            None => self.inner.push(samples),
        }
    }

    /// The last bytes.
    ///
    /// # Errors
    /// [`EncodeError::Failed`].
    pub fn finish(mut self) -> Result<Vec<u8>, EncodeError> {
        let mut bytes = match self.resampler {
            Some(resampler) => self.inner.push(&resampler.finish())?,
            None => Vec::new(),
        };
        bytes.extend(self.inner.finish()?);
        Ok(bytes)
    }
}

impl Inner {
    fn push(&mut self, samples: &[f32]) -> Result<Vec<u8>, EncodeError> {
        match self {
            Self::Wav(wav) => Ok(wav.push(samples)),
            Self::Mp3(mp3) => mp3.push(samples),
            Self::Flac(flac) => flac.push(samples),
            Self::Opus(opus) => opus.push(samples),
            Self::Pcm => Ok(samples.iter().flat_map(|&sample| to_i16(sample).to_le_bytes()).collect()),
        }
    }

    fn finish(self) -> Result<Vec<u8>, EncodeError> {
        match self {
            Self::Wav(mut wav) => Ok(wav.push(&[])),
            Self::Mp3(mp3) => mp3.finish(),
            Self::Flac(flac) => flac.finish(),
            Self::Opus(opus) => opus.finish(),
            Self::Pcm => Ok(Vec::new()),
        }
    }
}

/// The rate that a sound of this rate is written at.
fn written_at(format: Format, rate: u32) -> Result<u32, EncodeError> {
    let most = if format == Format::Flac { flac::FASTEST } else { u32::MAX };
    if rate == 0 || rate > most {
        return Err(EncodeError::Rate { format, rate });
    }
    let rates: &[u32] = match format {
        Format::Mp3 => &mp3::RATES,
        Format::Opus => &opus::RATES,
        Format::Wav | Format::Flac | Format::Pcm => return Ok(rate),
    };
    Ok(rates.iter().copied().find(|&there| there >= rate).unwrap_or(48_000))
}

fn check(samples: &[f32]) -> Result<(), EncodeError> {
    if samples.iter().all(|sample| sample.is_finite()) { Ok(()) } else { Err(EncodeError::NotFinite) }
}

/// 16 bits, such that decoding (a division by 32768) gives back what was read from 16 bits.
fn to_i16(sample: f32) -> i16 {
    (sample * 32768.0).round().clamp(-32768.0, 32767.0) as i16
}
