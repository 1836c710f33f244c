//! Granite 3: `<|tool_call|>[{"name": "f", "arguments": {…}}, …]`.
//!
//! Accepted as well: `<tool_call>` as the marker, with or without its end, and the array alone at the beginning of an
//! answer if it names a known tool.

use std::sync::Arc;

use super::items::Items;
use super::parameter::CALL_END;
use super::scanner::{Opening, Place, Scanner};
use super::{CallFormat, shapes};
use crate::{CallParser, Shape, Tools};

const MARKER: &str = "<|tool_call|>";

/// The format.
pub(crate) const FORMAT: CallFormat = CallFormat {
    names: &["granite", "granite3"],
    markers: &[MARKER, "<tool_call>", CALL_END],
    stops: &[],
    native_history: true,
    parser,
    shape,
};

fn parser(tools: Arc<Tools>) -> Box<dyn CallParser> {
    let openings = vec![
        Opening::new(MARKER, Items::marked),
        Opening::new("<tool_call>", Items::tagged),
        Opening::new("[", Items::bare).at(Place::Start),
        Opening::new("{", Items::bare).at(Place::Start),
    ];
    Box::new(Scanner::new(tools, openings, &[CALL_END]))
}

fn shape(tools: &Tools, most: Option<usize>) -> Shape {
    // Which of the two it is differs between releases.
    let marker = Shape::OneOf(vec![shapes::marker(MARKER), shapes::marker("<tool_call>")]);
    Shape::Sequence(vec![marker, shapes::list(tools, most)])
}
