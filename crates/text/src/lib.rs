//! Text in, tokens out, and back: tokenizers, chat templates, incremental detokenization and stop strings.
//!
//! *Invariant*: this crate knows neither MLX nor HTTP, runs no task and keeps no global state. It reads the tokenizer
//! files it is handed and does no other IO. Whatever a client or a model's files send, it returns an error: it does not
//! panic, and a template cannot run for ever.
//!
//! ```text
//! messages ──ChatTemplate::render──▶ prompt ──Tokenizer::encode──▶ token ids ─▶ engine
//!   text  ◀──────TextStream (Detokenizer + StopStrings)────────────── tokens ◀────┘
//! ```
#![forbid(unsafe_code)]

mod byte_level;
mod detokenizer;
mod error;
mod gguf_tokenizer;
mod inputs;
mod json;
mod pre_tokenizer;
mod rewrite;
mod spm_merges;
mod stop_strings;
mod stream;
mod template;
mod token_table;
mod tokenizer;
mod utf8;

pub use detokenizer::Detokenizer;
pub use error::{Result, TextError};
pub use inputs::EncodedInput;
pub use stop_strings::StopStrings;
pub use stream::{Delta, TextStream};
pub use template::{ChatTemplate, MediaMarks, RenderRequest, TemplateError, TemplateVariables};
pub use tokenizer::Tokenizer;

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
