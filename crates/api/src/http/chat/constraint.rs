//! What the answer to a conversation must look like: its format and its tool calls, as one grammar.

use vllm_grammar::Constraint;
use vllm_parsers::{CallFormat, Shape};

use super::{OutputFormat, ToolOffer, tools::ToolChoice};
use crate::http::ApiError;

impl OutputFormat {
    /// The format as a grammar; `None` if any text will do.
    #[must_use]
    pub fn constraint(&self) -> Option<Constraint> {
        Some(match self {
            Self::Text => return None,
            Self::JsonObject => Constraint::JsonObject,
            Self::JsonSchema(schema) => Constraint::JsonSchema(schema.clone()),
            Self::Regex(pattern) => Constraint::Regex(pattern.clone()),
            Self::Choice(choices) => Constraint::Choice(choices.clone()),
            Self::Grammar(grammar) => Constraint::Grammar(grammar.clone()),
        })
    }
}

/// What calls hold that parsers also take without a marker before them.
const BARE_OPENINGS: &[&str] = &["\"name\"", "\"type\"", "<function="];

/// The grammar of an answer, with the parameter that asks for it; `None` if any text will do.
///
/// # Errors
/// 400 for a format that can't be had together with tools, and for tools with a model that calls none.
pub fn constraint(
    format: &OutputFormat,
    offer: &ToolOffer,
    calls: Option<&CallFormat>,
) -> Result<Option<(Constraint, &'static str)>, ApiError> {
    if !offer.is_active() {
        return Ok(format.constraint().map(|constraint| (constraint, "response_format")));
    }
    let shape = |calls: &CallFormat| (calls.shape)(&offer.callable(), offer.most_calls());
    let strict = offer.tools.0.iter().any(|tool| tool.strict);
    match (&offer.choice, calls) {
        (ToolChoice::Required | ToolChoice::Named(_), None) => {
            let message = "tool_choice: it isn't known how this model writes tool calls: see --tool-call-parser";
            Err(ApiError::unsupported("tool_choice", message))
        }
        (ToolChoice::Required | ToolChoice::Named(_), Some(calls)) => {
            Ok(Some((Constraint::Shape(shape(calls)), "tools")))
        }
        // Text or calls: text must not begin as a call does, or it would be one that no grammar held.
        (_, Some(calls)) if strict && *format == OutputFormat::Text => {
            let openings = calls.markers.iter().chain(BARE_OPENINGS);
            let without: Vec<String> = openings.map(|&opening| opening.to_owned()).collect();
            let optional = Shape::Repeat { shape: Box::new(shape(calls)), least: 0, most: Some(1) };
            Ok(Some((Constraint::Shape(Shape::Sequence(vec![Shape::Text { without }, optional])), "tools")))
        }
        (_, calls) => match (format, calls) {
            (OutputFormat::Text, _) => Ok(None),
            (OutputFormat::JsonSchema(schema), Some(calls)) => {
                let either = Shape::OneOf(vec![Shape::Json(schema.clone()), shape(calls)]);
                Ok(Some((Constraint::Shape(either), "response_format")))
            }
            (OutputFormat::JsonObject, Some(calls)) => {
                let object = Shape::Json(serde_json::json!({ "type": "object" }));
                Ok(Some((Constraint::Shape(Shape::OneOf(vec![object, shape(calls)])), "response_format")))
            }
            (OutputFormat::Regex(pattern), Some(calls)) => {
                let either = Shape::OneOf(vec![Shape::Regex(pattern.clone()), shape(calls)]);
                Ok(Some((Constraint::Shape(either), "response_format")))
            }
            (OutputFormat::Choice(choices), Some(calls)) => {
                let texts = choices.iter().map(|text| Shape::Literal(text.clone()));
                let either = Shape::OneOf(texts.chain([shape(calls)]).collect());
                Ok(Some((Constraint::Shape(either), "response_format")))
            }
            (OutputFormat::Grammar(_), _) | (_, None) => {
                let message =
                    "this format can't be kept together with tools: leave out one, or set tool_choice to none";
                Err(ApiError::unsupported("response_format", message))
            }
        },
    }
}
