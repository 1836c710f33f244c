//! Texts for encoders: alone or in pairs, with their special tokens, cut to what the model takes.

use tokenizers::{
    Encoding, PostProcessor, TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings,
};

use crate::{
    error::{Result, TextError},
    tokenizer::Tokenizer,
};

/// A text, or a pair of texts, as an encoder takes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncodedInput {
    /// All tokens, special ones included.
    pub tokens: Vec<u32>,
    /// For each token, which text of the pair it belongs to, as the tokenizer's own file counts (RoBERTa's says 0 for
    /// both).
    pub types: Vec<u32>,
    /// How many tokens there were before the cut.
    pub whole_len: usize,
}

impl EncodedInput {
    /// Whether something was cut off.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.tokens.len() < self.whole_len
    }
}

impl Tokenizer {
    /// A text with its special tokens, its end cut off so that it has at most `max` tokens with them.
    ///
    /// # Errors
    /// [`TextError::Encode`].
    pub fn encode_input(&self, text: &str, max: usize) -> Result<EncodedInput> {
        let (prefix, suffix) = self.ends();
        let ends = prefix.iter().chain(&suffix).count();
        let mut input = self.process(text, None, max.saturating_sub(ends))?;
        if ends > 0 {
            // A GGUF's vocabulary has no post-processor.
            input.tokens = prefix.into_iter().chain(input.tokens).chain(suffix).collect();
            input.types = vec![0; input.tokens.len()];
            input.whole_len += ends;
        }
        Ok(input)
    }

    /// Two texts together, as cross-encoders read them. Of texts that have more than `max` tokens together, the longer
    /// one's end is cut off, and both when they are of one length.
    ///
    /// # Errors
    /// [`TextError::Encode`].
    pub fn encode_pair(&self, first: &str, second: &str, max: usize) -> Result<EncodedInput> {
        self.process(first, Some(second), max)
    }

    fn process(&self, first: &str, second: Option<&str>, max: usize) -> Result<EncodedInput> {
        let tokenizer = self.inner();
        let bytes = first.len() + second.map_or(0, str::len);
        let failed = |error: tokenizers::Error| TextError::Encode { bytes, message: error.to_string() };
        let bare = |text: &str| -> Result<Encoding> { tokenizer.encode_fast(text, false).map_err(failed) };
        let (first, mut second) = (bare(first)?, second.map(bare).transpose()?);
        if let Some(second) = &mut second {
            // As the library has it before post-processors that say nothing about types.
            second.set_type_ids(vec![1; second.len()]);
        }
        let added = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(second.is_some()));
        let whole_len = first.len() + second.as_ref().map_or(0, Encoding::len) + added;
        let params = TruncationParams {
            direction: TruncationDirection::Right,
            max_length: max.saturating_sub(added),
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
        };
        let (first, second) = truncate_encodings(first, second, &params).map_err(failed)?;
        let encoding = tokenizer.post_process(first, second, true).map_err(failed)?;
        Ok(EncodedInput { tokens: encoding.get_ids().to_vec(), types: encoding.get_type_ids().to_vec(), whole_len })
    }
}
