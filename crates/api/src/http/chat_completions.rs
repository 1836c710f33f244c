//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::State,
    http::HeaderMap,
    response::Response,
};
use bytes::BytesMut;
use serde_json::{Map, Value, json};
use vllm_platform::sampling::MAX_LOGPROBS;
use vllm_scheduler::{GeneratedToken, Usage};

use super::{
    ApiError, App, Fields, HttpConfig, blocking,
    call::{Call, Endpoint},
    choices::{Choices, Collected, Generation, Prompt, reason_name, usage_json},
    extras::{Extras, Scheduling},
    fields::{read_body, show},
    health::json_response,
    logprobs::chat_entry,
    messages::normalise,
    request_id::Id,
    sampling::{Streaming, take_n, take_sampling, take_stop, take_streaming, token_budget},
    sse::{self, Chunk, Encoder, write_event, write_json},
    take_model,
};
use crate::{
    answer::TextOptions,
    model::{ChatPrompt, PromptError, ServedModel},
};

pub(super) async fn create(
    State(app): State<App>,
    Extension(id): Extension<Id>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let mut call = Call::new(&app, Endpoint::ChatCompletions, id, &headers);
    let model = app.model()?;
    let body = read_body(body, app.config.body_limit).await?;
    let (config, served) = (app.config, Arc::clone(&model));
    let request = blocking(move || ChatRequest::parse(&body, &served, &config)).await?;
    call.describe(&request.model, request.streaming.on);
    let envelope = Envelope { id: call.id.clone(), created: call.created, model: request.model };
    let choices = Choices::start(&model, call, &[request.prompt], &request.generation)?;
    if request.streaming.on {
        let encoder = ChatEncoder::new(envelope, model, choices.count(), request.streaming.include_usage);
        return Ok(sse::respond(choices, encoder, app.config.pace()));
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
        let extras = Extras::take(&mut fields, model)?;
        let scheduling = Scheduling::take(&mut fields, config.timeout)?;
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
            processors: extras.processors(model, max_tokens)?,
            scheduling,
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

/// Writes chunks: only what stands between the same beginning and the same end is made for each.
struct ChatEncoder {
    envelope: Envelope,
    model: Arc<ServedModel>,
    include_usage: bool,
    /// Answers whose role has been sent.
    started: Vec<bool>,
    /// A chunk up to the index of its choice.
    head: Vec<u8>,
    /// A chunk after its choice.
    tail: &'static [u8],
}

impl ChatEncoder {
    fn new(envelope: Envelope, model: Arc<ServedModel>, count: usize, include_usage: bool) -> Self {
        let mut head = BytesMut::new();
        write_event(&mut head, &envelope.chunk(json!([])));
        // The event's `]}` and its end, two newlines, come after the choice.
        head.truncate(head.len() - "]}\n\n".len());
        head.extend_from_slice(b"{\"index\":");
        let tail: &[u8] = if include_usage { b"}],\"usage\":null}\n\n" } else { b"}]}\n\n" };
        Self { envelope, model, include_usage, started: vec![false; count], head: head.to_vec(), tail }
    }

    /// Writes a chunk of `delta`, which is JSON.
    fn write(&self, out: &mut BytesMut, index: usize, delta: impl FnOnce(&mut BytesMut), rest: &[&[u8]]) {
        out.extend_from_slice(&self.head);
        write_json(out, &index);
        out.extend_from_slice(b",\"delta\":");
        delta(out);
        for part in rest {
            out.extend_from_slice(part);
        }
        out.extend_from_slice(self.tail);
    }
}

impl Encoder for ChatEncoder {
    fn chunk(&mut self, out: &mut BytesMut, chunk: Chunk<'_>) {
        const NO_REASON: &[u8] = b",\"logprobs\":null,\"finish_reason\":null";
        let index = chunk.index;
        if !std::mem::replace(&mut self.started[index], true) {
            let role = |out: &mut BytesMut| out.extend_from_slice(b"{\"role\":\"assistant\",\"content\":\"\"}");
            self.write(out, index, role, &[NO_REASON]);
        }
        // With log probabilities every token has a chunk, even one whose text is held back.
        if !chunk.text.is_empty() || !chunk.tokens.is_empty() {
            let content = |out: &mut BytesMut| {
                out.extend_from_slice(b"{\"content\":");
                write_json(out, chunk.text);
                out.extend_from_slice(b"}");
            };
            if chunk.tokens.is_empty() {
                self.write(out, index, content, &[NO_REASON]);
            } else {
                let logprobs = logprobs_json(&self.model, chunk.tokens).to_string();
                let rest: [&[u8]; 3] = [b",\"logprobs\":", logprobs.as_bytes(), b",\"finish_reason\":null"];
                self.write(out, index, content, &rest);
            }
        }
        if let Some(ending) = chunk.ending {
            let empty = |out: &mut BytesMut| out.extend_from_slice(b"{}");
            let reason = reason_name(ending.reason).as_bytes();
            self.write(out, index, empty, &[b",\"logprobs\":null,\"finish_reason\":\"", reason, b"\""]);
        }
    }

    fn end(&mut self, out: &mut BytesMut, usage: Usage) {
        if self.include_usage {
            let mut chunk = self.envelope.chunk(json!([]));
            chunk["usage"] = usage_json(usage);
            write_event(out, &chunk);
        }
    }
}
