//! From items to messages.
//!
//! An answer is several items, its chain of thought, its text and its calls, but one message to a chat template.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{reasoning, store::Item};
use crate::http::{ApiError, media::Media, messages::normalise_one};

/// Messages of a conversation, `instructions` first; its images go into `media`. The first `before` items are not of this
/// request but of those before it.
///
/// # Errors
/// 400 if there is nothing, an output whose call isn't there, or an image that the model doesn't take.
pub fn from_items(
    instructions: Option<&str>,
    items: &[Item],
    before: usize,
    media: &mut Media,
) -> Result<Vec<Value>, ApiError> {
    let mut conversation = Conversation::default();
    if let Some(text) = instructions {
        conversation.push("instructions", "content", json!({ "role": "system", "content": text }));
    }
    for (index, item) in items.iter().enumerate() {
        let at = index.checked_sub(before).map(|index| format!("input[{index}]"));
        conversation.add(at.as_deref().unwrap_or("previous_response_id"), item)?;
    }
    conversation.close();
    if items.is_empty() {
        return Err(ApiError::field("input", "input is missing or empty: there must be at least one item"));
    }
    let message = |Placed { at, field, message }| normalise_one(&at, field, message, media);
    conversation.messages.into_iter().map(message).collect()
}

#[derive(Default)]
struct Conversation {
    messages: Vec<Placed>,
    /// The assistant's turn, while more of it may come.
    turn: Option<Turn>,
    call_ids: HashSet<String>,
}

/// A message, and where what it says stands in the body.
struct Placed {
    at: String,
    field: &'static str,
    message: Value,
}

#[derive(Default)]
struct Turn {
    reasoning: String,
    text: Option<String>,
    calls: Vec<Value>,
}

impl Conversation {
    fn push(&mut self, at: &str, field: &'static str, message: Value) {
        self.messages.push(Placed { at: at.to_owned(), field, message });
    }

    fn add(&mut self, at: &str, item: &Value) -> Result<(), ApiError> {
        let field = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default();
        match field("type") {
            "reasoning" => {
                self.turn(|turn| turn.text.is_some() || !turn.calls.is_empty()).reasoning += &thought(item);
            }
            "message" if field("role") == "assistant" => {
                let text = text_of(item.get("content"));
                self.turn(|turn| turn.text.is_some() || !turn.calls.is_empty()).text = Some(text);
            }
            "message" => {
                self.close();
                let message = json!({ "role": field("role"), "content": said(item.get("content")) });
                self.push(at, "content", message);
            }
            "function_call" => self.call(field("call_id"), field("name"), field("arguments").into()),
            "custom_tool_call" => {
                let arguments = json!({ "input": field("input") });
                self.call(field("call_id"), field("name"), arguments.to_string());
            }
            // Only outputs are left.
            _ => {
                let call_id = field("call_id");
                if !self.call_ids.contains(call_id) {
                    let message = format!("input has an output for call {call_id:?}: there is no such call before it");
                    return Err(ApiError::field("input", message));
                }
                self.close();
                let message = json!({ "role": "tool", "tool_call_id": call_id, "content": said(item.get("output")) });
                self.push(at, "output", message);
            }
        }
        Ok(())
    }

    fn call(&mut self, call_id: &str, name: &str, arguments: String) {
        self.call_ids.insert(call_id.to_owned());
        let call = json!({ "id": call_id, "type": "function", "function": { "name": name, "arguments": arguments } });
        self.turn(|_| false).calls.push(call);
    }

    /// The assistant's turn; a new one if the open one is `over`.
    fn turn(&mut self, over: impl FnOnce(&Turn) -> bool) -> &mut Turn {
        if self.turn.as_ref().is_some_and(over) {
            self.close();
        }
        self.turn.get_or_insert_default()
    }

    fn close(&mut self) {
        let Some(turn) = self.turn.take() else { return };
        let mut message = json!({ "role": "assistant", "content": turn.text.unwrap_or_default() });
        if !turn.reasoning.is_empty() {
            message["reasoning_content"] = Value::String(turn.reasoning);
        }
        if !turn.calls.is_empty() {
            message["tool_calls"] = Value::Array(turn.calls);
        }
        // The assistant's turns hold nothing that could be wrong now.
        self.push("input", "content", message);
    }
}

fn thought(item: &Value) -> String {
    let content = text_of(item.get("content"));
    if !content.is_empty() {
        return content;
    }
    let sealed = item.get("encrypted_content").and_then(Value::as_str);
    sealed.and_then(reasoning::unseal).unwrap_or_else(|| text_of(item.get("summary")))
}

/// What a user or a tool says: as text if it is all text, else in parts as chat completions have them.
fn said(content: Option<&Value>) -> Value {
    let is_image = |part: &Value| part.get("type").is_some_and(|kind| kind == "input_image");
    match content {
        Some(Value::Array(parts)) if parts.iter().any(is_image) => {
            let part = |part: &Value| match part.get("text") {
                Some(text) => json!({ "type": "text", "text": text }),
                None => part.clone(),
            };
            parts.iter().map(part).collect()
        }
        content => Value::String(text_of(content)),
    }
}

/// Text of a string or of parts, joined as chat completions join theirs.
fn text_of(content: Option<&Value>) -> String {
    match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let text = |part: &Value| {
                let text = part.get("text").or_else(|| part.get("refusal"));
                text.and_then(Value::as_str).map(str::to_owned)
            };
            parts.iter().filter_map(text).collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn text(role: &str, text: &str) -> Value {
        json!({ "type": "message", "role": role, "content": [{ "type": "input_text", "text": text }] })
    }

    fn call(id: &str) -> Value {
        json!({ "type": "function_call", "call_id": id, "name": "f", "arguments": "{\"a\":1}" })
    }

    fn called(id: &str) -> Value {
        json!({ "id": id, "type": "function", "function": { "name": "f", "arguments": { "a": 1 } } })
    }

    fn thought(text: &str) -> Value {
        json!({ "type": "reasoning", "summary": [], "content": [{ "type": "reasoning_text", "text": text }] })
    }

    fn output(id: &str, output: Value) -> Value {
        json!({ "type": "function_call_output", "call_id": id, "output": output })
    }

    fn of(instructions: Option<&str>, items: &[Value]) -> Result<Vec<Value>, ApiError> {
        let items: Vec<Item> = items.iter().cloned().map(Arc::new).collect();
        from_items(instructions, &items, 0, &mut Media::default())
    }

    #[test]
    fn items_become_messages() {
        let cases: [(&str, Vec<Value>, Vec<Value>); 7] = [
            ("text", vec![text("user", "hi")], vec![json!({ "role": "user", "content": "hi" })]),
            ("developer", vec![text("developer", "hi")], vec![json!({ "role": "system", "content": "hi" })]),
            (
                "an answer is one message",
                vec![text("user", "hi"), thought("hm"), text("assistant", "Let me see."), call("1"), call("2")],
                vec![
                    json!({ "role": "user", "content": "hi" }),
                    json!({ "role": "assistant", "reasoning_content": "hm", "tool_calls": [called("1"), called("2")],
                        "content": "Let me see." }),
                ],
            ),
            (
                "outputs end it",
                vec![
                    call("1"),
                    output("1", json!("42")),
                    thought("so"),
                    call("2"),
                    output("2", json!([{ "type": "input_text", "text": "43" }])),
                    text("assistant", "done"),
                ],
                vec![
                    json!({ "role": "assistant", "tool_calls": [called("1")], "content": "" }),
                    json!({ "role": "tool", "tool_call_id": "1", "content": "42" }),
                    json!({ "role": "assistant", "reasoning_content": "so", "tool_calls": [called("2")],
                        "content": "" }),
                    json!({ "role": "tool", "tool_call_id": "2", "content": "43" }),
                    json!({ "role": "assistant", "content": "done" }),
                ],
            ),
            (
                "two answers stay two",
                vec![text("assistant", "a"), thought("hm"), text("assistant", "b")],
                vec![
                    json!({ "role": "assistant", "content": "a" }),
                    json!({ "role": "assistant", "reasoning_content": "hm", "content": "b" }),
                ],
            ),
            (
                "custom tools",
                vec![
                    json!({ "type": "custom_tool_call", "call_id": "1", "name": "sh", "input": "ls \"x\"" }),
                    json!({ "type": "custom_tool_call_output", "call_id": "1", "output": "no" }),
                ],
                vec![
                    json!({ "role": "assistant", "content": "", "tool_calls": [{ "id": "1", "type": "function",
                        "function": { "name": "sh", "arguments": { "input": "ls \"x\"" } } }] }),
                    json!({ "role": "tool", "tool_call_id": "1", "content": "no" }),
                ],
            ),
            (
                "sealed reasoning",
                vec![json!({ "type": "reasoning", "summary": [{ "type": "summary_text", "text": "short" }],
                    "encrypted_content": reasoning::seal("long") })],
                vec![json!({ "role": "assistant", "reasoning_content": "long", "content": "" })],
            ),
        ];
        for (name, items, wanted) in cases {
            assert_eq!(of(None, &items).unwrap(), wanted, "{name}");
        }
        let wanted = [json!({ "role": "system", "content": "Be kind." }), json!({ "role": "user", "content": "hi" })];
        assert_eq!(of(Some("Be kind."), &[text("user", "hi")]).unwrap(), wanted);
    }

    #[test]
    fn what_makes_no_conversation_is_refused() {
        let cases = [
            (vec![], "input is missing or empty: there must be at least one item"),
            (
                vec![text("user", "hi"), output("9", json!("x"))],
                "input has an output for call \"9\": there is no such call before it",
            ),
        ];
        for (items, message) in cases {
            assert_eq!(of(Some("x"), &items).unwrap_err().to_json()["error"]["message"], message);
        }
    }
}
