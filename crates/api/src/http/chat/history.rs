//! Conversations for templates that don't know all that OpenAI's messages have.
//!
//! Whatever is done here depends on each message alone and keeps its place, so that a longer conversation still begins
//! with the same tokens as the one before it, and the prefix cache finds it.

use serde_json::{Map, Value, json};

use crate::http::messages::text_part;

/// Tells the model of its tools in words, for a template that doesn't.
pub fn describe_tools(messages: &mut Vec<Value>, definitions: &[Value]) {
    let mut text = String::from("You have tools. Each is described by a line of JSON here:\n<tools>\n");
    for definition in definitions {
        text.push_str(&definition.to_string());
        text.push('\n');
    }
    text.push_str(
        "</tools>\nTo use one, write its name and arguments as JSON between these tags, and nothing after it:\n\
         <tool_call>\n{\"name\": \"the tool's name\", \"arguments\": {}}\n</tool_call>",
    );
    match messages.first_mut().and_then(Value::as_object_mut) {
        Some(first) if first.get("role").is_some_and(|role| role == "system") => {
            let given = first.get("content").and_then(Value::as_str).unwrap_or_default();
            let joined = if given.is_empty() { text } else { format!("{given}\n\n{text}") };
            first.insert("content".into(), Value::String(joined));
        }
        _ => messages.insert(0, json!({ "role": "system", "content": text })),
    }
}

/// Writes calls and their results out as text, for a template that shows neither.
pub fn write_out_calls(messages: &mut [Value]) {
    for message in messages.iter_mut().filter_map(Value::as_object_mut) {
        match message.get("role").and_then(Value::as_str) {
            Some("assistant") => write_out_assistant(message),
            Some("tool" | "function") => {
                let content = match message.get_mut("content").map(Value::take) {
                    Some(Value::Array(mut parts)) => {
                        parts.insert(0, text_part("<tool_response>".into()));
                        parts.push(text_part("</tool_response>".into()));
                        Value::Array(parts)
                    }
                    content => {
                        let result = content.as_ref().and_then(Value::as_str).unwrap_or_default();
                        Value::String(format!("<tool_response>\n{result}\n</tool_response>"))
                    }
                };
                *message = Map::from_iter([("role".into(), json!("user")), ("content".into(), content)]);
            }
            _ => {}
        }
    }
}

fn write_out_assistant(message: &mut Map<String, Value>) {
    let Some(Value::Array(calls)) = message.remove("tool_calls") else { return };
    let mut text = message.get("content").and_then(Value::as_str).unwrap_or_default().to_owned();
    for function in calls.iter().filter_map(|call| call.get("function")) {
        let call = json!({ "name": function.get("name"), "arguments": function.get("arguments") });
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("<tool_call>\n{call}\n</tool_call>"));
    }
    message.insert("content".into(), Value::String(text));
}

/// The same conversation for a template that wants its system message first and turns that alternate: system messages
/// in its middle become the user's, and neighbours of one role become one.
pub fn alternating(messages: &[Value]) -> Vec<Value> {
    let mut merged: Vec<Value> = Vec::with_capacity(messages.len());
    for message in messages {
        let mut message = message.clone();
        let turns = merged.iter().any(|earlier| earlier.get("role").is_none_or(|role| role != "system"));
        if turns && message.get("role").is_some_and(|role| role == "system") {
            message["role"] = json!("user");
        }
        match merged.last_mut() {
            Some(last) if mergeable(last, &message) => {
                last["content"] = both(last["content"].take(), message["content"].take());
            }
            _ => merged.push(message),
        }
    }
    merged
}

/// What two messages say, as one.
fn both(a: Value, b: Value) -> Value {
    match (a, b) {
        (Value::String(a), Value::String(b)) if a.is_empty() || b.is_empty() => Value::String(a + &b),
        (Value::String(a), Value::String(b)) => Value::String(format!("{a}\n\n{b}")),
        (a, b) => {
            let parts = |content| match content {
                Value::Array(parts) => parts,
                Value::String(text) => vec![text_part(text)],
                _ => Vec::new(),
            };
            Value::Array([parts(a), parts(b)].concat())
        }
    }
}

/// What is said in one role; calls and their results stay by themselves.
fn mergeable(a: &Value, b: &Value) -> bool {
    let plain = |message: &Value| {
        message.get("tool_calls").is_none()
            && message.get("content").is_some_and(|content| content.is_string() || content.is_array())
    };
    let role = |message: &Value| message.get("role").and_then(Value::as_str).map(str::to_owned);
    role(a) == role(b) && matches!(role(a).as_deref(), Some("system" | "user" | "assistant")) && plain(a) && plain(b)
}

/// What is left of a rendered prompt when it ends with the last message's own text, to be continued. `None` if the
/// template doesn't show that text as it is.
pub fn cut_after_final_message(prompt: &str, messages: &[Value]) -> Option<String> {
    let last = messages.last()?.get("content")?.as_str()?;
    // Templates trim; what they leave is what is looked for.
    let (text, trimmed) = (last, last.trim());
    if trimmed.is_empty() {
        return None;
    }
    let found = [text, trimmed].into_iter().find_map(|text| prompt.rfind(text).map(|at| at + text.len()))?;
    Some(prompt[..found].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: &str, content: &str) -> Value {
        json!({ "role": role, "content": content })
    }

    #[test]
    fn tools_are_described_after_what_the_system_says() {
        let mut messages = vec![message("system", "Be kind."), message("user", "hi")];
        describe_tools(&mut messages, &[json!({ "type": "function", "function": { "name": "look" } })]);
        let text = messages[0]["content"].as_str().unwrap();
        assert!(text.starts_with("Be kind.\n\n") && text.contains("\"look\""), "{text}");

        let mut messages = vec![message("user", "hi")];
        describe_tools(&mut messages, &[json!({})]);
        assert_eq!((messages.len(), &messages[0]["role"]), (2, &json!("system")));
    }

    #[test]
    fn calls_as_text() {
        let call = json!({ "id": "1", "type": "function", "function": { "name": "f", "arguments": { "a": 1 } } });
        let mut messages = [
            json!({ "role": "assistant", "content": "Let me see.", "tool_calls": [call] }),
            json!({ "role": "tool", "tool_call_id": "1", "content": "42" }),
        ];
        write_out_calls(&mut messages);
        let wanted = [
            message("assistant", "Let me see.\n<tool_call>\n{\"name\":\"f\",\"arguments\":{\"a\":1}}\n</tool_call>"),
            message("user", "<tool_response>\n42\n</tool_response>"),
        ];
        assert_eq!(messages, wanted);
    }

    #[test]
    fn turns_alternate_and_keep_their_places() {
        let call = json!({ "role": "assistant", "content": "", "tool_calls": [{}] });
        let messages = [
            message("system", "a"),
            message("system", "b"),
            message("user", "c"),
            message("system", "d"),
            message("assistant", "e"),
            call.clone(),
            message("user", "f"),
        ];
        let wanted = [
            message("system", "a\n\nb"),
            message("user", "c\n\nd"),
            message("assistant", "e"),
            call,
            message("user", "f"),
        ];
        assert_eq!(alternating(&messages), wanted);
        // A longer conversation begins as the shorter one.
        assert_eq!(alternating(&messages[..4]), wanted[..2]);
    }

    #[test]
    fn a_prompt_is_cut_where_its_last_message_ends() {
        let messages = [message("user", "hi"), message("assistant", "Once upon ")];
        assert_eq!(cut_after_final_message("u:hi;a:Once upon ;end", &messages).unwrap(), "u:hi;a:Once upon ");
        assert_eq!(cut_after_final_message("u:hi;a:Once upon;end", &messages).unwrap(), "u:hi;a:Once upon");
        assert_eq!(cut_after_final_message("nothing", &messages), None);
    }
}
