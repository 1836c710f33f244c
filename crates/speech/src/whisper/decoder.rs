//! Decoding one window: which tokens to feed, what the logits say, and when the text is good enough.

use std::sync::Arc;

use vllm_platform::TokenId;
use zlib_rs::{DeflateConfig, compress_bound, compress_slice};

use super::rules::{Rules, log_sum_exp};
use super::sampling::{Random, choose};
use super::{DecodingOptions, Vocabulary};

/// Tokens to feed to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feed<'a> {
    /// Whether they begin a text: the one before, if any, is to be ended, and another begun about the same window.
    pub begins: bool,
    /// The next tokens.
    pub tokens: &'a [TokenId],
    /// For how many of the last of them logits are wanted.
    pub logits: usize,
}

/// What was decoded from a window.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// What was written, times included, without prompt and end.
    pub tokens: Vec<TokenId>,
    /// Mean of the natural logarithms of the tokens' probabilities, the end's included.
    pub avg_logprob: f32,
    /// How probable it is that nobody speaks in the window.
    pub no_speech_prob: f32,
    /// Temperature of the last attempt, the one that was taken.
    pub temperature: f32,
    /// How much smaller the text becomes when compressed.
    pub compression_ratio: f32,
}

/// A window's decoding, attempt by attempt, up the ladder of temperatures.
///
/// ```text
/// while let Some(feed) = decoder.feed() { let mut logits = model.step(feed); decoder.take(&mut logits) }
/// let decoded = decoder.finish()
/// ```
#[derive(Debug, Clone)]
pub struct WindowDecoder {
    vocabulary: Arc<Vocabulary>,
    options: Arc<DecodingOptions>,
    /// The prompt, and what a transcript begins with.
    initial: Vec<TokenId>,
    /// Where in `initial` the transcript starts.
    sot_index: usize,
    /// Longest text, in tokens; half of it may be prompt.
    max_text_len: usize,
    random: Random,
    /// Index of the temperature that is being tried.
    attempt: usize,
    /// `initial` and what was written after it.
    tokens: Vec<TokenId>,
    sum_logprobs: f32,
    no_speech_prob: f32,
    decoded: Option<Decoded>,
}

impl WindowDecoder {
    /// A window's decoding. `previous`: tokens of the text before it, of which the last are its prompt; `language`: a code of the
    /// vocabulary's, none if it knows English only; `max_text_len`: as
    /// [`ListenerInfo::max_text_len`](vllm_platform::ListenerInfo::max_text_len); `seed`: of this window.
    ///
    /// The options are expected to have passed [`Vocabulary::check`].
    #[must_use]
    pub fn new(
        vocabulary: Arc<Vocabulary>,
        options: Arc<DecodingOptions>,
        language: Option<&str>,
        previous: &[TokenId],
        max_text_len: usize,
        seed: u64,
    ) -> Self {
        let mut initial = vec![];
        if !previous.is_empty() {
            initial.push(vocabulary.sot_prev);
            initial.extend(&previous[previous.len().saturating_sub(max_text_len / 2 - 1)..]);
        }
        let sot_index = initial.len();
        initial.extend(vocabulary.start(options.task, language));
        if options.without_timestamps {
            initial.push(vocabulary.no_timestamps);
        }
        Self {
            vocabulary,
            options,
            sot_index,
            max_text_len,
            random: Random(seed),
            attempt: 0,
            tokens: initial.clone(),
            initial,
            sum_logprobs: 0.0,
            no_speech_prob: f32::NAN,
            decoded: None,
        }
    }

    /// What to feed next; none when the window is done.
    #[must_use]
    pub fn feed(&self) -> Option<Feed<'_>> {
        if self.decoded.is_some() {
            return None;
        }
        let begins = self.tokens.len() == self.initial.len();
        Some(if begins {
            Feed { begins, tokens: &self.tokens, logits: self.initial.len() - self.sot_index }
        } else {
            Feed { begins, tokens: &self.tokens[self.tokens.len() - 1..], logits: 1 }
        })
    }

    /// Takes the logits [feed.logits, vocab] of what [`feed`](Self::feed) said, and overwrites them.
    ///
    /// # Panics
    /// If they are fewer than that.
    pub fn take(&mut self, logits: &mut [f32]) {
        if self.decoded.is_some() {
            return;
        }
        let size = self.vocabulary.size();
        if self.tokens.len() == self.initial.len() {
            let at_start = &logits[..size];
            self.no_speech_prob = (at_start[self.vocabulary.no_speech as usize] - log_sum_exp(at_start)).exp();
        }
        let last = logits.len() - size;
        let logits = &mut logits[last..];
        let written = &self.tokens[self.initial.len()..];
        Rules { vocabulary: &self.vocabulary, timestamps: !self.options.without_timestamps }.apply(written, logits);
        let (token, logprob) = choose(logits, self.options.temperatures[self.attempt], &mut self.random);
        self.sum_logprobs += logprob;
        let token = token as TokenId;
        if token != self.vocabulary.eot {
            self.tokens.push(token);
        }
        let written = self.tokens.len() - self.initial.len();
        if token == self.vocabulary.eot || written >= self.max_text_len / 2 || self.tokens.len() > self.max_text_len {
            self.end_attempt();
        }
    }

    /// Judges the attempt's text: it is taken, or the next temperature is tried.
    fn end_attempt(&mut self) {
        let tokens = self.tokens[self.initial.len()..].to_vec();
        let decoded = Decoded {
            avg_logprob: self.sum_logprobs / (tokens.len() + 1) as f32,
            no_speech_prob: self.no_speech_prob,
            temperature: self.options.temperatures[self.attempt],
            compression_ratio: compression_ratio(self.vocabulary.decode(&tokens).trim()),
            tokens,
        };
        if needs_fallback(&decoded, &self.options) && self.attempt + 1 < self.options.temperatures.len() {
            self.attempt += 1;
            self.tokens.truncate(self.initial.len());
            self.sum_logprobs = 0.0;
        } else {
            self.decoded = Some(decoded);
        }
    }

    /// Attempts so far, the one under way included.
    #[must_use]
    pub fn attempts(&self) -> usize {
        self.attempt + 1
    }

    /// What was decoded; none while there is something to [`feed`](Self::feed).
    #[must_use]
    pub fn finish(self) -> Option<Decoded> {
        self.decoded
    }
}

/// Whether a text is so poor that another temperature is worth trying: it repeats itself, or the model was guessing; unless the
/// window is silent, of which no temperature makes speech.
pub(super) fn needs_fallback(decoded: &Decoded, options: &DecodingOptions) -> bool {
    let guessing = options.logprob_threshold.is_some_and(|least| decoded.avg_logprob < least);
    let repeating = options.compression_ratio_threshold.is_some_and(|most| decoded.compression_ratio > most);
    let silent = options.no_speech_threshold.is_some_and(|most| decoded.no_speech_prob > most);
    (guessing || repeating) && !(silent && guessing)
}

/// How many times smaller a text becomes when compressed by zlib as Python does; 0 if it is empty.
///
/// The threshold was chosen for zlib itself: zlib-rs comes within a byte of it on average, where other encoders of the format are
/// off by a tenth on texts this short.
#[must_use]
pub fn compression_ratio(text: &str) -> f32 {
    let mut compressed = vec![0; compress_bound(text.len())];
    let (compressed, _) = compress_slice(&mut compressed, text.as_bytes(), DeflateConfig::default());
    if compressed.is_empty() { 0.0 } else { (text.len() as f64 / compressed.len() as f64) as f32 }
}
