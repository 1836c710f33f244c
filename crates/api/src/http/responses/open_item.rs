//! The item that is being written.

use serde_json::{Value, json};

use super::{reasoning, request::Shape};

/// An item that more may come of.
#[derive(Debug)]
pub struct OpenItem {
    /// Its id.
    pub id: String,
    /// Its reasoning, its text, or its call's arguments.
    pub text: String,
    /// Of its text, if asked for.
    pub logprobs: Vec<Value>,
    /// What it is.
    pub kind: OpenKind,
}

/// What an item is.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum OpenKind {
    Reasoning,
    Message,
    Call {
        call_id: String,
        name: String,
    },
    /// A call whose arguments are shown as the text that they hold.
    Custom {
        call_id: String,
        name: String,
    },
}

impl OpenItem {
    /// As it is now; one that has just begun is empty.
    pub fn item(&self, status: &str, shape: &Shape) -> Value {
        let (id, text) = (&self.id, &self.text);
        match &self.kind {
            OpenKind::Reasoning => {
                let content: Vec<Value> = self.part().filter(|_| !text.is_empty()).into_iter().collect();
                let sealed = (shape.sealed && !text.is_empty()).then(|| reasoning::seal(text));
                json!({ "id": id, "type": "reasoning", "status": status, "summary": [], "content": content,
                    "encrypted_content": sealed })
            }
            OpenKind::Message => {
                let content: Vec<Value> = self.part().filter(|_| status != "in_progress").into_iter().collect();
                json!({ "id": id, "type": "message", "status": status, "role": "assistant", "content": content })
            }
            OpenKind::Call { call_id, name } => {
                json!({ "id": id, "type": "function_call", "status": status, "call_id": call_id, "name": name,
                    "arguments": text })
            }
            OpenKind::Custom { call_id, name } => {
                json!({ "id": id, "type": "custom_tool_call", "status": status, "call_id": call_id, "name": name,
                    "input": self.input() })
            }
        }
    }

    /// Its content, if it has any.
    pub fn part(&self) -> Option<Value> {
        let text = &self.text;
        match self.kind {
            OpenKind::Reasoning => Some(json!({ "type": "reasoning_text", "text": text })),
            OpenKind::Message => {
                Some(json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": self.logprobs }))
            }
            OpenKind::Call { .. } | OpenKind::Custom { .. } => None,
        }
    }

    /// The text that a custom tool is given: all of what came, if it isn't in the form that was asked for.
    pub fn input(&self) -> String {
        match serde_json::from_str::<Value>(&self.text).ok().as_ref().and_then(|arguments| arguments.get("input")) {
            Some(Value::String(input)) => input.clone(),
            _ => self.text.clone(),
        }
    }
}
