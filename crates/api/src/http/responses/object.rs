//! A response as clients see it.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use vllm_scheduler::FinishReason;

use super::store::Item;
use crate::{
    http::{ApiError, usage::Usage},
    model::ServedModel,
};

/// The parts of a response that don't depend on its answer.
#[derive(Debug, Clone)]
pub struct Head {
    /// `resp_…`.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// As the request named it.
    pub model: String,
    /// The fields that are repeated from the request.
    pub shown: Map<String, Value>,
}

/// What became of a response.
#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    /// Its work has not begun.
    Queued,
    /// It is being written.
    InProgress,
    /// It ended by itself.
    Completed,
    /// It has as many tokens as it may have.
    Incomplete,
    /// Somebody asked for its end, or its client went away.
    Cancelled,
    /// Something went wrong; in OpenAI's words.
    Failed(Value),
}

impl Status {
    /// OpenAI's name for it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
            Self::Cancelled => "cancelled",
            Self::Failed(_) => "failed",
        }
    }

    /// What an answer's end means.
    #[must_use]
    pub fn of(reason: FinishReason) -> Self {
        match reason {
            FinishReason::Stop => Self::Completed,
            FinishReason::Length => Self::Incomplete,
            FinishReason::Abort => Self::Cancelled,
        }
    }

    /// What an error means.
    #[must_use]
    pub fn failed(error: &ApiError) -> Self {
        let json = error.to_json();
        let message = json.pointer("/error/message").cloned().unwrap_or_default();
        Self::Failed(json!({ "code": "server_error", "message": message }))
    }
}

impl Head {
    /// The whole response. The usage is not known before its end.
    #[must_use]
    pub fn object(&self, status: &Status, output: &[Item], usage: Option<Value>) -> Value {
        let mut object = Map::new();
        object.insert("id".into(), json!(self.id));
        object.insert("object".into(), json!("response"));
        object.insert("created_at".into(), json!(self.created));
        object.insert("status".into(), json!(status.name()));
        object.insert("completed_at".into(), json!((*status == Status::Completed).then(now)));
        let error = if let Status::Failed(error) = status { error.clone() } else { Value::Null };
        object.insert("error".into(), error);
        let incomplete = (*status == Status::Incomplete).then(|| json!({ "reason": "max_output_tokens" }));
        object.insert("incomplete_details".into(), json!(incomplete));
        object.insert("model".into(), json!(self.model));
        object.insert("output".into(), output.iter().map(|item| Value::clone(item)).collect());
        object.insert("usage".into(), json!(usage));
        object.extend(self.shown.clone());
        Value::Object(object)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `usage`. What was not in the prefix cache is written to it as it is computed.
#[must_use]
pub fn usage_json(model: &ServedModel, usage: Usage, reasoning_tokens: usize) -> Value {
    let written = if model.engine.stats().prefix_cache.enabled {
        usage.prompt_tokens.saturating_sub(usage.cached_tokens)
    } else {
        0
    };
    let mut details = usage.prompt_details();
    details["cache_write_tokens"] = json!(written);
    json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": details,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": { "reasoning_tokens": reasoning_tokens },
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    })
}
