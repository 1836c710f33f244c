//! MiniMax M2: `<invoke name="f"><parameter name="k">v</parameter></invoke>`, one or more between
//! `<minimax:tool_call>` and its closing tag. A call without that block counts if it has a parameter.

use super::CallFormat;
use super::invoke::{self, Invokes, Tags};
use super::scanner::{Opening, Scanner};
use super::shapes::{self, literal, marker};
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
    let calls = shapes::calls(tools, most, &[], |tool| invoke::shape(&TAGS, tool, |_| ""));
    Shape::Sequence(vec![marker(BLOCK), literal("\n"), calls, marker(BLOCK_END)])
}
