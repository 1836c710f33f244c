//! Qwen3: `<tool_call>{"name": "f", "arguments": {…}}</tool_call>`, as [Hermes](super::hermes).
//!
//! Accepted as well: [tags](super::function_tag) in the block or alone, and `[Calling tool: f({…})]`.

use std::sync::Arc;

use super::parameter::CALL_END;
use super::scanner::Scanner;
use super::{CallFormat, bracket, hermes};
use crate::{CallParser, Tools};

/// The format.
pub(crate) const FORMAT: CallFormat = CallFormat {
    names: &["qwen", "qwen3"],
    markers: &["<tool_call>", CALL_END],
    stops: &[],
    native_history: true,
    parser,
    shape: hermes::shape,
};

fn parser(tools: Arc<Tools>) -> Box<dyn CallParser> {
    let openings = hermes::tagged().into_iter().chain([bracket::calling()]).collect();
    Box::new(Scanner::new(tools, openings, &[CALL_END]))
}
