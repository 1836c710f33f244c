//! Fitting OpenAI messages to what a template reads.
//!
//! Templates disagree about three things, and say so nowhere: whether `content` may be a list of parts, whether a tool
//! call's `arguments` are an object or JSON text, and whether an assistant message that only calls tools has `content`
//! null or empty. They are asked by rendering small probes.

use serde_json::{Map, Value, json};

use super::error::TemplateError;
use super::media::{self, MediaMarks};

/// What a template makes of message content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContentForm {
    /// Strings and lists of parts.
    Both,
    /// Strings only: text parts are joined.
    Text,
    /// Lists of parts only.
    Parts,
}

/// How a template reads tool calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ToolCallForm {
    /// `arguments` are an object (else JSON text, as OpenAI sends them).
    pub(crate) object_arguments: bool,
    /// An assistant message without text has `content` null (else "").
    pub(crate) null_content: bool,
}

/// Text that no template contains by itself.
pub(crate) const NEEDLE: &str = "qx7needle";

/// Renders messages and tools; `None` if the template fails on them.
pub(crate) type Render<'a> = &'a dyn Fn(&[Value], Option<&[Value]>) -> Option<String>;

/// Finds out how a template reads content.
pub(crate) fn probe_content(render: Render<'_>) -> ContentForm {
    let shows = |content: Value, clean: bool| {
        render(&[json!({"role": "user", "content": content})], None).is_some_and(|prompt| {
            // A template that prints the list itself shows Python's or JSON's notation of it.
            prompt.contains(NEEDLE) && !(clean && (prompt.contains("'type':") || prompt.contains("\"type\":")))
        })
    };
    match (shows(json!(NEEDLE), false), shows(json!([{"type": "text", "text": NEEDLE}]), true)) {
        (true, true) => ContentForm::Both,
        (false, true) => ContentForm::Parts,
        (_, false) => ContentForm::Text,
    }
}

/// Finds out how a template reads tool calls. One that knows none gets what most would want.
pub(crate) fn probe_tool_calls(render: Render<'_>) -> ToolCallForm {
    find_tool_call_form(render, false).unwrap_or(ToolCallForm { object_arguments: true, null_content: false })
}

/// Whether a template shows the calls of earlier turns and their results.
pub(crate) fn shows_tool_calls(render: Render<'_>) -> bool {
    find_tool_call_form(render, true).is_some()
}

/// Whether a template tells of the tools that there are.
pub(crate) fn probe_tools(render: Render<'_>) -> bool {
    let messages = [json!({"role": "user", "content": "x"})];
    render(&messages, Some(&[probe_tool()])).is_some_and(|prompt| prompt.contains(PROBE))
}

/// Name of a tool that no template contains by itself.
pub(crate) const PROBE: &str = "qx7probe";

fn probe_tool() -> Value {
    let parameters = json!({"type": "object", "properties": {}});
    json!({"type": "function", "function": {"name": PROBE, "description": "x", "parameters": parameters}})
}

/// The form in which calls are shown, and their results, too, if `results` must be.
fn find_tool_call_form(render: Render<'_>, results: bool) -> Option<ToolCallForm> {
    let key = format!("{NEEDLE}key");
    let value = format!("{NEEDLE}value");
    let result = format!("{NEEDLE}result");
    let shows = |form: &ToolCallForm, tools: Option<&[Value]>| {
        let arguments = json!({key.as_str(): value});
        let arguments = if form.object_arguments { arguments } else { Value::String(arguments.to_string()) };
        let content = if form.null_content { Value::Null } else { json!("") };
        let call = json!({"id": "call00001", "type": "function", "function": {"name": PROBE, "arguments": arguments}});
        let messages = [
            json!({"role": "user", "content": "x"}),
            json!({"role": "assistant", "content": content, "tool_calls": [call]}),
            json!({"role": "tool", "tool_call_id": "call00001", "name": PROBE, "content": result}),
        ];
        render(&messages, tools).is_some_and(|prompt| {
            // Not as Python's notation of a dict, not as JSON text within JSON, no "None" for the missing content.
            let clean = !prompt.contains(&format!("'{key}'")) && !prompt.contains("\\\"") && !prompt.contains("None");
            let answered = !results || prompt.contains(&result);
            prompt.contains(&key) && prompt.contains(&value) && answered && clean
        })
    };
    let forms = [(true, true), (true, false), (false, true), (false, false)]
        .map(|(object_arguments, null_content)| ToolCallForm { object_arguments, null_content });
    // Without tools first: their own notation in the prompt could be mistaken for that of the arguments.
    [None, Some(std::slice::from_ref(&probe_tool()))]
        .into_iter()
        .find_map(|tools| forms.into_iter().find(|form| shows(form, tools)))
}

/// A copy of `messages` in the forms a template wants. The forms are looked up only if some message needs them, and so is
/// whether it shows media of a kind in messages of a role.
pub(crate) fn fit(
    messages: &[Value],
    content_form: impl Fn() -> ContentForm,
    tool_call_form: impl Fn() -> ToolCallForm,
    marks: &MediaMarks<'_>,
    shows_media: impl Fn(&str, media::Kind) -> bool,
) -> Result<Vec<Value>, TemplateError> {
    if messages.is_empty() {
        return Err(TemplateError::NoMessages);
    }
    messages
        .iter()
        .enumerate()
        .map(|(index, message)| {
            let Value::Object(message) = message else {
                return Err(TemplateError::NotAMessage { index, found: kind_of(message) });
            };
            let mut message = message.clone();
            alias_reasoning(&mut message);
            if message.get("tool_calls").is_some_and(|calls| calls.as_array().is_some_and(|calls| !calls.is_empty())) {
                fit_tool_calls(&mut message, tool_call_form());
            }
            let role = message.get("role").and_then(Value::as_str).unwrap_or_default().to_owned();
            if let Some(content) = message.get_mut("content") {
                media::fit(content, marks, |kind| shows_media(&role, kind));
                fit_content(content, index, &content_form)?;
            }
            Ok(Value::Object(message))
        })
        .collect()
}

/// Reasoning travels under three names; templates read one of them.
fn alias_reasoning(message: &mut Map<String, Value>) {
    const NAMES: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];
    let found = NAMES.iter().find_map(|&name| message.get(name).filter(|value| !value.is_null()));
    if let Some(reasoning) = found.cloned() {
        message.insert("reasoning_content".to_owned(), reasoning.clone());
        message.entry("thinking").or_insert(reasoning);
    }
}

fn fit_tool_calls(message: &mut Map<String, Value>, form: ToolCallForm) {
    let content = message.entry("content").or_insert(Value::Null);
    if content.is_null() && !form.null_content {
        *content = Value::String(String::new());
    }
    for call in message.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten() {
        let arguments = match call.get_mut("function") {
            Some(function) => function.get_mut("arguments"),
            None => call.get_mut("arguments"),
        };
        match arguments {
            Some(arguments) if form.object_arguments => {
                // What is not JSON stays as the model wrote it: the template shows it, or says what it minds.
                let parsed = arguments.as_str().map(|text| if text.trim().is_empty() { "{}" } else { text });
                if let Some(parsed) = parsed.and_then(|text| serde_json::from_str(text).ok()) {
                    *arguments = parsed;
                }
            }
            Some(arguments) if !arguments.is_string() => *arguments = Value::String(arguments.to_string()),
            _ => {}
        }
    }
}

fn fit_content(content: &mut Value, index: usize, form: &impl Fn() -> ContentForm) -> Result<(), TemplateError> {
    match content {
        Value::Array(parts) if form() == ContentForm::Text => {
            let mut texts = Vec::with_capacity(parts.len());
            for (part, value) in parts.iter().enumerate() {
                match value.get("text").and_then(Value::as_str).or(value.as_str()) {
                    Some(text) => texts.push(text),
                    None => {
                        let kind =
                            value.get("type").and_then(Value::as_str).unwrap_or_else(|| kind_of(value)).to_owned();
                        return Err(TemplateError::NotText { index, part, kind });
                    }
                }
            }
            *content = Value::String(texts.join("\n"));
        }
        Value::String(text) if form() == ContentForm::Parts => {
            *content = json!([{"type": "text", "text": text}]);
        }
        _ => {}
    }
    Ok(())
}

/// What a value is, in JSON's words.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
