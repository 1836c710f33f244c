//! What is sent back.

use serde_json::{Value, json};
use vllm_scheduler::{FinishReason, GeneratedToken};

use crate::{
    answer::Ending,
    http::{
        chat::{ChatMessage, ToolCall},
        choices::{Collected, reason_name},
        logprobs::chat_entry,
    },
    model::ServedModel,
};

/// What every chunk of a response repeats.
pub struct Envelope {
    pub id: String,
    pub created: u64,
    pub model: String,
}

impl Envelope {
    /// A chunk of a stream.
    pub fn chunk(&self, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }

    /// A whole response.
    pub fn complete(&self, model: &ServedModel, collected: Collected, logprobs: bool) -> Value {
        let usage = collected.usage.to_json();
        let choices: Vec<Value> = collected
            .answers
            .into_iter()
            .enumerate()
            .map(|(index, answer)| {
                json!({
                    "index": index,
                    "message": message_json(&answer.message),
                    "logprobs": logprobs.then(|| logprobs_json(model, &answer.tokens)),
                    "finish_reason": finish_reason(&answer.ending, answer.message.calls.len()),
                })
            })
            .collect();
        json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "usage": usage,
        })
    }
}

pub fn message_json(message: &ChatMessage) -> Value {
    let content = (message.calls.is_empty() || !message.text.is_empty()).then_some(&message.text);
    let mut json = json!({ "role": "assistant", "content": content, "refusal": null });
    if !message.reasoning.is_empty() {
        // Clients know it by one or the other.
        json["reasoning_content"] = json!(message.reasoning);
        json["reasoning"] = json!(message.reasoning);
    }
    if !message.calls.is_empty() {
        json["tool_calls"] = message.calls.iter().map(call_json).collect();
    }
    json
}

fn call_json(call: &ToolCall) -> Value {
    json!({
        "id": call.id,
        "type": "function",
        "function": { "name": call.name, "arguments": call.arguments },
    })
}

/// An answer that ends by itself with calls waits for what comes of them.
pub fn finish_reason(ending: &Ending, calls: usize) -> &'static str {
    match ending.reason {
        FinishReason::Stop if calls > 0 => "tool_calls",
        reason => reason_name(reason),
    }
}

/// `choices[].logprobs`.
pub fn logprobs_json(model: &ServedModel, tokens: &[GeneratedToken]) -> Value {
    let content: Vec<Value> = tokens.iter().filter_map(|token| chat_entry(&model.tokenizer, token)).collect();
    json!({ "content": content, "refusal": null })
}
