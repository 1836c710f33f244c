//! Anthropic's messages in the internal form, OpenAI's.
//!
//! Every message is translated by itself and keeps its place, system messages in the middle of a conversation too, so
//! that a longer conversation begins with the same tokens as the shorter one before it.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::{
    blocks::{Block, Piece, join, said_in, text, texts},
    thinking,
};
use crate::http::{
    ApiError, Fields,
    fields::{kind, show},
    media::Media,
};

#[cfg(test)]
mod tests;

/// Begins a line that Claude Code puts before its system prompt. Part of it is different in every request: whoever
/// left it in would never find a prefix again.
const BILLING_HEADER: &str = "x-anthropic-billing-header:";

/// A conversation in the internal form.
#[derive(Debug)]
pub struct Conversation {
    pub messages: Vec<Value>,
    /// Whether the last message is the beginning of the answer.
    pub is_prefilled: bool,
}

/// Translates `system` and `messages`. Their images go into `media`.
pub fn conversation(system: Option<Value>, messages: Vec<Value>, media: &mut Media) -> Result<Conversation, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::field("messages", "messages is empty: there must be at least one"));
    }
    let mut out = Translation { messages: Vec::new(), media, uses: HashMap::new() };
    if let Some(system) = system {
        out.system("system", system)?;
    }
    let mut last = Role::User;
    for (index, message) in messages.into_iter().enumerate() {
        let at = format!("messages[{index}]");
        last = out.message(&at, message)?;
    }
    let is_prefilled = last == Role::Assistant;
    if is_prefilled && out.messages.last().is_some_and(|message| message.get("tool_calls").is_some()) {
        let message = "messages ends with a tool_use: its tool_result is missing";
        return Err(ApiError::field("messages", message));
    }
    Ok(Conversation { messages: out.messages, is_prefilled })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    System,
    User,
    Assistant,
}

#[derive(Debug)]
struct Translation<'a> {
    messages: Vec<Value>,
    media: &'a mut Media,
    /// Names of the tools that were used, by the ids of their uses.
    uses: HashMap<String, String>,
}

impl Translation<'_> {
    fn message(&mut self, at: &str, message: Value) -> Result<Role, ApiError> {
        let Value::Object(map) = message else {
            return Err(ApiError::field(at, format!("{at} is {}: it must be an object", kind(&message))));
        };
        let mut fields = Fields::within(at, map);
        let (role_at, content_at) = (format!("{at}.role"), format!("{at}.content"));
        let role = match fields.string("role")?.as_deref() {
            Some("system") => Role::System,
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            Some(other) => {
                let shown = show(&json!(other));
                let message = format!("{role_at} is {shown}: it must be user, assistant or system");
                return Err(ApiError::field(&role_at, message));
            }
            None => return Err(ApiError::field(&role_at, format!("{role_at} is missing"))),
        };
        let content = fields.value("content");
        let content = content.ok_or_else(|| ApiError::field(&content_at, format!("{content_at} is missing")))?;
        fields.finish();
        match role {
            Role::System => self.system(&content_at, content)?,
            Role::User => self.user(&content_at, content)?,
            Role::Assistant => self.assistant(&content_at, content)?,
        }
        Ok(role)
    }

    fn system(&mut self, at: &str, content: Value) -> Result<(), ApiError> {
        let text = join(texts(at, content)?.into_iter().map(without_billing_header));
        if !text.is_empty() {
            self.push("system", Value::String(text));
        }
        Ok(())
    }

    /// Results of tools become messages of their own, before what the user says.
    fn user(&mut self, at: &str, content: Value) -> Result<(), ApiError> {
        let Value::Array(blocks) = content else {
            let text = text(at, content)?;
            self.push("user", Value::String(text));
            return Ok(());
        };
        let mut said = Vec::new();
        let mut has_results = false;
        for (index, block) in blocks.into_iter().enumerate() {
            let block = Block::open(format!("{at}[{index}]"), block)?;
            if block.kind == "tool_result" {
                self.tool_result(block)?;
                has_results = true;
            } else {
                said.push(Piece::of(block, self.media)?);
            }
        }
        let said = said_in(said);
        if !has_results || said != "" {
            self.push("user", said);
        }
        Ok(())
    }

    fn tool_result(&mut self, mut block: Block) -> Result<(), ApiError> {
        let id = block.need("tool_use_id")?;
        let mut result = block.nested("content", self.media)?;
        if block.fields.boolean("is_error")?.unwrap_or(false) {
            // No template has a place for it.
            result.insert(0, Piece::Text("The tool failed:".into()));
        }
        block.fields.finish();
        let mut message = json!({ "role": "tool", "tool_call_id": id, "content": said_in(result) });
        if let Some(name) = self.uses.get(&id) {
            message["name"] = json!(name);
        }
        self.messages.push(message);
        Ok(())
    }

    fn assistant(&mut self, at: &str, content: Value) -> Result<(), ApiError> {
        let Value::Array(blocks) = content else {
            let text = text(at, content)?;
            self.push("assistant", Value::String(text));
            return Ok(());
        };
        let (mut said, mut thought, mut calls) = (Vec::new(), Vec::new(), Vec::new());
        for (index, block) in blocks.into_iter().enumerate() {
            let mut block = Block::open(format!("{at}[{index}]"), block)?;
            match block.kind.as_str() {
                "thinking" => {
                    let shown = block.need("thinking")?;
                    let signature = block.fields.string("signature")?;
                    thought.push(thinking::recall(shown, signature.as_deref()));
                }
                // What only Anthropic's servers can read.
                "redacted_thinking" => {}
                "tool_use" => calls.push(self.tool_use(block)?),
                _ => said.push(block.into_text()?),
            }
        }
        let mut message = json!({ "role": "assistant", "content": join(said) });
        let thought = join(thought);
        if !thought.is_empty() {
            message["reasoning_content"] = json!(thought);
        }
        if !calls.is_empty() {
            message["tool_calls"] = Value::Array(calls);
        }
        self.messages.push(message);
        Ok(())
    }

    fn tool_use(&mut self, mut block: Block) -> Result<Value, ApiError> {
        let (id, name) = (block.need("id")?, block.need("name")?);
        let input = block.fields.object("input")?.map(Fields::into_map).unwrap_or_else(Map::new);
        self.uses.insert(id.clone(), name.clone());
        Ok(json!({ "id": id, "type": "function", "function": { "name": name, "arguments": input } }))
    }

    fn push(&mut self, role: &str, content: Value) {
        self.messages.push(json!({ "role": role, "content": content }));
    }
}

fn without_billing_header(text: String) -> String {
    if !text.starts_with(BILLING_HEADER) {
        return text;
    }
    let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
    rest.trim_start_matches(['\r', '\n']).to_owned()
}
