//! Structured output: grammars that hold a model to what a client asked for.
//!
//! A [`Constraint`] (a JSON schema, a regular expression, a choice, a grammar, the shape of a tool call) is compiled
//! into a [`Grammar`] over a model's [`Vocabulary`], by [llguidance]. A [`GrammarProcessor`] holds one answer to it:
//! it forbids, at each token, all that would leave the grammar. Which tokens these are is worked out on threads of
//! this crate while the model computes.
//!
//! *Invariant*: this crate knows neither HTTP nor MLX. Whatever a client sends, compiling ends within a bounded time
//! and memory, and what cannot be followed to the letter is refused.
//!
//! ```text
//! Constraint ─Grammar::compile▶ Grammar ─processor▶ GrammarProcessor ─process▶ logits
//!                                                      ▲ sampled │ workers: matcher, next mask
//! ```
//!
//! [llguidance]: https://github.com/guidance-ai/llguidance
#![forbid(unsafe_code)]

mod constraint;
mod error;
mod gbnf;
mod gbnf_lexer;
mod grammar;
mod lark;
mod limits;
mod mask;
mod numbers;
mod one_of;
mod processor;
mod regex;
mod schema;
mod shape;
mod tag;
mod thinking_budget;
mod thought;
mod tokens;
mod tracker;
mod vocabulary;
mod watch;
mod workers;

pub use constraint::Constraint;
pub use error::{GrammarError, Result};
pub use grammar::Grammar;
pub use processor::GrammarProcessor;
pub use thinking_budget::ThinkingBudget;
pub use thought::Reasoning;
pub use vocabulary::Vocabulary;
