//! Shapes that several formats share.

use super::parameters;
use crate::{Shape, Tool, Tools, typed_value};

/// This text.
pub(crate) fn literal(text: impl Into<String>) -> Shape {
    Shape::Literal(text.into())
}

/// This marker.
pub(crate) fn marker(text: &str) -> Shape {
    Shape::Marker(text.to_owned())
}

/// At least one call, at most `most`, with `between` them.
pub(crate) fn calls(tools: &Tools, most: Option<usize>, between: &[Shape], one: impl Fn(&Tool) -> Shape) -> Shape {
    let call = Shape::OneOf(tools.0.iter().map(one).collect());
    let next = Shape::Sequence(between.iter().cloned().chain([call.clone()]).collect());
    let others = Shape::Repeat { shape: Box::new(next), least: 0, most: most.map(|most| most.saturating_sub(1)) };
    Shape::Sequence(vec![call, others])
}

/// A tool's arguments as JSON: by its schema, else any object.
pub(crate) fn arguments(tool: &Tool) -> Shape {
    Shape::Json(tool.parameters_or_object())
}

/// `{"name": "f", "arguments": {…}}`, with `key` for `arguments`.
pub(crate) fn envelope(tool: &Tool, key: &str) -> Shape {
    Shape::Sequence(vec![
        literal(format!("{{\"name\": {}, \"{key}\": ", typed_value::quoted(&tool.name))),
        arguments(tool),
        literal("}"),
    ])
}

/// `[{"name": "f", "arguments": {…}}, …]`
pub(crate) fn list(tools: &Tools, most: Option<usize>) -> Shape {
    let calls = calls(tools, most, &[literal(", ")], |tool| envelope(tool, "arguments"));
    Shape::Sequence(vec![literal("["), calls, literal("]")])
}

/// `<tool_call>\n…\n</tool_call>`
pub(crate) fn tagged(inside: Shape) -> Shape {
    Shape::Sequence(vec![marker("<tool_call>"), literal("\n"), inside, literal("\n"), marker("</tool_call>")])
}

/// `<function=f>{…}</function>`
pub(crate) fn json_function(tool: &Tool) -> Shape {
    Shape::Sequence(vec![literal(format!("<function={}>", tool.name)), arguments(tool), literal("</function>")])
}

/// `<function=f>\n<parameter=k>\nv\n</parameter>\n</function>`, parameters in the schema's order.
pub(crate) fn tagged_function(tool: &Tool) -> Shape {
    let described = tool.parameters.as_ref().is_some_and(|schema| schema.get("properties").is_some());
    let parameters = if described {
        parameters::shape(tool, |name, schema| {
            Shape::Sequence(vec![
                literal(format!("<parameter={name}>\n")),
                parameters::value_shape(schema, "</parameter>"),
                literal("\n</parameter>\n"),
            ])
        })
    } else {
        Shape::Repeat { shape: Box::new(any_parameter()), least: 0, most: None }
    };
    Shape::Sequence(vec![literal(format!("<function={}>\n", tool.name)), parameters, literal("</function>")])
}

fn any_parameter() -> Shape {
    Shape::Sequence(vec![
        literal("<parameter="),
        Shape::Regex("[A-Za-z0-9_.-]{1,64}".to_owned()),
        literal(">\n"),
        Shape::Text { without: vec!["</parameter>".to_owned()] },
        literal("\n</parameter>\n"),
    ])
}

#[cfg(test)]
mod tests;
