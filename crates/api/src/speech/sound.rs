//! From a file to the samples that a model hears.

use std::{
    io::{Read, Seek},
    sync::Arc,
    time::Duration,
};

use vllm_audio::{DecodeError, Limits, decode, resample};

/// A sound as a model hears it.
#[derive(Debug, Clone)]
pub struct Heard {
    /// One channel, at the model's rate.
    pub samples: Arc<[f32]>,
    /// How long it lasts.
    pub duration: Duration,
}

/// Decodes a file of at most `longest` and brings it to `rate` samples a second. `hint`: its extension or content type. Blocks.
///
/// # Errors
/// [`DecodeError`]: all but one of its kinds are the file's fault.
pub fn hear(
    file: impl Read + Seek + Send + Sync + 'static,
    hint: Option<&str>,
    longest: Duration,
    rate: u32,
) -> Result<Heard, DecodeError> {
    let sound = decode(file, hint, &Limits { duration: longest, ..Limits::default() })?;
    let duration = sound.duration();
    Ok(Heard { samples: resample(sound, rate).samples.into(), duration })
}
