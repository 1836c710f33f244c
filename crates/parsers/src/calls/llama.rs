//! Llama 3 and 4: `{"name": "f", "parameters": {…}}`, several with `;` in between, bare as a whole answer or behind
//! `<|python_tag|>`.
//!
//! A bare one must name a known tool. Accepted as well: `<function=f>{…}</function>`.

use std::sync::Arc;

use super::items::Items;
use super::scanner::{Opening, Place, Scanner};
use super::{CallFormat, function_tag, shapes};
use crate::{CallParser, Shape, Tools};

const PYTHON_TAG: &str = "<|python_tag|>";

/// The format.
pub(crate) const FORMAT: CallFormat = CallFormat {
    names: &["llama", "llama3", "llama4"],
    markers: &[PYTHON_TAG],
    stops: &[],
    native_history: true,
    parser,
    shape,
};

fn parser(tools: Arc<Tools>) -> Box<dyn CallParser> {
    let openings = vec![
        Opening::new(PYTHON_TAG, Items::marked),
        Opening::new(function_tag::FUNCTION, Items::function),
        Opening::new("{", Items::bare).at(Place::Start),
    ];
    Box::new(Scanner::new(tools, openings, &[]))
}

fn shape(tools: &Tools, most: Option<usize>) -> Shape {
    shapes::calls(tools, most, &[shapes::literal("; ")], |tool| shapes::envelope(tool, "parameters"))
}
