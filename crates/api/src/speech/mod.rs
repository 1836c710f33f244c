//! Models that hear and models that speak, as they are served: by HTTP, and by the commands.

mod aliases;
mod load;
mod sound;
mod speaker;
mod transcriber;
mod vad;

pub use load::{SpeechRole, SpeechSpec, load_speaker, load_transcriber};
pub use sound::{Heard, SoundError, hear};
pub use speaker::{Plan, ServedSpeaker, SpeakError, Speaking};
pub use transcriber::{Listening, ListeningError, ServedTranscriber, collect};
pub use vad::load_vad;
