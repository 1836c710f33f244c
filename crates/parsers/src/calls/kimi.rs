//! Kimi K2: `<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{…}<|tool_call_end|>`, one or more between
//! `<|tool_calls_section_begin|>` and `<|tool_calls_section_end|>`.
//!
//! `functions.f:0` is the call's id. The model expects to find it again in the history, so it is kept.

use super::json_calls::{JsonCalls, Marks};
use super::scanner::{Opening, Scanner};
use super::steps::Stepped;
use super::{CallFormat, shapes};
use crate::{Shape, Tool, Tools};

pub(super) const KIMI: CallFormat = CallFormat {
    names: &["kimi", "kimi_k2", "moonshot"],
    markers: &[SECTION, SECTION_END, OTHER_SECTION, OTHER_SECTION_END, CALL, ARGUMENTS, CALL_END],
    stops: &[],
    native_history: true,
    parser: |tools| {
        let section = |marker| Opening::new(marker, |_, _| Box::new(Stepped::new(JsonCalls::section(&MARKS))));
        let call = Opening::new(CALL, |_, _| Box::new(Stepped::new(JsonCalls::call(&MARKS))));
        let openings = vec![section(SECTION), section(OTHER_SECTION), call];
        Box::new(Scanner::new(tools, openings, &[CALL_END, SECTION_END, OTHER_SECTION_END]))
    },
    shape,
};

const SECTION: &str = "<|tool_calls_section_begin|>";
const SECTION_END: &str = "<|tool_calls_section_end|>";
/// Early models write the section's marks in the singular, too.
const OTHER_SECTION: &str = "<|tool_call_section_begin|>";
const OTHER_SECTION_END: &str = "<|tool_call_section_end|>";
const CALL: &str = "<|tool_call_begin|>";
const ARGUMENTS: &str = "<|tool_call_argument_begin|>";
const CALL_END: &str = "<|tool_call_end|>";

const MARKS: Marks = Marks {
    call: CALL,
    separator: ARGUMENTS,
    call_end: CALL_END,
    section_ends: &[SECTION_END, OTHER_SECTION_END],
    ids: true,
};

fn shape(tools: &Tools, most: Option<usize>) -> Shape {
    let call = |tool: &Tool| {
        Shape::Sequence(vec![
            shapes::marker(CALL),
            Shape::Literal(format!("functions.{}:", tool.name)),
            Shape::Regex("[0-9]{1,4}".to_owned()),
            shapes::marker(ARGUMENTS),
            shapes::arguments(tool),
            shapes::marker(CALL_END),
        ])
    };
    let calls = shapes::calls(tools, most, &[], call);
    Shape::Sequence(vec![shapes::marker(SECTION), calls, shapes::marker(SECTION_END)])
}
