//! Decoding a sound of any length: window after window, each beginning where the last one's text ended.

use std::sync::Arc;

use vllm_platform::{ListenerInfo, TokenId};
use vllm_text::TextError;

use super::segments::{FRAMES_PER_SECOND, Window, cut};
use super::words::{Alignment, WordTimes, align, seconds_of, time_segments};
use super::{Decoded, DecodingOptions, Vocabulary, WindowDecoder};
use crate::transcript::Segment;

/// What a [`LongForm`] wants done next.
#[derive(Debug, Clone)]
pub enum Ask {
    /// A window is to be decoded, and [`LongForm::decoded`] to be told.
    Decode {
        /// First of its frames in the sound's spectrogram.
        seek: usize,
        /// How many of its frames there are; the rest of the window is filled with zeros.
        frames: usize,
        /// Decodes it.
        decoder: Box<WindowDecoder>,
    },
    /// Words of the window just decoded are to be found in it, and [`LongForm::aligned`] to be told.
    Align {
        /// A whole text about the window, for [`Listener::alignment`](vllm_platform::Listener::alignment).
        tokens: Vec<TokenId>,
        /// How many of `tokens`, from the first, make a text of its own to be fed at once…
        fed: usize,
        /// …and for how many of the last of these logits are wanted.
        logits: usize,
    },
    /// Nothing any more.
    Done,
}

/// The state of a sound's decoding.
///
/// ```text
/// loop {
///     match long.next() {
///         Ask::Decode { seek, frames, decoder } => { …decode…; emit(long.decoded(decoder.finish())) }
///         Ask::Align { tokens, fed, logits } => { …; emit(long.aligned(&weights, &logits)) }
///         Ask::Done => break,
///     }
/// }
/// ```
#[derive(Debug, Clone)]
pub struct LongForm {
    vocabulary: Arc<Vocabulary>,
    options: Arc<DecodingOptions>,
    language: Option<&'static str>,
    /// Frames of the sound, without what was added behind it.
    content_frames: usize,
    window_frames: usize,
    encoded_frames: usize,
    max_text_len: usize,
    seek: usize,
    /// Windows decoded so far.
    windows: usize,
    /// Tokens of the prompt, then of all segments.
    tokens: Vec<TokenId>,
    /// Tokens before this are not the next window's prompt.
    prompt_since: usize,
    segments: usize,
    last_speech: f64,
    /// A window that waits for the times of its words.
    waiting: Option<Waiting>,
}

/// A window whose words are looked for.
#[derive(Debug, Clone)]
struct Waiting {
    window: Window,
    text: Vec<TokenId>,
    temperature: f32,
}

impl LongForm {
    /// Begins. `language`: as [`Vocabulary::check`] or [`Vocabulary::detect_language`] say; `content_frames`: frames of the sound
    /// itself.
    ///
    /// # Errors
    /// [`TextError`] if the options' prompt cannot be encoded.
    pub fn new(
        vocabulary: Arc<Vocabulary>,
        options: Arc<DecodingOptions>,
        language: Option<&'static str>,
        content_frames: usize,
        listener: &ListenerInfo,
    ) -> Result<Self, TextError> {
        let tokens = match options.prompt.as_deref().map(str::trim) {
            None | Some("") => vec![],
            Some(prompt) => vocabulary.encode_prompt(prompt)?,
        };
        Ok(Self {
            vocabulary,
            options,
            language,
            content_frames,
            window_frames: listener.window_frames,
            encoded_frames: listener.encoded_frames,
            max_text_len: listener.max_text_len,
            seek: 0,
            windows: 0,
            tokens,
            prompt_since: 0,
            segments: 0,
            last_speech: 0.0,
            waiting: None,
        })
    }

    /// What is to be done next: the same until it was told of.
    #[must_use]
    pub fn next(&self) -> Ask {
        if let Some(waiting) = &self.waiting {
            let Alignment { tokens, fed, logits } =
                Alignment::of(&self.vocabulary, self.options.task, self.language, &waiting.text);
            return Ask::Align { tokens, fed, logits };
        }
        if self.seek >= self.content_frames {
            return Ask::Done;
        }
        let decoder = WindowDecoder::new(
            Arc::clone(&self.vocabulary),
            Arc::clone(&self.options),
            self.language,
            &self.tokens[self.prompt_since..],
            self.max_text_len,
            // Windows of one sound differ in their luck.
            self.options.seed.wrapping_add((self.windows as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        );
        Ask::Decode { seek: self.seek, frames: self.frames(), decoder: Box::new(decoder) }
    }

    fn frames(&self) -> usize {
        self.window_frames.min(self.content_frames - self.seek)
    }

    /// Frames that are done with, of the sound's.
    #[must_use]
    pub fn progress(&self) -> usize {
        self.seek.min(self.content_frames)
    }

    /// Takes what was decoded from the window that [`next`](Self::next) asked for: its segments, or none yet if their words are to be
    /// found first.
    pub fn decoded(&mut self, decoded: Decoded) -> Vec<Segment> {
        if self.seek >= self.content_frames || self.waiting.is_some() {
            return vec![];
        }
        self.windows += 1;
        if is_silent(&decoded, &self.options) {
            self.seek += self.frames();
            return vec![];
        }
        let window =
            cut(&self.vocabulary, &decoded, self.seek, self.frames(), self.window_frames / self.encoded_frames);
        if self.options.word_timestamps {
            let tokens = window.segments.iter().flat_map(|segment| &segment.tokens).copied();
            let text: Vec<TokenId> = tokens.filter(|&token| token < self.vocabulary.eot).collect();
            let waiting = Waiting { window, text, temperature: decoded.temperature };
            if waiting.text.is_empty() {
                return self.timed(waiting, vec![]);
            }
            self.waiting = Some(waiting);
            return vec![];
        }
        self.seek = window.next_seek.max(self.seek + 1);
        self.emit(window.segments, decoded.temperature)
    }

    /// Takes what the alignment heads attend to, [heads, tokens, places] as
    /// [`Listener::alignment`](vllm_platform::Listener::alignment) gives it, and the logits [logits, vocab] of what
    /// [`next`](Self::next) asked to feed: the window's segments, with words.
    pub fn aligned(&mut self, weights: &[f32], logits: &[f32]) -> Vec<Segment> {
        let Some(waiting) = self.waiting.take() else { return vec![] };
        let start = self.vocabulary.start(self.options.task, self.language).len();
        let frames = self.frames() / (self.window_frames / self.encoded_frames);
        let words =
            align(&self.vocabulary, self.language, &waiting.text, start, weights, self.encoded_frames, frames, logits);
        self.timed(waiting, words)
    }

    /// A window's segments, whose words are these.
    fn timed(&mut self, waiting: Waiting, words: Vec<WordTimes>) -> Vec<Segment> {
        let Waiting { mut window, temperature, .. } = waiting;
        let offset = seconds_of(self.seek);
        time_segments(&self.vocabulary, &mut window.segments, words, offset, self.last_speech);
        let mut next_seek = window.next_seek;
        let last_word = window.segments.iter().rev().flat_map(|segment| segment.words.last()).next();
        let last_end = last_word.map(|word| word.end).or_else(|| window.segments.last().map(|segment| segment.end));
        if let Some(end) = last_end {
            if !window.ends_in_silence && end > offset {
                next_seek = (end * FRAMES_PER_SECOND).round_ties_even() as usize;
            }
            self.last_speech = end;
        }
        self.seek = next_seek.max(self.seek + 1);
        self.emit(window.segments, temperature)
    }

    /// Leaves out segments without text or length, numbers the others, and remembers their tokens.
    fn emit(&mut self, mut segments: Vec<Segment>, temperature: f32) -> Vec<Segment> {
        segments.retain(|segment| segment.start != segment.end && !segment.text.trim().is_empty());
        for segment in &mut segments {
            segment.id = self.segments;
            self.segments += 1;
            self.tokens.extend(&segment.tokens);
        }
        // What was written at a high temperature may be wrong: the next window is not to go on with it.
        if !self.options.condition_on_previous_text || temperature > 0.5 {
            self.prompt_since = self.tokens.len();
        }
        segments
    }
}

/// Whether nobody speaks in a window: the model says so, and its text is no better than guessed.
fn is_silent(decoded: &Decoded, options: &DecodingOptions) -> bool {
    let silent = options.no_speech_threshold.is_some_and(|most| decoded.no_speech_prob > most);
    let sure = options.logprob_threshold.is_some_and(|least| decoded.avg_logprob > least);
    silent && !sure
}
