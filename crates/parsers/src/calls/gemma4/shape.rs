//! Gemma's notation as a shape, by the tools' schemas.

use serde_json::Value;

use super::{CALL, CLOSE, OPEN, QUOTE};
use crate::calls::parameters::is_required;
use crate::calls::shapes::{self, literal, marker, optional};
use crate::typed_value::is_text;
use crate::{Shape, Tool, Tools};

/// How deep schemas are followed; what is nested deeper may be any value without braces.
const MOST_NESTED: usize = 6;

/// Calls, each in a block of its own, as the model's template writes them.
pub(super) fn calls(tools: &Tools, most: Option<usize>) -> Shape {
    let call = |tool: &Tool| {
        let arguments = tool.parameters.as_ref().unwrap_or(&Value::Null);
        Shape::Sequence(vec![
            marker(OPEN),
            literal(format!("{CALL}{}", tool.name)),
            object(arguments, MOST_NESTED),
            marker(CLOSE),
        ])
    };
    shapes::calls(tools, most, &[], call)
}

/// Properties in the schema's order. The first one that is required stands without a comma before it; those before it
/// bring one behind them.
fn object(schema: &Value, levels: usize) -> Shape {
    let properties: Vec<(&String, &Value)> =
        schema.get("properties").and_then(Value::as_object).into_iter().flatten().collect();
    let pair = |key: &str, property: &Value| {
        Shape::Sequence(vec![literal(format!("{key}:")), value(property, levels.saturating_sub(1))])
    };
    let first = properties.iter().position(|(key, _)| is_required(schema, key));
    let mut parts = vec![literal("{")];
    for (at, (key, property)) in properties.iter().enumerate() {
        let shape = pair(key, property);
        let comma = literal(",");
        parts.push(match first {
            Some(first) if at == first => shape,
            Some(first) if at < first => optional(Shape::Sequence(vec![shape, comma])),
            Some(_) if is_required(schema, key) => Shape::Sequence(vec![comma, shape]),
            Some(_) => optional(Shape::Sequence(vec![comma, shape])),
            None => continue,
        });
    }
    if first.is_none() && !properties.is_empty() {
        // All may be left out: whichever comes first has no comma.
        let from = |at: usize| {
            let rest = properties.iter().skip(at).enumerate().map(|(behind, (key, property))| {
                let shape = pair(key, property);
                if behind == 0 { shape } else { optional(Shape::Sequence(vec![literal(","), shape])) }
            });
            Shape::Sequence(rest.collect())
        };
        parts.push(optional(Shape::OneOf((0..properties.len()).map(from).collect())));
    }
    parts.push(literal("}"));
    Shape::Sequence(parts)
}

fn value(schema: &Value, levels: usize) -> Shape {
    let choices = schema.get("enum").and_then(Value::as_array);
    let kind = schema.get("type").and_then(Value::as_str);
    match kind {
        _ if is_text(Some(schema)) => match choices {
            Some(choices) => Shape::OneOf(choices.iter().filter_map(Value::as_str).map(choice).collect()),
            None => text(),
        },
        Some("object") if levels > 0 => object(schema, levels),
        Some("array") if levels > 0 => {
            let item = value(schema.get("items").unwrap_or(&Value::Null), levels - 1);
            let more = Shape::Sequence(vec![literal(","), item.clone()]);
            let items = Shape::Sequence(vec![item, Shape::Repeat { shape: Box::new(more), least: 0, most: None }]);
            Shape::Sequence(vec![literal("["), optional(items), literal("]")])
        }
        Some("integer" | "number" | "boolean" | "null") => Shape::Json(schema.clone()),
        _ => Shape::OneOf(vec![text(), Shape::Regex("-?[0-9]+(\\.[0-9]+)?|true|false|null".to_owned())]),
    }
}

fn text() -> Shape {
    Shape::Sequence(vec![marker(QUOTE), Shape::Text { without: vec![QUOTE.to_owned()] }, marker(QUOTE)])
}

fn choice(text: &str) -> Shape {
    Shape::Sequence(vec![marker(QUOTE), literal(text), marker(QUOTE)])
}
