//! What was said, and when.

use vllm_platform::TokenId;

/// A word and when it was said.
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    /// As it stands in the segment's text, with the space before it and the punctuation around it.
    pub text: String,
    /// Seconds from the sound's beginning.
    pub start: f64,
    /// Seconds from the sound's beginning.
    pub end: f64,
    /// How probable its tokens were to the model, on average.
    pub probability: f32,
}

/// A stretch of a transcript that the model set apart: a sentence, a line of a subtitle.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Counted from 0 over the transcript.
    pub id: usize,
    /// Frame of the spectrogram at which the window began that it was heard in: 100 a second.
    pub seek: usize,
    /// Seconds from the sound's beginning.
    pub start: f64,
    /// Seconds from the sound's beginning.
    pub end: f64,
    /// As the model wrote it, most often with a space before it.
    pub text: String,
    /// The model's tokens, those of times included.
    pub tokens: Vec<TokenId>,
    /// Temperature at which its window was decoded.
    pub temperature: f32,
    /// Mean of the natural logarithms of its window's tokens' probabilities.
    pub avg_logprob: f32,
    /// How much smaller its window's text becomes when compressed: great where a decoder repeats itself.
    pub compression_ratio: f32,
    /// How probable it was to the model that nobody speaks in its window.
    pub no_speech_prob: f32,
    /// Its words; empty unless they were asked for.
    pub words: Vec<Word>,
}

impl Segment {
    /// Moves all of its times, for a segment that was heard in a part of a sound.
    pub fn map_times(&mut self, original: impl Fn(f64) -> f64) {
        self.start = original(self.start);
        self.end = original(self.end);
        for word in &mut self.words {
            word.start = original(word.start);
            word.end = original(word.end);
        }
    }
}

/// All that was said in a sound.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Transcript {
    /// Code of the language it was heard as; none where the model knows only one.
    pub language: Option<String>,
    /// Seconds of sound.
    pub duration: f64,
    /// In order of time.
    pub segments: Vec<Segment>,
}

impl Transcript {
    /// The whole text, without space around it.
    #[must_use]
    pub fn text(&self) -> String {
        let text: String = self.segments.iter().map(|segment| segment.text.as_str()).collect();
        text.trim().to_owned()
    }
}
