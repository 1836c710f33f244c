//! The request that all APIs have in common.

use serde_json::{Map, Value};
use vllm_platform::SamplingParams;

use super::{OutputFormat, ToolOffer};
use crate::http::{
    ApiError, Fields,
    extras::{Extras, Scheduling},
    media::Media,
};

/// A conversation to be continued.
#[derive(Debug, Clone)]
pub struct ChatRequest {
    /// Messages in OpenAI's form, as [`normalise`](crate::http::messages::normalise) leaves them.
    pub messages: Vec<Value>,
    /// The images and videos in them.
    pub media: Media,
    /// Where messages come from: the parameter that errors about the prompt name.
    pub messages_param: &'static str,
    /// Tools.
    pub tools: ToolOffer,
    /// What the answer's text must look like.
    pub format: OutputFormat,
    /// Whether and how long the model thinks.
    pub thinking: Thinking,
    /// Further variables for the template.
    pub template: Map<String, Value>,
    /// Whether the prompt ends with the start of the assistant's turn.
    pub add_generation_prompt: bool,
    /// Whether the last message, the assistant's, is to be continued.
    pub continue_final_message: bool,
    /// How to choose tokens.
    pub params: SamplingParams,
    /// Answers.
    pub n: usize,
    /// Strings that end an answer.
    pub stop: Vec<String>,
    /// Most tokens of an answer; `None`: as the server has it.
    pub max_tokens: Option<usize>,
    /// How an answer is bounded.
    pub extras: Extras,
    /// When it is computed.
    pub scheduling: Scheduling,
}

/// Whether and how long the model thinks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Thinking {
    /// Whether it does; `None`: as its template has it.
    pub enabled: Option<bool>,
    /// How hard, for templates that ask.
    pub effort: Option<String>,
    /// Most tokens of the chain of thought.
    pub budget: Option<usize>,
    /// Whether the chain of thought is left out of the answer.
    pub hidden: bool,
}

impl Thinking {
    /// Takes `enable_thinking`, `reasoning_effort`, `thinking_token_budget` and `include_reasoning`.
    ///
    /// # Errors
    /// 400 for wrong types.
    pub fn take(fields: &mut Fields) -> Result<Self, ApiError> {
        let effort = fields.string("reasoning_effort")?;
        let enabled = fields.boolean("enable_thinking")?;
        Ok(Self {
            enabled: enabled.or_else(|| (effort.as_deref() == Some("none")).then_some(false)),
            effort,
            budget: fields.integer("thinking_token_budget", 0..=i64::MAX)?.map(|tokens| tokens as usize),
            hidden: !fields.boolean("include_reasoning")?.unwrap_or(true),
        })
    }

    /// Sets the variables by which templates know of it; those the request gave itself stay.
    pub fn set_variables(&self, variables: &mut Map<String, Value>) {
        if let Some(enabled) = self.enabled {
            // Qwen's, GLM's and others' name for it, then DeepSeek's and Granite's.
            for name in ["enable_thinking", "thinking"] {
                variables.entry(name).or_insert(Value::Bool(enabled));
            }
        }
        if let Some(effort) = &self.effort {
            variables.entry("reasoning_effort").or_insert_with(|| Value::String(effort.clone()));
        }
    }
}
