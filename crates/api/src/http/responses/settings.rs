//! Fields of a body that stand by themselves.

use serde_json::{Map, Value, json};

use crate::http::{ApiError, Fields, chat::OutputFormat, fields::show};

/// Most pairs of `metadata`, and the longest of their keys and values.
const MAX_PAIRS: usize = 16;
const MAX_KEY: usize = 64;
const MAX_VALUE: usize = 512;

/// What becomes of a response, and the fields that it only repeats.
#[derive(Debug)]
pub struct Settings {
    /// Whether it can be asked for again.
    pub store: bool,
    /// Whether the oldest messages are left out if there are too many.
    pub truncate: bool,
    /// As the response shows them.
    pub shown: Map<String, Value>,
}

impl Settings {
    /// Takes them.
    ///
    /// # Errors
    /// 400 for wrong types and values.
    pub fn take(fields: &mut Fields) -> Result<Self, ApiError> {
        let store = fields.boolean("store")?.unwrap_or(true);
        let truncation = fields.string("truncation")?.unwrap_or_else(|| "disabled".into());
        if !matches!(truncation.as_str(), "auto" | "disabled") {
            let message = format!("truncation is {truncation:?}: it must be auto or disabled");
            return Err(ApiError::field("truncation", message));
        }
        if let Some(tier) = fields.string("service_tier")?
            && !matches!(tier.as_str(), "auto" | "default")
        {
            let message = format!("service_tier is {tier:?}: use auto or default");
            return Err(ApiError::unsupported("service_tier", message));
        }
        let truncate = truncation == "auto";
        let mut shown = Map::new();
        shown.insert("metadata".into(), take_metadata(fields)?);
        // It bounds calls of tools that the server runs by itself; there are none.
        shown.insert("max_tool_calls".into(), json!(fields.integer("max_tool_calls", 1..=i64::MAX)?));
        shown.insert("service_tier".into(), json!("default"));
        shown.insert("store".into(), json!(store));
        shown.insert("truncation".into(), json!(truncation));
        // For OpenAI's own books and caches; they change no answer.
        for name in ["user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"] {
            shown.insert(name.into(), json!(fields.string(name)?));
        }
        Ok(Self { store, truncate, shown })
    }
}

fn take_metadata(fields: &mut Fields) -> Result<Value, ApiError> {
    let error = |message: String| Err(ApiError::field("metadata", message));
    let pairs = fields.object("metadata")?.map(Fields::into_map).unwrap_or_default();
    if pairs.len() > MAX_PAIRS {
        return error(format!("metadata has {} pairs: it may have at most {MAX_PAIRS}", pairs.len()));
    }
    for (key, value) in &pairs {
        let Value::String(text) = value else {
            return error(format!("metadata has {} for {}: it must be a string", show(value), show(&json!(key))));
        };
        if key.chars().count() > MAX_KEY || text.chars().count() > MAX_VALUE {
            return error(format!("metadata has keys of at most {MAX_KEY} characters, values of at most {MAX_VALUE}"));
        }
    }
    Ok(Value::Object(pairs))
}

/// What a response holds beyond the usual.
#[derive(Debug, Clone, Copy, Default)]
pub struct Include {
    /// Log probabilities of its text.
    pub logprobs: bool,
    /// The chain of thought in one opaque string.
    pub sealed: bool,
}

/// Takes `include`.
///
/// # Errors
/// 400 for what OpenAI doesn't have either.
pub fn take_include(fields: &mut Fields) -> Result<Include, ApiError> {
    let mut include = Include::default();
    for item in fields.array("include")?.unwrap_or_default() {
        match item.as_str() {
            Some("message.output_text.logprobs") => include.logprobs = true,
            Some("reasoning.encrypted_content") => include.sealed = true,
            // Parts of items that no response here has.
            Some(
                "file_search_call.results"
                | "web_search_call.results"
                | "web_search_call.action.sources"
                | "message.input_image.image_url"
                | "computer_call_output.output.image_url"
                | "code_interpreter_call.outputs",
            ) => {}
            _ => {
                let message = format!(
                    "include has {}: this server has message.output_text.logprobs and reasoning.encrypted_content",
                    show(&item)
                );
                return Err(ApiError::unsupported("include", message));
            }
        }
    }
    Ok(include)
}

/// `text`.
#[derive(Debug)]
pub struct Text {
    /// What the answer's text must look like.
    pub format: OutputFormat,
    /// As the response shows it.
    pub shown: Value,
}

/// Takes `text`.
///
/// # Errors
/// 400 for wrong types and values.
pub fn take_text(fields: &mut Fields) -> Result<Text, ApiError> {
    let mut taken =
        Text { format: OutputFormat::Text, shown: json!({ "format": { "type": "text" }, "verbosity": "medium" }) };
    let Some(mut text) = fields.object("text")? else { return Ok(taken) };
    if let Some(format) = text.value("format") {
        taken.shown["format"] = format.clone();
        taken.format = OutputFormat::from_response_format(Fields::of(format, "text.format")?, "text.format")?;
    }
    if let Some(verbosity) = text.string("verbosity")?
        && verbosity != "medium"
    {
        let message = format!("text.verbosity is {verbosity:?}: use medium, or say it in instructions");
        return Err(ApiError::unsupported("text.verbosity", message));
    }
    text.finish();
    Ok(taken)
}

/// `reasoning`.
#[derive(Debug, Default)]
pub struct Reasoning {
    /// How hard to think.
    pub effort: Option<String>,
    summary: Option<String>,
}

impl Reasoning {
    /// As the response shows it.
    #[must_use]
    pub fn shown(&self) -> Value {
        json!({ "effort": self.effort, "summary": self.summary })
    }
}

/// Takes `reasoning`. Chains of thought are shown as they are, without a summary: `auto` means the best there is, and
/// is as good as none; a certain kind of summary is refused.
///
/// # Errors
/// 400 for wrong types and values.
pub fn take_reasoning(fields: &mut Fields) -> Result<Reasoning, ApiError> {
    let Some(mut reasoning) = fields.object("reasoning")? else { return Ok(Reasoning::default()) };
    let taken = Reasoning {
        effort: reasoning.string("effort")?,
        summary: match reasoning.string("summary")? {
            Some(summary) => Some(summary),
            // Its old name.
            None => reasoning.string("generate_summary")?,
        },
    };
    let (context, mode) = (reasoning.string("context")?, reasoning.string("mode")?);
    reasoning.string("generate_summary")?;
    let only = [("summary", &taken.summary, "auto"), ("context", &context, "auto"), ("mode", &mode, "standard")];
    for (name, value, allowed) in only {
        if let Some(value) = value
            && value != allowed
        {
            let param = format!("reasoning.{name}");
            let message = format!("{param} is {value:?}: only {allowed} is supported");
            return Err(ApiError::unsupported(&param, message));
        }
    }
    reasoning.finish();
    Ok(taken)
}
