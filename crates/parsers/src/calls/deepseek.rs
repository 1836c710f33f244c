//! DeepSeek V3 and R1, one or more calls between `<｜tool▁calls▁begin｜>` and `<｜tool▁calls▁end｜>`:
//!
//! - V3 and R1 write a type, the name and fenced JSON:
//!   ``<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{…}\n```<｜tool▁call▁end｜>``;
//! - V3.1 writes `<｜tool▁call▁begin｜>f<｜tool▁sep｜>{…}<｜tool▁call▁end｜>`.

use super::json_calls::{JsonCalls, Marks};
use super::scanner::{Opening, Scanner};
use super::steps::Stepped;
use super::{CallFormat, shapes};
use crate::{Shape, Tool, Tools};

pub(super) const DEEPSEEK: CallFormat = CallFormat {
    names: &["deepseek", "deepseek_v3", "deepseek_r1"],
    shape: |tools, most| {
        shape(tools, most, |name| (format!("function{SEPARATOR}{name}\n```json\n"), "\n```".to_owned()))
    },
    ..DEEPSEEK_V31
};

/// The same parser, for models that are to write the simple form.
pub(super) const DEEPSEEK_V31: CallFormat = CallFormat {
    names: &["deepseek_v31"],
    markers: &[CALLS, CALLS_END, CALL, CALL_END, SEPARATOR],
    stops: &[],
    native_history: true,
    parser: |tools| {
        let calls = Opening::new(CALLS, |_, _| Box::new(Stepped::new(JsonCalls::section(&MARKS))));
        let call = Opening::new(CALL, |_, _| Box::new(Stepped::new(JsonCalls::call(&MARKS))));
        Box::new(Scanner::new(tools, vec![calls, call], &[CALL_END, CALLS_END]))
    },
    shape: |tools, most| shape(tools, most, |name| (format!("{name}{SEPARATOR}"), String::new())),
};

const CALLS: &str = "<｜tool▁calls▁begin｜>";
const CALLS_END: &str = "<｜tool▁calls▁end｜>";
const CALL: &str = "<｜tool▁call▁begin｜>";
const CALL_END: &str = "<｜tool▁call▁end｜>";
const SEPARATOR: &str = "<｜tool▁sep｜>";

const MARKS: Marks =
    Marks { call: CALL, separator: SEPARATOR, call_end: CALL_END, section_ends: &[CALLS_END], ids: false };

/// `around` gives what stands before and behind the arguments of the tool of that name.
fn shape(tools: &Tools, most: Option<usize>, around: impl Fn(&str) -> (String, String)) -> Shape {
    let call = |tool: &Tool| {
        let (before, behind) = around(&tool.name);
        let mut parts = vec![shapes::marker(CALL)];
        parts.extend(with_marker(&before, SEPARATOR));
        parts.push(shapes::arguments(tool));
        parts.push(Shape::Literal(behind));
        parts.push(shapes::marker(CALL_END));
        Shape::Sequence(parts)
    };
    let calls = shapes::calls(tools, most, &[], call);
    Shape::Sequence(vec![shapes::marker(CALLS), calls, shapes::marker(CALLS_END)])
}

/// Text with a marker in it.
fn with_marker(text: &str, marker: &str) -> Vec<Shape> {
    match text.split_once(marker) {
        None => vec![Shape::Literal(text.to_owned())],
        Some((before, behind)) => {
            vec![Shape::Literal(before.to_owned()), shapes::marker(marker), Shape::Literal(behind.to_owned())]
        }
    }
}
