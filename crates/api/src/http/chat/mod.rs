//! Conversations, whatever API they came by.
//!
//! Every endpoint brings its body into a [`ChatRequest`]; [`ChatRequest::prepare`] makes tokens and a [`Generation`] of
//! it, and an [`OutputPlan`], by which each answer's text is understood as [`ChatEvent`]s. What differs between the
//! APIs is only how these are written.

mod constraint;
mod format;
mod history;
mod message;
mod output;
mod prepare;
mod request;
mod rounds;
mod server_tools;
mod tools;

pub use format::OutputFormat;
pub use message::{ChatMessage, ToolCall};
pub use output::{AnswerParser, ChatEvent, OutputPlan};
pub use prepare::PreparedChat;
pub use request::{ChatRequest, Thinking};
pub use rounds::{Finished, Rounds, Turn};
pub use server_tools::{RunCall, ServerTools};
pub use tools::{ToolChoice, ToolOffer};
