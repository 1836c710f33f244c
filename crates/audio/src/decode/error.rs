//! Why bytes are no sound.

use std::{io, time::Duration};

/// Why a file can't be heard. All but [`Io`](Self::Io) are the file's fault.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// No bytes, or a sound file without one sample.
    #[error("the audio file is empty")]
    Empty,
    /// No format that is known here.
    #[error("not an audio file, or of a format that isn't read here (wav, mp3, flac, ogg, opus, m4a, webm are)")]
    NotAudio,
    /// A container with no sound in it, such as a video without any.
    #[error("the file has no audio track")]
    NoTrack,
    /// Less than the file itself says there is.
    #[error("the audio file is truncated: {found:.2} s of the {stated:.2} s that it states")]
    Truncated {
        /// Seconds that are there.
        found: f64,
        /// Seconds that the file says it has.
        stated: f64,
    },
    /// It begins like a known format and goes on as something else.
    #[error("the audio file is damaged: {0}")]
    Damaged(String),
    /// NaN, infinity, or a sample far beyond anything that could be meant.
    #[error("the audio holds a sample of {value}, {at:.2} s from its beginning")]
    NotFinite {
        /// The sample.
        value: f32,
        /// Seconds from the beginning.
        at: f64,
    },
    /// Never louder than −80 dB of full scale.
    #[error("the audio holds only silence")]
    Silent,
    /// More than [`Limits::duration`](super::Limits::duration).
    #[error("the audio is too long: at most {} s are allowed", .limit.as_secs_f64())]
    TooLong {
        /// The longest allowed.
        limit: Duration,
    },
    /// A known container with a codec, rate or number of channels that isn't read here.
    #[error("{0}")]
    Unsupported(String),
    /// The source couldn't be read.
    #[error("the audio couldn't be read: {0}")]
    Io(#[from] io::Error),
}
