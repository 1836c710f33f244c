//! What Whisper's decoder is fed, what it may write, and what is made of it. The rules are openai-whisper's.
//!
//! Nothing here runs a model: a [`LongForm`] says which window of a sound is to be decoded next, a [`WindowDecoder`] which tokens to
//! feed; whoever drives them may drive many at once.

mod alignment;
mod decoder;
mod languages;
mod long_form;
mod options;
mod rules;
mod sampling;
mod segments;
#[cfg(test)]
mod tests;
mod vocabulary;
mod words;

pub use decoder::{Decoded, Feed, WindowDecoder, compression_ratio};
pub use languages::{language_code, language_name};
pub use long_form::{Ask, LongForm};
pub use options::{DecodingOptions, OptionError, Task};
pub use vocabulary::{Vocabulary, VocabularyError};
