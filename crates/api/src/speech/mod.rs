//! Models that hear and models that speak, as they are served: by HTTP, and by the commands.

mod aliases;
mod load;
mod sound;
mod speaker;
mod transcriber;
mod vad;

use std::time::{SystemTime, UNIX_EPOCH};

pub use load::{SpeechRole, SpeechSpec, load_speaker, load_transcriber};
pub use sound::{Heard, hear};
pub use speaker::{Plan, ServedSpeaker, SpeakError, Speaking};
pub use transcriber::{Listening, ListeningError, ServedTranscriber, Transcribed, collect};
pub use vad::load_vad;

/// In seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
