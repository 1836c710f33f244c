//! The error type of everything but templates (those have [`TemplateError`](crate::TemplateError)).

use std::path::PathBuf;

/// Result of this crate's tokenizer and detokenizer calls.
pub type Result<T, E = TextError> = std::result::Result<T, E>;

/// What can be wrong with a tokenizer, its files or the text given to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A tokenizer file cannot be read.
    #[error("{}: cannot read the tokenizer: {source}", path.display())]
    Read {
        /// The file that was asked for.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A `tokenizer.json` is not one (truncated, not JSON, unknown parts).
    #[error(
        "{origin}: not a valid tokenizer.json: {message}; fetch the file again, or re-export it with a current `tokenizers`"
    )]
    Json {
        /// Where the bytes came from.
        origin: String,
        /// The parser's message, with line and column where it has them.
        message: String,
    },
    /// A GGUF vocabulary contradicts itself or lacks a part.
    #[error("GGUF tokenizer: {0}")]
    Gguf(String),
    /// A GGUF names a pre-tokenizer this crate has no rules for. Guessing would silently give other tokens.
    #[error(
        "GGUF tokenizer: unknown pre-tokenizer {pre:?} (tokenizer.ggml.pre); known are {known}. \
         Use the model's Hugging Face directory (tokenizer.json) instead"
    )]
    UnknownPre {
        /// The name in the file.
        pre: String,
        /// The names this crate knows, comma separated.
        known: String,
    },
    /// The `tokenizers` library could not encode a text.
    #[error("cannot tokenize the text ({bytes} bytes): {message}")]
    Encode {
        /// Length of the text.
        bytes: usize,
        /// The library's message.
        message: String,
    },
    /// The `tokenizers` library could not decode a token sequence.
    #[error("cannot decode {tokens} tokens: {message}")]
    Decode {
        /// Number of tokens.
        tokens: usize,
        /// The library's message.
        message: String,
    },
    /// The tokenizer's decoder is not a concatenation of per-token bytes, so it cannot be streamed.
    #[error(
        "the tokenizer's decoder ({0}) cannot be streamed token by token; \
         ByteLevel, Metaspace and Replace/ByteFallback/Fuse/Strip chains can"
    )]
    UnsupportedDecoder(String),
    /// A stop string is unusable.
    #[error("stop string {index} is empty; a stop string has at least one character")]
    EmptyStopString {
        /// Position in the list given.
        index: usize,
    },
    /// The checkpoint could not hand out its tokenizer.
    #[error(transparent)]
    Checkpoint(#[from] vllm_checkpoint::Error),
}
