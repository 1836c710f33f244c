//! `POST /v1/chat/completions`.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::State,
    response::Response,
};
use serde_json::{Map, Value, json};
use vllm_platform::sampling::MAX_LOGPROBS;
use vllm_scheduler::GeneratedToken;

use super::{
    ApiError, App, Fields, HttpConfig, blocking,
    choices::{Choices, Collected, Generation, Prompt, reason_name, usage_json},
    fields::{read_body, show},
    health::json_response,
    logprobs::chat_entry,
    messages::normalise,
    request_id::Id,
    sampling::{Extras, Streaming, take_n, take_sampling, take_stop, take_streaming, token_budget},
    sse::{self, Encoder},
    take_model,
};
use crate::{
    answer::{Ending, Piece, TextOptions},
    model::{ChatPrompt, PromptError, ServedModel},
};

pub(super) async fn create(
    State(app): State<App>,
    Extension(id): Extension<Id>,
    body: Body,
) -> Result<Response, ApiError> {
    let model = app.model()?;
    let body = read_body(body, app.config.body_limit).await?;
    let (config, served) = (app.config, Arc::clone(&model));
    let request = blocking(move || ChatRequest::parse(&body, &served, &config)).await?;
    let choices = Choices::start(&model, &id.0, vec![request.prompt], &request.generation)?;
    let envelope = Envelope::new(request.model);
    if request.streaming.on {
        let encoder = ChatEncoder {
            envelope,
            model,
            started: vec![false; choices.count()],
            logprobs: request.logprobs,
            include_usage: request.streaming.include_usage,
        };
        return Ok(sse::respond(choices, encoder, app.config.heartbeat));
    }
    let collected = choices.collect().await?;
    Ok(json_response(&envelope.complete(&model, collected, request.logprobs)))
}

/// A body that was understood.
struct ChatRequest {
    model: String,
    prompt: Prompt,
    generation: Generation,
    streaming: Streaming,
    logprobs: bool,
}

impl ChatRequest {
    /// Blocks for as long as templating and tokenising take.
    fn parse(body: &Bytes, model: &ServedModel, config: &HttpConfig) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        let name = take_model(&mut fields, model)?;
        let messages = fields
            .array("messages")?
            .ok_or_else(|| ApiError::field("messages", "messages is missing: it must be an array of messages"))?;
        let mut params = take_sampling(&mut fields, model)?;
        let logprobs = fields.boolean("logprobs")?.unwrap_or(false);
        let top = fields.integer("top_logprobs", 0..=MAX_LOGPROBS as i64)?;
        if top.is_some_and(|top| top > 0) && !logprobs {
            return Err(ApiError::field("top_logprobs", "top_logprobs is only allowed with logprobs: true"));
        }
        params.logprobs = logprobs.then_some(top.unwrap_or(0) as usize);
        let n = take_n(&mut fields)?;
        let stop = take_stop(&mut fields)?;
        let streaming = take_streaming(&mut fields)?;
        // The newer name wins, as with OpenAI.
        let old = fields.integer("max_tokens", 1..=i64::MAX)?;
        let asked = fields.integer("max_completion_tokens", 1..=i64::MAX)?.or(old).map(|n| n as usize);
        let chat = ChatPrompt {
            messages: normalise(messages)?,
            tools: take_tools(&mut fields)?,
            add_generation_prompt: fields.boolean("add_generation_prompt")?.unwrap_or(true),
            extra: take_template_variables(&mut fields)?,
        };
        refuse_what_is_not_there(&mut fields)?;
        let extras = Extras::take(&mut fields)?;
        fields.finish();

        let tokens = model.chat_prompt(&chat).map_err(|error| {
            let code = match error {
                PromptError::NoTemplate => "no_chat_template",
                PromptError::Template(_) => "chat_template_error",
                PromptError::Tokenizer(_) => "tokenizer_error",
            };
            ApiError::field("messages", error.to_string()).with_code(code)
        })?;
        let max_tokens = token_budget(model, tokens.len(), asked, config.default_max_tokens, "messages")?;
        let generation = Generation {
            params,
            n,
            stop_tokens: extras.stop_tokens(model),
            text: TextOptions { stop, include_stop: extras.include_stop, skip_special: extras.skip_special },
        };
        Ok(Self { model: name, prompt: Prompt { tokens, max_tokens }, generation, streaming, logprobs })
    }
}

/// Tools for the template. Calls in the answer come as text.
fn take_tools(fields: &mut Fields) -> Result<Option<Vec<Value>>, ApiError> {
    let tools = fields.array("tools")?.filter(|tools| !tools.is_empty());
    for (index, tool) in tools.iter().flatten().enumerate() {
        let param = format!("tools[{index}]");
        if tool.get("type").and_then(Value::as_str) != Some("function") {
            return Err(ApiError::unsupported(&param, format!("{param} is not of type function")));
        }
        if !tool.pointer("/function/name").is_some_and(Value::is_string) {
            return Err(ApiError::field(&param, format!("{param} has no function.name")));
        }
    }
    let choice = match fields.value("tool_choice") {
        None => "auto".to_owned(),
        Some(Value::String(choice)) => choice,
        Some(Value::Object(_)) => "a named function".to_owned(),
        Some(other) => {
            let message = format!("tool_choice is {}: it must be a string or an object", show(&other));
            return Err(ApiError::field("tool_choice", message));
        }
    };
    // Says only that there may be several calls at once, which is up to the model here.
    fields.boolean("parallel_tool_calls")?;
    match choice.as_str() {
        "auto" => Ok(tools),
        "none" => Ok(None),
        "required" | "a named function" => {
            let message = format!("tool_choice {choice} is not supported yet: use none or auto");
            Err(ApiError::unsupported("tool_choice", message))
        }
        other => {
            let message = format!("tool_choice is {other:?}: it must be none or auto");
            Err(ApiError::field("tool_choice", message))
        }
    }
}

fn take_template_variables(fields: &mut Fields) -> Result<Map<String, Value>, ApiError> {
    let mut extra = fields.object("chat_template_kwargs")?.map(Fields::into_map).unwrap_or_default();
    // Reasoning models' templates know it by this name.
    if let Some(effort) = fields.string("reasoning_effort")? {
        extra.entry("reasoning_effort").or_insert(Value::String(effort));
    }
    Ok(extra)
}

/// Takes the rest of OpenAI's fields: those that ask for what this server doesn't do are errors, unless what they ask
/// for is what it does anyhow.
fn refuse_what_is_not_there(fields: &mut Fields) -> Result<(), ApiError> {
    let refuse = |name: &str, what: &str| Err(ApiError::unsupported(name, format!("{name}: {what}")));
    if let Some(mut format) = fields.object("response_format")? {
        match format.string("type")?.as_deref() {
            Some("text") => {}
            Some(other) => return refuse("response_format", &format!("{other} is not supported yet: only text is")),
            None => return Err(ApiError::field("response_format", "response_format has no type")),
        }
        format.finish();
    }
    for item in fields.array("modalities")?.unwrap_or_default() {
        if item != "text" {
            return refuse("modalities", &format!("this model answers with text only, not {}", show(&item)));
        }
    }
    for (name, allowed) in [("service_tier", &["auto", "default"][..]), ("verbosity", &["medium"])] {
        if let Some(value) = fields.string(name)?
            && !allowed.contains(&value.as_str())
        {
            return refuse(name, &format!("{value:?} is not supported: use {}", allowed.join(" or ")));
        }
    }
    if fields.boolean("store")?.unwrap_or(false) {
        return refuse("store", "this server stores nothing: leave it out or set it to false");
    }
    if fields.boolean("continue_final_message")?.unwrap_or(false) {
        return refuse("continue_final_message", "is not supported yet");
    }
    for name in ["audio", "web_search_options"] {
        if fields.value(name).is_some() {
            return refuse(name, "this model takes and gives text only");
        }
    }
    for name in ["functions", "function_call"] {
        if fields.value(name).is_some() {
            return refuse(name, "is the old form: use tools and tool_choice");
        }
    }
    // For OpenAI's own books and caches; they change no answer.
    for name in ["user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"] {
        fields.string(name)?;
    }
    for name in ["metadata", "prediction"] {
        fields.object(name)?;
    }
    Ok(())
}

/// What every chunk of a response repeats.
struct Envelope {
    id: String,
    created: u64,
    model: String,
}

impl Envelope {
    fn new(model: String) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { id: format!("chatcmpl-{}", crate::random::hex_id()), created, model }
    }

    fn chunk(&self, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }

    fn complete(&self, model: &ServedModel, collected: Collected, logprobs: bool) -> Value {
        let usage = usage_json(collected.usage);
        let choices: Vec<Value> = collected
            .answers
            .into_iter()
            .enumerate()
            .map(|(index, answer)| {
                json!({
                    "index": index,
                    "message": { "role": "assistant", "content": answer.text, "refusal": null },
                    "logprobs": logprobs.then(|| logprobs_json(model, &answer.tokens)),
                    "finish_reason": reason_name(answer.ending.reason),
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

fn logprobs_json(model: &ServedModel, tokens: &[GeneratedToken]) -> Value {
    let content: Vec<Value> = tokens.iter().filter_map(|token| chat_entry(&model.tokenizer, token)).collect();
    json!({ "content": content, "refusal": null })
}

struct ChatEncoder {
    envelope: Envelope,
    model: Arc<ServedModel>,
    /// Answers whose role has been sent.
    started: Vec<bool>,
    logprobs: bool,
    include_usage: bool,
}

impl ChatEncoder {
    fn chunk(&self, index: usize, delta: Value, logprobs: Value, reason: Option<&str>) -> Value {
        let choice = json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason });
        let mut chunk = self.envelope.chunk(json!([choice]));
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }
}

impl Encoder for ChatEncoder {
    fn piece(&mut self, index: usize, piece: Piece, ending: Option<Ending>) -> Vec<Value> {
        let mut events = Vec::new();
        if !std::mem::replace(&mut self.started[index], true) {
            events.push(self.chunk(index, json!({ "role": "assistant", "content": "" }), Value::Null, None));
        }
        let token = piece.token.filter(|_| self.logprobs);
        // With log probabilities every token has a chunk, even one whose text is held back.
        if !piece.text.is_empty() || token.is_some() {
            let logprobs = token.map(|token| logprobs_json(&self.model, &[token])).unwrap_or_default();
            events.push(self.chunk(index, json!({ "content": piece.text }), logprobs, None));
        }
        if let Some(ending) = ending {
            events.push(self.chunk(index, json!({}), Value::Null, Some(reason_name(ending.reason))));
        }
        events
    }

    fn end(&mut self, choices: &Choices) -> Vec<Value> {
        if !self.include_usage {
            return Vec::new();
        }
        let mut chunk = self.envelope.chunk(json!([]));
        chunk["usage"] = usage_json(choices.usage());
        vec![chunk]
    }
}
