//! What a model's answer is made of: chain of thought, text for the user, tool calls.
//!
//! *Invariant*: this crate knows neither HTTP nor models nor tokens. It takes text in whatever pieces it comes and
//! gives [`OutputEvent`]s; what comes out depends on the text alone, never on where it was cut. Nothing that a model
//! writes is an error: what turns out to be no call is text.
//!
//! ```text
//! text ─▶ ReasoningParser ─┬─ chain of thought ──────────▶ OutputEvent
//!                          └─ the rest ─▶ CallParser ─────▶ OutputEvent
//! ```
#![forbid(unsafe_code)]

pub mod calls;
mod event;
mod feed;
mod harmony;
mod hold_back;
mod json_scan;
mod json_strings;
mod output;
pub mod reasoning;
mod shape;
mod tool;
mod typed_value;

pub use calls::{CallFormat, CallParser};
pub use event::OutputEvent;
pub use output::OutputParser;
pub use reasoning::{ReasoningFormat, ReasoningParser, Split};
pub use shape::Shape;
pub use tool::{Tool, Tools};
