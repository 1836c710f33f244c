//! What is sent back.

use serde_json::{Map, Value, json};
use vllm_scheduler::FinishReason;

use super::thinking::sign;
use crate::{
    answer::Ending,
    http::{
        chat::{ChatMessage, ToolCall},
        choices::Complete,
        usage::Usage,
    },
};

/// What stays the same from an answer's beginning to its end.
#[derive(Debug)]
pub struct Envelope {
    pub id: String,
    pub model: String,
    /// The request's own stop sequences.
    pub stop: Vec<String>,
    /// Whether the context's end comes before `max_tokens`.
    pub is_cut: bool,
    /// Whether the text of the chain of thought is left out of its block.
    pub omit_thinking: bool,
}

impl Envelope {
    /// A message that has no end yet.
    pub fn message(&self, content: Vec<Value>, usage: Usage) -> Value {
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": null,
            "stop_sequence": null,
            "usage": full_usage(usage),
        })
    }

    /// A whole response.
    pub fn complete(&self, answer: &Complete, usage: Usage) -> Value {
        let mut message = self.message(self.content(&answer.message), usage);
        let (reason, sequence) = self.stop_reason(&answer.ending, answer.message.calls.len());
        message["stop_reason"] = json!(reason);
        message["stop_sequence"] = json!(sequence);
        message
    }

    /// Why an answer ended, and the stop sequence, if it was one.
    pub fn stop_reason<'a>(&self, ending: &'a Ending, calls: usize) -> (&'static str, Option<&'a str>) {
        match (ending.reason, &ending.stop) {
            (FinishReason::Length, _) if self.is_cut => ("model_context_window_exceeded", None),
            (FinishReason::Length, _) => ("max_tokens", None),
            // A format of tool calls may have stop strings of its own, which are nobody's business.
            (_, Some(stop)) if self.stop.contains(stop) => ("stop_sequence", Some(stop)),
            _ if calls > 0 => ("tool_use", None),
            _ => ("end_turn", None),
        }
    }

    fn content(&self, message: &ChatMessage) -> Vec<Value> {
        let mut content = Vec::with_capacity(2 + message.calls.len());
        if !message.reasoning.is_empty() {
            let shown = if self.omit_thinking { "" } else { &message.reasoning };
            let signature = sign(&message.reasoning, self.omit_thinking);
            content.push(json!({ "type": "thinking", "thinking": shown, "signature": signature }));
        }
        if !message.text.trim().is_empty() {
            content.push(text_block(&message.text));
        }
        content.extend(message.calls.iter().map(tool_use));
        if content.is_empty() {
            // Clients look at the first block without asking whether there is one.
            content.push(text_block(""));
        }
        content
    }
}

/// A block of text.
pub fn text_block(text: &str) -> Value {
    json!({ "type": "text", "text": text })
}

fn tool_use(call: &ToolCall) -> Value {
    // An answer that was cut off inside a call has no input that anybody could read; its stop reason says so.
    let input: Map<String, Value> = serde_json::from_str(&call.arguments).unwrap_or_default();
    json!({ "type": "tool_use", "id": call.id, "name": call.name, "input": input })
}

/// Anthropic's counts. The prompt is the sum of three: what was computed, what was found in the cache, and what was
/// written to it for a price, which is nothing here.
pub fn usage_json(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens.saturating_sub(usage.cached_tokens),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    })
}

fn full_usage(usage: Usage) -> Value {
    let mut json = usage_json(usage);
    json["cache_creation"] = json!({ "ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0 });
    json["service_tier"] = json!("standard");
    json
}
