//! OpenAI's messages as a chat template wants them.

use serde_json::{Map, Value, json};

use super::{
    ApiError, Fields,
    fields::{kind, show},
    media::{Kind, Media},
};

/// Checks messages and brings them into the form that templates are written for: contents are strings, or texts and media
/// where there are media, tool arguments are objects, `developer` is `system`. The media themselves go into `media`.
///
/// # Errors
/// 400 naming the message and field at fault.
pub fn normalise(messages: Vec<Value>, media: &mut Media) -> Result<Vec<Value>, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::field("messages", "messages is empty: there must be at least one"));
    }
    let one = |(index, message)| normalise_one(&format!("messages[{index}]"), "content", message, media);
    messages.into_iter().enumerate().map(one).collect()
}

/// [`normalise`] for one message that stands at `at`; what it says was in its field `content_name`.
///
/// # Errors
/// As above.
pub fn normalise_one(at: &str, content_name: &str, message: Value, media: &mut Media) -> Result<Value, ApiError> {
    let error = |field: &str, message: String| {
        let param = if field.is_empty() { at.to_owned() } else { format!("{at}.{field}") };
        ApiError::field(&param, format!("{param} {message}"))
    };
    let Value::Object(mut message) = message else {
        return Err(error("", format!("is {}: it must be an object", kind(&message))));
    };
    let role = match message.get("role") {
        Some(Value::String(role)) => role.clone(),
        Some(other) => return Err(error("role", format!("is {}: it must be a string", show(other)))),
        None => return Err(error("role", "is missing".into())),
    };
    match role.as_str() {
        "system" | "user" | "assistant" | "tool" | "function" => {}
        // A later name for the same thing, which templates don't know.
        "developer" => drop(message.insert("role".into(), "system".into())),
        _ => {
            let allowed = "system, developer, user, assistant, tool or function";
            return Err(error("role", format!("is {role:?}: it must be {allowed}")));
        }
    }
    match message.remove("content") {
        Some(Value::String(text)) => drop(message.insert("content".into(), Value::String(text))),
        Some(Value::Array(parts)) => {
            let parts = take_parts(&format!("{at}.{content_name}"), &role, parts, media)?;
            message.insert("content".into(), joined(parts));
        }
        None | Some(Value::Null) => {
            let calls = ["tool_calls", "function_call"].iter().any(|f| message.get(*f).is_some_and(|v| !v.is_null()));
            if role != "assistant" || !(calls || message.contains_key("refusal")) {
                return Err(error("content", "is missing".into()));
            }
            // Templates test `content` for truth; most fail on one that isn't there.
            message.insert("content".into(), Value::String(String::new()));
        }
        Some(other) => {
            return Err(error("content", format!("is {}: it must be a string or an array of parts", show(&other))));
        }
    }
    match message.get_mut("tool_calls") {
        None => {}
        Some(Value::Null) => drop(message.remove("tool_calls")),
        Some(Value::Array(calls)) => {
            for (number, call) in calls.iter_mut().enumerate() {
                let problem = |text: &str| Err(error(&format!("tool_calls[{number}]"), text.to_owned()));
                let Some(function) = call.get_mut("function").and_then(Value::as_object_mut) else {
                    return problem("has no function: it must be an object with a function");
                };
                if !function.get("name").is_some_and(Value::is_string) {
                    return problem("has no function.name");
                }
                arguments_as_object(function);
            }
        }
        Some(other) => {
            let message = format!("is {}: it must be an array", show(other));
            return Err(error("tool_calls", message));
        }
    }
    Ok(Value::Object(message))
}

/// On the wire arguments are a string of JSON; templates walk through them.
fn arguments_as_object(function: &mut Map<String, Value>) {
    if let Some(Value::String(text)) = function.get("arguments")
        && let Ok(arguments @ Value::Object(_)) = serde_json::from_str(text)
    {
        function.insert("arguments".into(), arguments);
    }
}

/// Parts as templates want them: `{"type": "text"}`, and what stands for media.
fn take_parts(at: &str, role: &str, parts: Vec<Value>, media: &mut Media) -> Result<Vec<Value>, ApiError> {
    let mut taken = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        let param = format!("{at}[{index}]");
        let error = |message: String| Err(ApiError::field(&param, format!("{param} {message}")));
        // vLLM's clients also send bare strings.
        if let Value::String(text) = part {
            taken.push(text_part(text));
            continue;
        }
        let Value::Object(mut part) = part else {
            return error(format!("is {}: it must be an object with a type", show(&part)));
        };
        let name = match part.remove("type") {
            Some(Value::String(name)) => name,
            _ => return error("has no type: it must be text".into()),
        };
        let field = match name.as_str() {
            "text" => "text",
            "refusal" if role == "assistant" => "refusal",
            name if Kind::of_part(name).is_some() => {
                taken.push(media.take(&param, role, name, Fields::within(&param, part))?);
                continue;
            }
            other @ ("input_audio" | "audio" | "audio_url" | "file" | "input_file") => {
                let takes = media.takes();
                let message = format!("{param} is of type {other}: this model takes {takes} only");
                return Err(ApiError::unsupported(&param, message));
            }
            other => return error(format!("is of type {other:?}: it must be text")),
        };
        match part.remove(field) {
            Some(Value::String(text)) => taken.push(text_part(text)),
            Some(other) => return error(format!("has a {field} that is {}: it must be a string", show(&other))),
            None => return error(format!("has no {field}")),
        }
    }
    Ok(taken)
}

/// A part that is text.
#[must_use]
pub fn text_part(text: String) -> Value {
    json!({ "type": "text", "text": text })
}

/// Content of these parts: one string, if all are text.
#[must_use]
pub fn joined(parts: Vec<Value>) -> Value {
    let text = |part: &Value| Some(part.get("text")?.as_str()?.to_owned());
    match parts.iter().map(text).collect::<Option<Vec<String>>>() {
        Some(texts) => Value::String(texts.join("\n")),
        None => Value::Array(parts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::media::Takes;

    /// For a model that takes text only.
    fn normalise(messages: Vec<Value>) -> Result<Vec<Value>, ApiError> {
        super::normalise(messages, &mut Media::new(Takes::default()))
    }

    #[test]
    fn accepted_forms() {
        let call = json!({"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}});
        let cases = [
            ("plain", json!({"role": "user", "content": "hi"}), json!({"role": "user", "content": "hi"})),
            ("developer", json!({"role": "developer", "content": "x"}), json!({"role": "system", "content": "x"})),
            (
                "parts",
                json!({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}),
                json!({"role": "user", "content": "a\nb"}),
            ),
            (
                "name kept",
                json!({"role": "user", "content": "", "name": "n"}),
                json!({"role": "user", "name": "n", "content": ""}),
            ),
            (
                "tool call",
                json!({"role": "assistant", "content": null, "tool_calls": [call]}),
                json!({"role": "assistant", "content": "", "tool_calls":
                    [{"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}]}),
            ),
            (
                "null tool calls",
                json!({"role": "assistant", "content": "x", "tool_calls": null}),
                json!({"role": "assistant", "content": "x"}),
            ),
        ];
        for (name, message, wanted) in cases {
            assert_eq!(normalise(vec![message]).unwrap(), [wanted], "{name}");
        }
    }

    #[test]
    fn refused_forms_are_named() {
        let cases = [
            (json!("hi"), "messages[0] is a string: it must be an object"),
            (json!({"content": "x"}), "messages[0].role is missing"),
            (json!({"role": 3}), "messages[0].role is 3: it must be a string"),
            (
                json!({"role": "robot", "content": "x"}),
                "messages[0].role is \"robot\": it must be system, developer, user, assistant, tool or function",
            ),
            (json!({"role": "user"}), "messages[0].content is missing"),
            (json!({"role": "assistant", "content": null}), "messages[0].content is missing"),
            (
                json!({"role": "user", "content": 7}),
                "messages[0].content is 7: it must be a string or an array of parts",
            ),
            (
                json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}),
                "messages[0].content[0] is of type image_url: this model takes text only",
            ),
            (json!({"role": "user", "content": [{"type": "text"}]}), "messages[0].content[0] has no text"),
            (json!({"role": "user", "content": [{}]}), "messages[0].content[0] has no type: it must be text"),
            (
                json!({"role": "assistant", "content": "", "tool_calls": [{}]}),
                "messages[0].tool_calls[0] has no function: it must be an object with a function",
            ),
        ];
        for (message, wanted) in cases {
            let error = normalise(vec![message]).unwrap_err().to_json();
            assert_eq!(error["error"]["message"], wanted);
        }
        assert!(normalise(vec![]).is_err());
    }
}
