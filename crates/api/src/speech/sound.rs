//! From a file to the samples that a model hears.

use std::{
    io::{Read, Seek},
    sync::Arc,
    time::Duration,
};

use vllm_audio::{DecodeError, Limits, decode, resample};

/// A sound of which nothing is louder than this is silent: 80 dB below the loudest there can be.
const SILENCE: f32 = 1e-4;

/// A sound as a model hears it.
#[derive(Debug, Clone)]
pub struct Heard {
    /// One channel, at the model's rate.
    pub samples: Arc<[f32]>,
    /// How long it lasts.
    pub duration: Duration,
}

/// Why a file can't be heard.
#[derive(Debug, thiserror::Error)]
pub enum SoundError {
    /// It can't be decoded, or is too long.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// There is nothing to hear.
    #[error("the file has only silence in it: nothing is louder than -80 dB")]
    Silent,
}

/// Decodes a file of at most `longest` and brings it to `rate` samples a second. `hint`: its extension or content type. Blocks.
///
/// # Errors
/// [`SoundError`].
pub fn hear(
    file: impl Read + Seek + Send + Sync + 'static,
    hint: Option<&str>,
    longest: Duration,
    rate: u32,
) -> Result<Heard, SoundError> {
    let sound = decode(file, hint, &Limits { duration: longest, ..Limits::default() })?;
    if sound.samples.iter().all(|sample| sample.abs() < SILENCE) {
        return Err(SoundError::Silent);
    }
    let duration = sound.duration();
    Ok(Heard { samples: resample(sound, rate).samples.into(), duration })
}
