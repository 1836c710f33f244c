//! Shapes that several formats share.

use serde_json::{Map, Value, json};

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
    if most == Some(1) {
        return call;
    }
    let next = Shape::Sequence(between.iter().cloned().chain([call.clone()]).collect());
    let others = Shape::Repeat { shape: Box::new(next), least: 0, most: most.map(|most| most.saturating_sub(1)) };
    Shape::Sequence(vec![call, others])
}

/// A tool's arguments as JSON: by its schema, else any object.
pub(crate) fn arguments(tool: &Tool) -> Shape {
    Shape::Json(tool.parameters.clone().unwrap_or_else(|| json!({"type": "object"})))
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
    let mut parts = vec![literal(format!("<function={}>\n", tool.name))];
    match tool.parameters.as_ref().and_then(|schema| schema.get("properties")).and_then(Value::as_object) {
        None => parts.push(many(any_parameter())),
        Some(properties) => {
            parts.extend(properties.iter().map(|(name, schema)| parameter(tool, name, schema)));
        }
    }
    parts.push(literal("</function>"));
    Shape::Sequence(parts)
}

fn parameter(tool: &Tool, name: &str, schema: &Value) -> Shape {
    let whole = Shape::Sequence(vec![
        literal(format!("<parameter={name}>\n")),
        parameter_value(tool, schema),
        literal("\n</parameter>\n"),
    ]);
    let required = tool.parameters.as_ref().and_then(|schema| schema.get("required")).and_then(Value::as_array);
    if required.is_some_and(|names| names.iter().any(|required| required == name)) { whole } else { optional(whole) }
}

/// A value between tags: text as it is, everything else as JSON. Where it may be either, [`typed_value`] tells them apart.
pub(crate) fn parameter_value(tool: &Tool, schema: &Value) -> Shape {
    if !typed_value::may_be_text(Some(schema)) {
        return Shape::Json(with_definitions(tool, schema));
    }
    let choice = |value: &Value| literal(value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    match (schema.get("enum"), schema.get("const")) {
        (Some(Value::Array(choices)), _) if !choices.is_empty() => Shape::OneOf(choices.iter().map(choice).collect()),
        (_, Some(only)) => choice(only),
        _ => any_text(),
    }
}

/// What `$ref`s in the schema of one parameter point to stands in the schema of all.
fn with_definitions(tool: &Tool, schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let (Value::Object(schema), Some(root)) = (&mut schema, &tool.parameters) {
        for definitions in ["$defs", "definitions"] {
            if let Some(value) = root.get(definitions) {
                entry(schema, definitions, value);
            }
        }
    }
    schema
}

fn entry(schema: &mut Map<String, Value>, key: &str, value: &Value) {
    schema.entry(key.to_owned()).or_insert_with(|| value.clone());
}

fn any_parameter() -> Shape {
    Shape::Sequence(vec![
        literal("<parameter="),
        Shape::Regex("[A-Za-z0-9_.-]{1,64}".to_owned()),
        literal(">\n"),
        any_text(),
        literal("\n</parameter>\n"),
    ])
}

fn any_text() -> Shape {
    Shape::Text { without: ["</parameter>", "</function>", "</tool_call>"].map(str::to_owned).to_vec() }
}

/// This or nothing.
pub(crate) fn optional(shape: Shape) -> Shape {
    Shape::Repeat { shape: Box::new(shape), least: 0, most: Some(1) }
}

fn many(shape: Shape) -> Shape {
    Shape::Repeat { shape: Box::new(shape), least: 0, most: None }
}

#[cfg(test)]
mod tests;
