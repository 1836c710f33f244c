//! What text must look like, for grammars that hold a model to it.

use serde_json::Value;

/// A set of texts.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// This text.
    Literal(String),
    /// This marker: the token of that name where the vocabulary has a special one, else the text.
    Marker(String),
    /// JSON that this schema admits.
    Json(Value),
    /// What this regular expression matches as a whole.
    Regex(String),
    /// Any text in which none of these occurs.
    Text {
        /// Not empty strings.
        without: Vec<String>,
    },
    /// One after the other.
    Sequence(Vec<Self>),
    /// Any of them.
    OneOf(Vec<Self>),
    /// Several times.
    Repeat {
        /// What is repeated.
        shape: Box<Self>,
        /// At least so many times.
        least: usize,
        /// At most so many times.
        most: Option<usize>,
    },
}
