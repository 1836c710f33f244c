//! MiniMax M2: `<invoke name="f"><parameter name="k">v</parameter></invoke>`, one or more between
//! `<minimax:tool_call>` and its closing tag. A call without that block counts if it has a parameter.

use super::CallFormat;
use super::invoke::{self, Invokes, Tags};
use super::scanner::{Opening, Scanner};
use super::steps::Stepped;
use crate::{Shape, Tools};

pub(super) const MINIMAX: CallFormat = CallFormat {
    names: &["minimax", "minimax_m2"],
    markers: &[BLOCK, BLOCK_END],
    stops: &["[e~["],
    native_history: true,
    parser: |tools| {
        let block = Opening::new(BLOCK, |tools, _| Box::new(Stepped::new(Invokes::block(&TAGS, tools))));
        let bare = Opening::new(TAGS.invoke, |tools, _| Box::new(Stepped::new(Invokes::bare(&TAGS, tools))));
        Box::new(Scanner::new(tools, vec![block, bare], &[TAGS.invoke_end, BLOCK_END]))
    },
    shape,
};

const BLOCK: &str = "<minimax:tool_call>";
const BLOCK_END: &str = "</minimax:tool_call>";

const TAGS: Tags = Tags {
    block_end: BLOCK_END,
    invoke: "<invoke name=\"",
    invoke_end: "</invoke>",
    parameter: "<parameter name=\"",
    parameter_end: "</parameter>",
};

fn shape(tools: &Tools, most: Option<usize>) -> Shape {
    let calls = tools.0.iter().map(|tool| invoke::shape(&TAGS, tool, "\n", |_| "")).collect();
    Shape::Sequence(vec![
        Shape::Marker(BLOCK.to_owned()),
        Shape::Literal("\n".to_owned()),
        Shape::Repeat { shape: Box::new(Shape::OneOf(calls)), least: 1, most },
        Shape::Marker(BLOCK_END.to_owned()),
    ])
}
