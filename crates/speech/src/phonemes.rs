//! From text to the phonemes that Kokoro speaks.
//!
//! English as misaki does it, which Kokoro was trained with, and words that no dictionary has by rules; other languages by the program
//! espeak-ng, if it is installed. `[word](/phonemes/)` in a text says how a word is spoken.

mod english;
mod espeak;
mod language;
mod letters;
mod spoken;
mod symbols;

use crate::sentences;

pub use self::{language::Language, symbols::symbols};

/// Why a text has no phonemes.
#[derive(Debug, thiserror::Error)]
pub enum PhonemeError {
    /// Nothing of the text can be said.
    #[error("nothing in the text can be said aloud")]
    Nothing,
    /// The program for the language isn't there.
    #[error(
        "{} is spoken with the help of the program espeak-ng, which is not installed: install it (Debian: apt install espeak-ng, macOS: \
         brew install espeak-ng), or choose an English voice", .0.name()
    )]
    NotInstalled(Language),
    /// espeak-ng can't read the script.
    #[error("espeak-ng cannot read this in {}: {text:?}. Write it in kana or say how it is spoken: [word](/phonemes/)", .language.name())]
    Unreadable {
        /// The language.
        language: Language,
        /// What it can't read.
        text: String,
    },
    /// espeak-ng failed.
    #[error("espeak-ng failed: {0}")]
    Espeak(String),
    /// A phoneme that the model hasn't learnt.
    #[error("the model doesn't know the phoneme {phoneme:?} (in {phonemes:?})")]
    Unknown {
        /// The phoneme.
        phoneme: char,
        /// Where it stands.
        phonemes: String,
    },
    /// No cut makes it short enough.
    #[error("{0:?} is too long for one utterance and cannot be cut")]
    TooLong(String),
}

/// Finds the phonemes of texts in a language. Cheap to make: dictionaries are read at the first use in the process, or by
/// [`prepare`](Self::prepare).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phonemizer {
    language: Language,
}

/// A part of a text that is spoken in one breath.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spoken {
    /// The text.
    pub text: String,
    /// Its phonemes.
    pub phonemes: String,
}

impl Phonemizer {
    /// For a language.
    #[must_use]
    pub const fn new(language: Language) -> Self {
        Self { language }
    }

    /// Which language.
    #[must_use]
    pub const fn language(&self) -> Language {
        self.language
    }

    /// Reads the dictionaries (a second or so, 100 MB), or looks for the program, so that the first text needn't wait.
    ///
    /// # Errors
    /// [`PhonemeError::NotInstalled`].
    pub fn prepare(&self) -> Result<(), PhonemeError> {
        match self.language {
            Language::AmericanEnglish | Language::BritishEnglish => {
                english::Reader::of(self.language);
                Ok(())
            }
            other => espeak::look(other),
        }
    }

    /// The phonemes of a text, with its punctuation, in Kokoro's alphabet.
    ///
    /// # Errors
    /// [`PhonemeError::Nothing`] if nothing in it can be said; for languages other than English if espeak-ng is missing or fails.
    pub fn phonemes(&self, text: &str) -> Result<String, PhonemeError> {
        let phonemes = match self.language {
            Language::AmericanEnglish | Language::BritishEnglish => english::Reader::of(self.language).read(text),
            other => espeak::read(other, text)?,
        };
        let phonemes = phonemes.split_whitespace().collect::<Vec<_>>().join(" ");
        if phonemes.chars().any(char::is_alphabetic) { Ok(phonemes) } else { Err(PhonemeError::Nothing) }
    }

    /// The phonemes of a sentence, cut where that makes more than `longest` of them: at ends of clauses, or between words.
    ///
    /// # Errors
    /// As [`phonemes`](Self::phonemes); parts in which nothing can be said are left out if another part can.
    pub fn within(&self, sentence: &str, longest: usize) -> Result<Vec<Spoken>, PhonemeError> {
        let phonemes = self.phonemes(sentence)?;
        if phonemes.chars().count() <= longest {
            return Ok(vec![Spoken { text: sentence.to_owned(), phonemes }]);
        }
        let too_long = || PhonemeError::TooLong(sentence.chars().take(80).collect());
        let (left, right) = sentences::halves(sentence).ok_or_else(too_long)?;
        let mut parts = Vec::new();
        for half in [left, right] {
            match self.within(half, longest) {
                Ok(spoken) => parts.extend(spoken),
                Err(PhonemeError::Nothing) => {}
                Err(error) => return Err(error),
            }
        }
        if parts.is_empty() { Err(PhonemeError::Nothing) } else { Ok(parts) }
    }
}

#[cfg(test)]
mod tests;
