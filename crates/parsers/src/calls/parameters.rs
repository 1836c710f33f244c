//! Arguments that a model writes one by one, not as JSON: what comes out is one JSON object all the same.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value as Json;

use super::emitter::Emitter;
use super::shapes;
use crate::{Shape, Tool, Tools, json_scan, typed_value};

/// Writes the arguments of one call.
#[derive(Debug)]
pub(super) struct Parameters {
    tools: Arc<Tools>,
    tool: String,
    keys: HashSet<String>,
    value: Value,
}

/// What says which type a value has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TypedBy {
    /// The tool's schema.
    Schema,
    /// The model: it is text.
    Text,
    /// The model: it is JSON.
    Json,
}

#[derive(Debug)]
enum Value {
    /// Between two.
    None,
    /// Text goes out while it comes.
    Text,
    /// Any other value has to be complete.
    Other { key: String, text: String, typed_by: TypedBy },
    /// A second one for the same key.
    Duplicate,
}

impl Parameters {
    /// A call of this tool begins.
    pub(super) fn begin(tool: &str, tools: &Arc<Tools>, emitter: &mut Emitter) -> Self {
        emitter.call(tool.to_owned(), None);
        emitter.arguments("{");
        Self { tools: Arc::clone(tools), tool: tool.to_owned(), keys: HashSet::new(), value: Value::None }
    }

    /// A parameter's value begins.
    pub(super) fn open(&mut self, key: &str, typed_by: TypedBy, emitter: &mut Emitter) {
        let first = self.keys.is_empty();
        if !self.keys.insert(key.to_owned()) {
            self.value = Value::Duplicate;
            return;
        }
        emitter.arguments(if first { "" } else { ", " });
        emitter.arguments(&typed_value::quoted(key));
        emitter.arguments(": ");
        let text = match typed_by {
            TypedBy::Schema => typed_value::is_text(self.tools.argument(&self.tool, key)),
            TypedBy::Text => true,
            TypedBy::Json => false,
        };
        self.value = if text {
            emitter.arguments("\"");
            Value::Text
        } else {
            Value::Other { key: key.to_owned(), text: String::new(), typed_by }
        };
    }

    /// More of the value.
    pub(super) fn push(&mut self, more: &str, emitter: &mut Emitter) {
        match &mut self.value {
            Value::Text => emitter.arguments(&json_text(more)),
            Value::Other { text, .. } => text.push_str(more),
            Value::None | Value::Duplicate => {}
        }
    }

    /// The value is complete.
    pub(super) fn close(&mut self, emitter: &mut Emitter) {
        match std::mem::replace(&mut self.value, Value::None) {
            Value::Text => emitter.arguments("\""),
            Value::Other { key, text, typed_by } => {
                let schema = match typed_by {
                    TypedBy::Schema => self.tools.argument(&self.tool, &key),
                    TypedBy::Text | TypedBy::Json => None,
                };
                emitter.arguments(&typed_value::to_json(&text, schema));
            }
            Value::None | Value::Duplicate => {}
        }
    }

    /// The call is complete.
    pub(super) fn end(&mut self, emitter: &mut Emitter) {
        emitter.arguments("}");
    }
}

/// A piece of a JSON string's inside.
pub(super) fn json_text(text: &str) -> String {
    let mut json = String::with_capacity(text.len());
    text.chars().for_each(|c| json_scan::write_char(c, &mut json));
    json
}

/// The parameters of a tool one after the other, as its schema lists them; `write` says how one is written. Those that
/// the schema doesn't require may be left out.
pub(super) fn shape(tool: &Tool, write: impl Fn(&Tool, &str, &Json) -> Shape) -> Shape {
    let schema = tool.parameters.as_ref();
    let properties = schema.and_then(|schema| schema.get("properties")).and_then(Json::as_object);
    let parameter = |(key, property): (&String, &Json)| {
        let shape = write(tool, key, property);
        if schema.is_some_and(|schema| is_required(schema, key)) { shape } else { shapes::optional(shape) }
    };
    Shape::Sequence(properties.into_iter().flatten().map(parameter).collect())
}

/// Whether an object's schema requires that property.
pub(super) fn is_required(schema: &Json, key: &str) -> bool {
    let required = schema.get("required").and_then(Json::as_array);
    required.is_some_and(|required| required.iter().any(|name| name == key))
}

/// A value before the marker `end`.
pub(super) fn value_shape(tool: &Tool, schema: &Json, end: &str) -> Shape {
    match shapes::parameter_value(tool, schema) {
        Shape::Text { .. } => Shape::Text { without: vec![end.to_owned()] },
        shape => shape,
    }
}
