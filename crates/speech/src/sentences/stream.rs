//! Sentences of a text that is still being written.

use super::{first_end, opening_end, said};

/// Collects pieces of a text and gives its sentences as soon as it is certain where they end: when the next one begins.
///
/// ```
/// let mut stream = vllm_speech::sentences::SentenceStream::new();
/// assert!(stream.push("Hello th").is_empty());
/// assert_eq!(stream.push("ere. How"), ["Hello there."]);
/// assert!(stream.push(" are you?").is_empty());
/// assert_eq!(stream.finish(), ["How are you?"]);
/// ```
#[derive(Debug, Default)]
pub struct SentenceStream {
    rest: String,
    /// Words before the end of a clause at which the first sentence may be cut; `None` once something was given.
    opening: Option<usize>,
}

impl SentenceStream {
    /// Whole sentences.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The first sentence may be cut where a clause ends, after at least so many words.
    #[must_use]
    pub fn with_opening(words: usize) -> Self {
        Self { rest: String::new(), opening: Some(words) }
    }

    /// Takes the next piece. Returns the sentences that have ended.
    pub fn push(&mut self, piece: &str) -> Vec<String> {
        self.rest.push_str(piece);
        self.ended(false)
    }

    fn ended(&mut self, whole: bool) -> Vec<String> {
        let mut sentences = Vec::new();
        while let Some(end) = self.next_end(whole) {
            let rest = self.rest.split_off(end);
            let sentence = std::mem::replace(&mut self.rest, rest);
            if let Some(sentence) = said(&sentence) {
                sentences.push(sentence.to_owned());
                self.opening = None;
            }
        }
        sentences
    }

    fn next_end(&self, whole: bool) -> Option<usize> {
        let end = first_end(&self.rest, whole);
        let Some(words) = self.opening else { return end };
        opening_end(&self.rest[..end.unwrap_or(self.rest.len())], words).or(end)
    }

    /// What is left, when no more comes.
    pub fn finish(mut self) -> Vec<String> {
        let mut sentences = self.ended(true);
        sentences.extend(said(&self.rest).map(str::to_owned));
        sentences
    }
}
