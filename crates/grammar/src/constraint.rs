//! What an answer is to be.

use serde_json::Value;
use vllm_parsers::Shape;

/// What an answer is to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Constraint {
    /// JSON that this schema admits, with properties in the schema's order.
    JsonSchema(Value),
    /// Any JSON object.
    JsonObject,
    /// What this regular expression matches as a whole. Syntax of the `regex` crate: no look-around, no references.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// What this grammar produces: Lark as llguidance reads it, or GBNF (told by its `::=`).
    Grammar(String),
    /// A text of this shape.
    Shape(Shape),
}
