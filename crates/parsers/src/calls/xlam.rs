//! xLAM: `[{"name": "f", "arguments": {…}}, …]` as a whole answer, in a code block, or behind `[TOOL_CALLS]`.
//!
//! Without a marker the array must name known tools. Accepted as well: a single object, `<tool_call>` as the marker,
//! and a chain of thought before.

use std::sync::Arc;

use super::items::Items;
use super::parameter::CALL_END;
use super::scanner::{Opening, Place, Scanner};
use super::{CallFormat, shapes};
use crate::CallParser;
use crate::Tools;

const MARKER: &str = "[TOOL_CALLS]";

/// The format.
pub(crate) const FORMAT: CallFormat = CallFormat {
    names: &["xlam"],
    markers: &[MARKER, "<tool_call>", CALL_END],
    stops: &[],
    native_history: false,
    parser,
    shape: shapes::list,
};

fn parser(tools: Arc<Tools>) -> Box<dyn CallParser> {
    let openings = vec![
        Opening::new(MARKER, Items::marked),
        Opening::new("<tool_call>", Items::tagged),
        Opening::new("```json", Items::fenced).at(Place::OutsideJson),
        Opening::new("```", Items::fenced).at(Place::OutsideJson),
        Opening::new("[", Items::bare).at(Place::Start),
        Opening::new("{", Items::bare).at(Place::Start),
    ];
    Box::new(Scanner::new(tools, openings, &[CALL_END]))
}
