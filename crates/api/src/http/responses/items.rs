//! Items of a conversation as clients send them.

use std::sync::Arc;

use serde_json::{Value, json};
use vllm_media::Detail;

use super::{reasoning, store::Item};
use crate::http::{ApiError, Fields, fields::show, media::take_detail};

/// Most items of one request. What no model's context holds need not be taken in.
const MAX_ITEMS: usize = 1 << 16;

/// Finds an item that was kept.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<Item>;

/// Takes `input`: a text or a list of items. Each leaves with an id and a status, as lists of items show it.
///
/// # Errors
/// 400 naming the item and field at fault, 404 for a reference to an item that isn't kept.
pub fn take_input(fields: &mut Fields, lookup: Lookup<'_>) -> Result<Vec<Item>, ApiError> {
    match fields.value("input") {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![Arc::new(user_message(text))]),
        Some(Value::Array(items)) if items.len() > MAX_ITEMS => {
            let message = format!("input has {} items: it may have at most {MAX_ITEMS}", items.len());
            Err(ApiError::field("input", message))
        }
        Some(Value::Array(items)) => {
            let item = |(index, item)| take_item(&format!("input[{index}]"), item, lookup);
            items.into_iter().enumerate().map(item).collect()
        }
        Some(other) => {
            let message = format!("input is {}: it must be a string or an array of items", show(&other));
            Err(ApiError::field("input", message))
        }
    }
}

/// A new name for an item.
pub fn new_id(prefix: &str) -> String {
    format!("{prefix}_{}", crate::random::hex_id())
}

fn user_message(text: String) -> Value {
    json!({
        "id": new_id("msg"),
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{ "type": "input_text", "text": text }],
    })
}

fn take_item(at: &str, item: Value, lookup: Lookup<'_>) -> Result<Item, ApiError> {
    let mut fields = Fields::of(item, at)?;
    let (id, role) = (fields.string("id")?, fields.string("role")?);
    let kind = match fields.string("type")? {
        Some(kind) => kind,
        // Messages and references may go without.
        None if role.is_some() => "message".into(),
        None if id.is_some() => "item_reference".into(),
        None => return Err(ApiError::field(at, format!("{at} has no type"))),
    };
    let mut reader = Reader { at, fields };
    let item = match kind.as_str() {
        "message" => reader.message(id, role)?,
        "reasoning" => reader.reasoning(id)?,
        "function_call" => reader.call(id, "fc", "function_call", "arguments")?,
        "custom_tool_call" => reader.call(id, "ctc", "custom_tool_call", "input")?,
        "function_call_output" => reader.output(id, "fco", "function_call_output")?,
        "custom_tool_call_output" => reader.output(id, "ctco", "custom_tool_call_output")?,
        "item_reference" => {
            let id = id.ok_or_else(|| reader.missing("id"))?;
            return lookup(&id).ok_or_else(|| {
                let message = format!("{at} refers to {id:?}: no stored response has such an item");
                ApiError::not_found("item_not_found", message).with_param(at)
            });
        }
        other => {
            let message = format!(
                "{at} is of type {other:?}: this server takes message, reasoning, function_call, \
                 function_call_output, custom_tool_call, custom_tool_call_output and item_reference"
            );
            return Err(ApiError::unsupported(at, message));
        }
    };
    reader.fields.finish();
    Ok(Arc::new(item))
}

struct Reader<'a> {
    at: &'a str,
    fields: Fields,
}

impl Reader<'_> {
    fn missing(&self, field: &str) -> ApiError {
        let param = format!("{}.{field}", self.at);
        ApiError::field(&param, format!("{param} is missing"))
    }

    fn required(&mut self, field: &str) -> Result<String, ApiError> {
        self.fields.string(field)?.ok_or_else(|| self.missing(field))
    }

    fn status(&mut self) -> Result<String, ApiError> {
        let status = self.fields.string("status")?.unwrap_or_else(|| "completed".into());
        if matches!(status.as_str(), "in_progress" | "completed" | "incomplete") {
            return Ok(status);
        }
        let param = format!("{}.status", self.at);
        let message = format!("{param} is {status:?}: it must be in_progress, completed or incomplete");
        Err(ApiError::field(&param, message))
    }

    fn message(&mut self, id: Option<String>, role: Option<String>) -> Result<Value, ApiError> {
        let role = role.ok_or_else(|| self.missing("role"))?;
        let kind = match role.as_str() {
            "user" | "system" | "developer" => "input_text",
            "assistant" => "output_text",
            _ => {
                let param = format!("{}.role", self.at);
                let message = format!("{param} is {role:?}: it must be user, assistant, system or developer");
                return Err(ApiError::field(&param, message));
            }
        };
        let content = self.fields.value("content").ok_or_else(|| self.missing("content"))?;
        Ok(json!({
            "id": id.unwrap_or_else(|| new_id("msg")),
            "type": "message",
            "status": self.status()?,
            "role": role,
            "content": take_parts(&format!("{}.content", self.at), content, kind)?,
        }))
    }

    fn reasoning(&mut self, id: Option<String>) -> Result<Value, ApiError> {
        let at = self.at;
        let summary = self.fields.array("summary")?.unwrap_or_default();
        let content = self.fields.array("content")?.unwrap_or_default();
        let encrypted = self.fields.string("encrypted_content")?;
        let part = |field: &'static str, kind: &'static str| {
            move |(index, part)| text_part(&format!("{at}.{field}[{index}]"), part, &[kind, "text"], kind)
        };
        let summary: Vec<Value> =
            summary.into_iter().enumerate().map(part("summary", "summary_text")).collect::<Result<_, _>>()?;
        let content: Vec<Value> =
            content.into_iter().enumerate().map(part("content", "reasoning_text")).collect::<Result<_, _>>()?;
        if let Some(text) = &encrypted
            && content.is_empty()
            && reasoning::unseal(text).is_none()
        {
            let param = format!("{at}.encrypted_content");
            let message = format!("{param} does not come from this server, which can't read it");
            return Err(ApiError::field(&param, message).with_code("invalid_encrypted_content"));
        }
        Ok(json!({
            "id": id.unwrap_or_else(|| new_id("rs")),
            "type": "reasoning",
            "status": self.status()?,
            "summary": summary,
            "content": content,
            "encrypted_content": encrypted,
        }))
    }

    fn call(&mut self, id: Option<String>, prefix: &str, kind: &str, payload: &str) -> Result<Value, ApiError> {
        let mut item = json!({
            "id": id.unwrap_or_else(|| new_id(prefix)),
            "type": kind,
            "status": self.status()?,
            "call_id": self.required("call_id")?,
            "name": self.required("name")?,
        });
        item[payload] = Value::String(self.required(payload)?);
        Ok(item)
    }

    fn output(&mut self, id: Option<String>, prefix: &str, kind: &str) -> Result<Value, ApiError> {
        let output = match self.fields.value("output").ok_or_else(|| self.missing("output"))? {
            text @ Value::String(_) => text,
            parts => Value::Array(take_parts(&format!("{}.output", self.at), parts, "input_text")?),
        };
        Ok(json!({
            "id": id.unwrap_or_else(|| new_id(prefix)),
            "type": kind,
            "status": self.status()?,
            "call_id": self.required("call_id")?,
            "output": output,
        }))
    }
}

/// Content of a message or an output: a text or parts, of `kind` each; where text goes in, images may, too.
fn take_parts(at: &str, content: Value, kind: &'static str) -> Result<Vec<Value>, ApiError> {
    match content {
        Value::String(text) => Ok(vec![text_of(kind, text)]),
        Value::Array(parts) => {
            let allowed: &[&str] = match kind {
                "output_text" => &["output_text", "refusal", "input_text", "text"],
                _ => &["input_text", "text"],
            };
            let part = |(index, part): (usize, Value)| {
                let at = format!("{at}[{index}]");
                let is_image = part.get("type").is_some_and(|given| given == "input_image");
                if is_image && kind == "input_text" {
                    image_part(&at, part)
                } else {
                    text_part(&at, part, allowed, kind)
                }
            };
            parts.into_iter().enumerate().map(part).collect()
        }
        other => {
            Err(ApiError::field(at, format!("{at} is {}: it must be a string or an array of parts", show(&other))))
        }
    }
}

fn text_part(at: &str, part: Value, allowed: &[&str], kind: &'static str) -> Result<Value, ApiError> {
    let mut fields = Fields::of(part, at)?;
    let given = fields.string("type")?;
    let Some(given) = given.as_deref() else {
        return Err(ApiError::field(at, format!("{at} has no type: it must be {kind}")));
    };
    if given.starts_with("input_") && given != "input_text" {
        let message = format!("{at} is of type {given}: it must be {kind}");
        return Err(ApiError::unsupported(at, message));
    }
    if !allowed.contains(&given) {
        return Err(ApiError::field(at, format!("{at} is of type {given:?}: it must be {kind}")));
    }
    let field = if given == "refusal" { "refusal" } else { "text" };
    let text = fields.string(field)?.ok_or_else(|| ApiError::field(at, format!("{at} has no {field}")))?;
    if given == "refusal" {
        return Ok(json!({ "type": "refusal", "refusal": text }));
    }
    Ok(text_of(kind, text))
}

/// An image as lists of items show it. Whether the model sees any, and where it is to be had, is found out with the messages.
fn image_part(at: &str, part: Value) -> Result<Value, ApiError> {
    let mut fields = Fields::of(part, at)?;
    fields.string("type")?;
    if fields.value("file_id").is_some() {
        let param = format!("{at}.file_id");
        let message = format!("{param}: this server keeps no files: send the image itself as a data URL, or its URL");
        return Err(ApiError::unsupported(&param, message));
    }
    let detail = match take_detail(&mut fields)?.unwrap_or_default() {
        Detail::Auto => "auto",
        Detail::Low => "low",
        Detail::High => "high",
    };
    let url = fields.string("image_url")?;
    let url = url.ok_or_else(|| ApiError::field(at, format!("{at} has no image_url")))?;
    fields.finish();
    Ok(json!({ "type": "input_image", "detail": detail, "image_url": url, "file_id": null }))
}

fn text_of(kind: &'static str, text: String) -> Value {
    match kind {
        "output_text" => json!({ "type": kind, "text": text, "annotations": [], "logprobs": [] }),
        _ => json!({ "type": kind, "text": text }),
    }
}
