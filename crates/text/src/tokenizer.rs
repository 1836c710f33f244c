//! Text to token ids and back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use tokenizers::Tokenizer as HfTokenizer;
use vllm_checkpoint::{Checkpoint, GgufVocab, TokenizerSource};

use crate::detokenizer;
use crate::error::{Result, TextError};
use crate::gguf_tokenizer;
use crate::token_table::TokenTable;

/// A model's tokenizer. Immutable, cheap to share behind an `Arc`, usable from any number of threads.
#[derive(Debug)]
pub struct Tokenizer {
    inner: HfTokenizer,
    /// Put before and after a text by [`encode`](Self::encode); a tokenizer.json says it in its post-processor instead.
    prefix: Option<u32>,
    suffix: Option<u32>,
    eos_ids: Vec<u32>,
    /// Built by whoever decodes first.
    table: OnceLock<Arc<TokenTable>>,
}

impl Tokenizer {
    /// Loads the tokenizer of a checkpoint, with all the tokens that its files say end an answer.
    ///
    /// # Errors
    /// Any of [`TextError`]'s about files.
    pub fn load(checkpoint: &Checkpoint) -> Result<Self> {
        let tokenizer = match checkpoint.tokenizer()? {
            TokenizerSource::Json(path) => Self::from_json_file(&path)?,
            TokenizerSource::Gguf(vocab) => Self::from_gguf(&vocab)?,
        };
        let eos_ids = checkpoint.special_tokens().eos_ids;
        Ok(if eos_ids.is_empty() { tokenizer } else { tokenizer.with_eos_ids(eos_ids) })
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// [`TextError::Read`], [`TextError::Json`].
    pub fn from_json_file(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|source| TextError::Read { path: path.to_owned(), source })?;
        Self::from_json_bytes(&bytes, &path.display().to_string())
    }

    /// Reads a `tokenizer.json` from memory; `origin` names it in errors.
    ///
    /// # Errors
    /// [`TextError::Json`].
    pub fn from_json_bytes(bytes: &[u8], origin: &str) -> Result<Self> {
        let invalid = |message: String| TextError::Json { origin: origin.to_owned(), message };
        // The library panics on some files that are JSON but no tokenizer (a merge whose result is no token).
        let inner = catch_unwind(AssertUnwindSafe(|| HfTokenizer::from_bytes(bytes)))
            .map_err(|_| invalid("its parts contradict each other".to_owned()))?
            .map_err(|error| invalid(error.to_string()))?;
        Ok(Self::new(inner, None, None, Vec::new()))
    }

    /// Builds the tokenizer that a GGUF file describes.
    ///
    /// # Errors
    /// [`TextError::Gguf`], [`TextError::UnknownPre`].
    pub fn from_gguf(vocab: &GgufVocab) -> Result<Self> {
        let built = gguf_tokenizer::build(vocab)?;
        Ok(Self::new(built.inner, built.prefix, built.suffix, vocab.eos_id.into_iter().collect()))
    }

    fn new(mut inner: HfTokenizer, prefix: Option<u32>, suffix: Option<u32>, eos_ids: Vec<u32>) -> Self {
        // Some files carry the settings their training ran with; a prompt is neither cut nor filled up.
        let _ = inner.with_truncation(None);
        inner.with_padding(None);
        Self { inner, prefix, suffix, eos_ids, table: OnceLock::new() }
    }

    /// Sets the tokens that end an answer.
    pub fn with_eos_ids(mut self, eos_ids: Vec<u32>) -> Self {
        self.eos_ids = eos_ids;
        self
    }

    /// The library's tokenizer.
    pub(crate) fn inner(&self) -> &HfTokenizer {
        &self.inner
    }

    /// What [`encode`](Self::encode) puts before and after a text, if a tokenizer.json's post-processor doesn't.
    pub(crate) fn ends(&self) -> (Option<u32>, Option<u32>) {
        (self.prefix, self.suffix)
    }

    /// Token ids of `text`. Special tokens written out in it (`<|im_end|>`) become those tokens.
    ///
    /// With `add_special` the model's own BOS (and EOS, if it has the habit) is added; leave it off for the output of a
    /// chat template, which writes them itself.
    ///
    /// # Errors
    /// [`TextError::Encode`].
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let failed = |error: tokenizers::Error| TextError::Encode { bytes: text.len(), message: error.to_string() };
        let encoding = self.inner.encode_fast(text, add_special).map_err(failed)?;
        let (prefix, suffix) = if add_special { (self.prefix, self.suffix) } else { (None, None) };
        Ok(prefix.into_iter().chain(encoding.get_ids().iter().copied()).chain(suffix).collect())
    }

    /// Text of `tokens`: the concatenation of their bytes, with what is not UTF-8 replaced by U+FFFD. With
    /// `skip_special` control tokens give no text; ids the tokenizer does not know never do.
    ///
    /// # Errors
    /// [`TextError::Decode`], for tokenizers whose decoder is more than that (WordPiece) and fails.
    pub fn decode(&self, tokens: &[u32], skip_special: bool) -> Result<String> {
        match self.table() {
            Ok(table) => Ok(detokenizer::decode(&table, tokens, skip_special)),
            Err(_) => self
                .inner
                .decode(tokens, skip_special)
                .map_err(|error| TextError::Decode { tokens: tokens.len(), message: error.to_string() }),
        }
    }

    /// Number of ids: one more than the largest. A model's output layer may have more rows than this.
    pub fn vocab_size(&self) -> usize {
        self.table().map_or_else(|_| self.inner.get_vocab_size(true), |table| table.len())
    }

    /// Id of the token written exactly so in the vocabulary (`<|im_end|>`, `Ġthe`).
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// How the vocabulary writes a token.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The bytes a token adds in the middle of a text: what OpenAI's `logprobs` report. Not always UTF-8.
    ///
    /// # Errors
    /// [`TextError::UnsupportedDecoder`].
    pub fn token_bytes(&self, id: u32) -> Result<Vec<u8>> {
        Ok(self.table()?.bytes(id).to_vec())
    }

    /// Whether a token is a control token, left out of text by default.
    pub fn is_special(&self, id: u32) -> bool {
        self.table().is_ok_and(|table| table.is_special(id))
    }

    /// The tokens that end an answer.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }

    /// The bytes of all tokens.
    pub(crate) fn table(&self) -> Result<Arc<TokenTable>> {
        if let Some(table) = self.table.get() {
            return Ok(Arc::clone(table));
        }
        // Two threads may build it at once; the first to finish wins and the other's work is dropped.
        let table = Arc::new(TokenTable::build(&self.inner)?);
        Ok(Arc::clone(self.table.get_or_init(|| table)))
    }
}
