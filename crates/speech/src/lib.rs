//! What is done with speech before and after a model: spectrograms, voice activity, which text a decoder wrote and when it was said,
//! subtitles; and, the other way, sentences and phonemes. No tensors, no engine.
#![forbid(unsafe_code)]

pub mod phonemes;
pub mod sentences;
pub mod voices;
pub mod wer;
