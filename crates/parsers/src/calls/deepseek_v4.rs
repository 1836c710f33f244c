//! DeepSeek V3.2 and V4, "DSML": a block of
//! `<｜DSML｜invoke name="f"><｜DSML｜parameter name="k" string="true">v</｜DSML｜parameter></｜DSML｜invoke>`.
//!
//! `string="true"` says that the value is text, `"false"` that it is JSON. V3.2 calls the block `function_calls`, V4
//! `tool_calls`.

use super::CallFormat;
use super::invoke::{self, Invokes, Tags};
use super::scanner::{Opening, Scanner};
use super::shapes::{self, literal};
use super::steps::Stepped;
use crate::typed_value::is_text;
use crate::{Shape, Tools};

pub(super) const DEEPSEEK_V4: CallFormat = CallFormat {
    names: &["deepseek_v4", "dsml"],
    markers: &[BLOCK, BLOCK_V32, V4.invoke, "｜DSML｜"],
    stops: &[],
    native_history: true,
    parser: |tools| {
        let block = |marker, block| Opening::new(marker, block);
        let openings = vec![
            block(BLOCK, |tools, _| Box::new(Stepped::new(Invokes::block(&V4, tools)))),
            block(BLOCK_V32, |tools, _| Box::new(Stepped::new(Invokes::block(&V32, tools)))),
            block(V4.invoke, |tools, _| Box::new(Stepped::new(Invokes::bare(&V4, tools)))),
        ];
        Box::new(Scanner::new(tools, openings, &[V4.invoke_end, V4.block_end, V32.block_end]))
    },
    shape,
};

const BLOCK: &str = "<｜DSML｜tool_calls>";
const BLOCK_V32: &str = "<｜DSML｜function_calls>";

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
    let calls = shapes::calls(tools, most, &[], |tool| invoke::shape(&V4, tool, attribute));
    Shape::Sequence(vec![literal(format!("{BLOCK}\n")), calls, literal(V4.block_end)])
}
