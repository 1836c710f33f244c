//! Hermes: `<tool_call>{"name": "f", "arguments": {…}}</tool_call>`. Also Qwen2.5, Granite 4 and many more.
//!
//! Accepted as well: [tags](super::function_tag) in the block or alone, and a bare object or array of the same form if
//! it names a known tool, also in a `json` code block.

use std::sync::Arc;

use super::CallFormat;
use super::items::Items;
use super::parameter::CALL_END;
use super::scanner::{Opening, Place, Scanner};
use super::shapes;
use crate::{CallParser, Shape, Tools};

/// The format.
pub(crate) const FORMAT: CallFormat = CallFormat {
    names: &["hermes", "nous"],
    markers: &["<tool_call>", CALL_END],
    stops: &[],
    native_history: true,
    parser,
    shape,
};

fn parser(tools: Arc<Tools>) -> Box<dyn CallParser> {
    let openings = tagged().into_iter().chain(bare()).collect();
    Box::new(Scanner::new(tools, openings, &[CALL_END]))
}

/// Calls that show by themselves what they are. Models forget the end of the opening tag, too.
pub(super) fn tagged() -> [Opening; 3] {
    [
        Opening::new("<tool_call>", Items::tagged),
        Opening::new("<tool_call", Items::tagged),
        Opening::new(super::function_tag::FUNCTION, Items::function),
    ]
}

/// Calls that only their contents tell from other JSON.
pub(super) fn bare() -> [Opening; 3] {
    ["{", "[", "```json"].map(|marker| {
        let block = if marker == "```json" { Items::fenced } else { Items::bare };
        Opening::new(marker, block).at(Place::OutsideJson)
    })
}

/// Forced calls.
pub(super) fn shape(tools: &Tools, most: Option<usize>) -> Shape {
    shapes::calls(tools, most, &[shapes::literal("\n")], |tool| shapes::tagged(shapes::envelope(tool, "arguments")))
}
