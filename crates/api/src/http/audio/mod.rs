//! `/v1/audio`: speech to text and text to speech.
//!
//! ```text
//! form → Upload (a file without a name) → decoded, resampled → TranscriptionHandle → segments → JSON, subtitles or SSE
//! JSON → sentences → phonemes → SynthesisHandle → samples, utterance by utterance → Encoder → bytes or SSE
//! ```

mod errors;
mod form;
mod models;
mod speech;
mod speech_request;
mod speech_stream;
pub mod transcript_json;
mod transcript_stream;
mod transcription_request;
mod transcriptions;
mod upload;
mod voices;

use std::time::Duration;

pub use models::{SpeechModels, entry, other_route, status_of_speaker, status_of_transcriber};
pub(super) use speech::create as speech;
pub(super) use transcriptions::{transcribe, translate};
pub(super) use voices::list as voices;

/// Bounds of requests with sound in or out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioLimits {
    /// Longest file to transcribe, in bytes.
    pub upload_bytes: u64,
    /// Longest sound to transcribe.
    pub duration: Duration,
    /// Longest text to speak, in characters.
    pub input_chars: usize,
}

impl Default for AudioLimits {
    fn default() -> Self {
        Self { upload_bytes: 25 << 20, duration: Duration::from_secs(1800), input_chars: 4096 }
    }
}
