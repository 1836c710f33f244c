//! What is done with speech before and after a model: spectrograms, voice activity, which text a decoder wrote and when it was said,
//! subtitles; and, the other way, sentences and phonemes. No tensors, no engine.
#![forbid(unsafe_code)]

mod transcript;

pub mod mel;
pub mod phonemes;
pub mod sentences;
pub mod subtitles;
pub mod transducer;
pub mod vad;
pub mod voices;
pub mod wer;
pub mod whisper;

pub use transcript::{Segment, Transcript, Word};
