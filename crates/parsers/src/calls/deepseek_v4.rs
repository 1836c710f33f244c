//! DeepSeek V3.2 and V4, "DSML": a block of
//! `<｜DSML｜invoke name="f"><｜DSML｜parameter name="k" string="true">v</｜DSML｜parameter></｜DSML｜invoke>`.
//!
//! `string="true"` says that the value is text, `"false"` that it is JSON. V3.2 calls the block `function_calls`, V4
//! `tool_calls`.

use super::CallFormat;
use super::invoke::{self, Invokes, Tags};
use super::scanner::{Opening, Scanner};
use super::steps::Stepped;
use crate::typed_value::is_text;
use crate::{Shape, Tools};

pub(super) const DEEPSEEK_V4: CallFormat = CallFormat {
    names: &["deepseek_v4", "dsml"],
    markers: &["｜DSML｜"],
    stops: &[],
    native_history: true,
    parser: |tools| {
        let block = |marker, block| Opening::new(marker, block);
        let openings = vec![
            block("<｜DSML｜tool_calls>", |tools, _| Box::new(Stepped::new(Invokes::block(&V4, tools)))),
            block("<｜DSML｜function_calls>", |tools, _| Box::new(Stepped::new(Invokes::block(&V32, tools)))),
            block(V4.invoke, |tools, _| Box::new(Stepped::new(Invokes::bare(&V4, tools)))),
        ];
        Box::new(Scanner::new(tools, openings, &[V4.invoke_end, V4.block_end, V32.block_end]))
    },
    shape,
};

const V4: Tags = Tags {
    block_end: "</｜DSML｜tool_calls>",
    invoke: "<｜DSML｜invoke name=\"",
    invoke_end: "</｜DSML｜invoke>",
    parameter: "<｜DSML｜parameter name=\"",
    parameter_end: "</｜DSML｜parameter>",
};

const V32: Tags = Tags { block_end: "</｜DSML｜function_calls>", ..V4 };

fn shape(tools: &Tools, most: Option<usize>) -> Shape {
    let attribute = |schema: &_| if is_text(Some(schema)) { " string=\"true\"" } else { " string=\"false\"" };
    let calls = tools.0.iter().map(|tool| invoke::shape(&V4, tool, "\n", attribute)).collect();
    Shape::Sequence(vec![
        Shape::Literal("<｜DSML｜tool_calls>\n".to_owned()),
        Shape::Repeat { shape: Box::new(Shape::OneOf(calls)), least: 1, most },
        Shape::Literal(V4.block_end.to_owned()),
    ])
}
