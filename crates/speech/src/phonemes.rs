//! From text to the phonemes that Kokoro speaks.

mod language;

pub use self::language::Language;
