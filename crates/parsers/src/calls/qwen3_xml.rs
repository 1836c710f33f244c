//! Qwen3-Coder and Qwen3.5: `<tool_call><function=f><parameter=k>v</parameter></function></tool_call>`.
//!
//! The block around the [tags](super::function_tag) may be missing; it may hold JSON as [Hermes](super::hermes) writes
//! it.

use std::sync::Arc;

use super::parameter::CALL_END;
use super::scanner::Scanner;
use super::{CallFormat, hermes, shapes};
use crate::{CallParser, Shape, Tools};

/// The format.
pub(crate) const FORMAT: CallFormat = CallFormat {
    names: &["qwen3_xml", "qwen3.5", "qwen3_coder"],
    markers: &["<tool_call>", CALL_END],
    stops: &[],
    native_history: true,
    parser,
    shape,
};

pub(super) fn parser(tools: Arc<Tools>) -> Box<dyn CallParser> {
    Box::new(Scanner::new(tools, hermes::tagged().to_vec(), &[CALL_END]))
}

/// Forced calls.
pub(super) fn shape(tools: &Tools, most: Option<usize>) -> Shape {
    shapes::calls(tools, most, &[shapes::literal("\n")], |tool| shapes::tagged(shapes::tagged_function(tool)))
}
