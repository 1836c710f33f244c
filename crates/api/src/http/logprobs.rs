//! Log probabilities in OpenAI's two forms.

use serde_json::{Map, Value, json};
use vllm_platform::{TokenId, TokenLogprobs};
use vllm_scheduler::GeneratedToken;
use vllm_text::Tokenizer;

/// Smaller ones are shown as this: JSON has no -inf.
const LEAST: f32 = -9999.0;

/// An entry of `choices[].logprobs.content` of a chat completion.
#[must_use]
pub fn chat_entry(tokenizer: &Tokenizer, generated: &GeneratedToken) -> Option<Value> {
    let logprobs = generated.logprobs.as_ref()?;
    let entry = |token: TokenId, logprob: f32| {
        let bytes = tokenizer.token_bytes(token).unwrap_or_default();
        json!({ "token": String::from_utf8_lossy(&bytes), "logprob": logprob.max(LEAST), "bytes": bytes })
    };
    let mut value = entry(generated.token, logprobs.sampled);
    value["top_logprobs"] = logprobs.top.iter().map(|top| entry(top.token, top.logprob)).collect();
    Some(value)
}

/// `choices[].logprobs` of a completion: parallel lists, filled token by token.
#[derive(Debug, Default)]
pub struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    top_logprobs: Vec<Value>,
    text_offset: Vec<usize>,
    /// Characters of the text before the next token.
    offset: usize,
}

impl CompletionLogprobs {
    /// Adds a token.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: TokenId, logprobs: &TokenLogprobs) {
        let text = |token| {
            let bytes = tokenizer.token_bytes(token).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let name = text(token);
        let mut top: Map<String, Value> =
            logprobs.top.iter().map(|top| (text(top.token), json!(top.logprob.max(LEAST)))).collect();
        // OpenAI's list always has the sampled token, so that it may be one longer than asked.
        top.entry(name.clone()).or_insert_with(|| json!(logprobs.sampled.max(LEAST)));
        self.text_offset.push(self.offset);
        self.offset += name.chars().count();
        self.tokens.push(name);
        self.token_logprobs.push(logprobs.sampled.max(LEAST));
        self.top_logprobs.push(Value::Object(top));
    }

    /// What was added since the last call; offsets go on.
    pub fn take(&mut self) -> Value {
        json!({
            "tokens": std::mem::take(&mut self.tokens),
            "token_logprobs": std::mem::take(&mut self.token_logprobs),
            "top_logprobs": std::mem::take(&mut self.top_logprobs),
            "text_offset": std::mem::take(&mut self.text_offset),
        })
    }
}
