//! `POST /v1/completions`: plain continuation of texts or tokens.

mod request;

use std::ops::ControlFlow;

use axum::{Extension, body::Body, extract::State, http::HeaderMap, response::Response};
use bytes::BytesMut;
pub(crate) use request::{CompletionRequest, Terms};
use serde_json::{Value, json};
use vllm_scheduler::GeneratedToken;

use super::{
    ApiError, App, Opened, blocking,
    call::{Call, Endpoint},
    chat::OutputPlan,
    choices::{Choices, Collected, Complete, reason_name},
    health::json_response,
    logprobs::CompletionLogprobs,
    media::Media,
    open,
    request_id::Id,
    sse::{self, Chunk, Encoder, write_event, write_json},
    usage::Usage,
};
use crate::residency::Lease;

pub(super) async fn create(
    State(app): State<App>,
    Extension(id): Extension<Id>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let mut call = Call::new(&app, Endpoint::Completions, id, &headers);
    let Opened { fields, name, model } = open(&app, body).await?;
    let (config, served) = (app.config, model.clone());
    let parse = move || CompletionRequest::parse(fields, &served, &config, Terms::OPENAI, &Media::of(&served, &config));
    let request = blocking(parse).await?;
    call.describe(&name, request.streaming.on);
    let (id, created) = (call.id.clone(), call.created);
    let choices = Choices::start(&model, call, &request.prompts, &request.generation)?;
    let encoder = CompletionEncoder {
        id,
        created,
        name,
        model,
        echo: request.echo,
        n: request.generation.n,
        started: vec![false; choices.count()],
        logprobs: (0..choices.count()).map(|_| request.logprobs.then(CompletionLogprobs::default)).collect(),
        include_usage: request.streaming.include_usage,
        head: Vec::new(),
    };
    if request.streaming.on {
        return Ok(sse::respond(choices, encoder.for_stream(), app.config.pace()));
    }
    let collected = choices.collect(&OutputPlan::default()).await?;
    Ok(json_response(&encoder.complete(collected)))
}

struct CompletionEncoder {
    id: String,
    created: u64,
    name: String,
    model: Lease,
    /// Text of each prompt; empty if prompts are not echoed.
    echo: Vec<String>,
    /// Answers to each prompt.
    n: usize,
    /// Answers whose first piece has been sent.
    started: Vec<bool>,
    /// By answer, if asked for.
    logprobs: Vec<Option<CompletionLogprobs>>,
    include_usage: bool,
    /// A chunk of a stream up to the index of its choice.
    head: Vec<u8>,
}

impl CompletionEncoder {
    fn for_stream(mut self) -> Self {
        let mut head = BytesMut::new();
        write_event(&mut head, &self.envelope(json!([])));
        // The event's `]}` and its end, two newlines, come after the choice.
        head.truncate(head.len() - "]}\n\n".len());
        head.extend_from_slice(b"{\"index\":");
        self.head = head.to_vec();
        self
    }

    fn envelope(&self, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.name,
            "choices": choices,
        })
    }

    fn echo(&self, index: usize) -> &str {
        self.echo.get(index / self.n).map_or("", String::as_str)
    }

    fn complete(mut self, collected: Collected) -> Value {
        let usage = collected.usage.to_json();
        let answers = collected.answers.into_iter().enumerate();
        let choices: Vec<Value> = answers.map(|(index, answer)| self.choice(index, answer)).collect();
        let mut response = self.envelope(Value::Array(choices));
        response["usage"] = usage;
        response
    }

    fn take_logprobs(&mut self, index: usize, tokens: &[GeneratedToken]) -> Option<Value> {
        let lists = self.logprobs[index].as_mut()?;
        for token in tokens {
            if let Some(logprobs) = &token.logprobs {
                lists.push(&self.model.tokenizer, token.token, logprobs);
            }
        }
        Some(lists.take())
    }

    fn choice(&mut self, index: usize, answer: Complete) -> Value {
        let logprobs = self.take_logprobs(index, &answer.tokens);
        json!({
            "index": index,
            "text": format!("{}{}", self.echo(index), answer.message.text),
            "logprobs": logprobs,
            "finish_reason": reason_name(answer.ending.reason),
        })
    }
}

impl Encoder for CompletionEncoder {
    fn chunk(&mut self, out: &mut BytesMut, chunk: Chunk<'_>) -> ControlFlow<()> {
        let index = chunk.index;
        let logprobs = if chunk.tokens.is_empty() { None } else { self.take_logprobs(index, chunk.tokens) };
        let echo = if std::mem::replace(&mut self.started[index], true) { "" } else { self.echo(index) };
        if echo.is_empty() && chunk.text.is_empty() && logprobs.is_none() && chunk.ending.is_none() {
            return ControlFlow::Continue(());
        }
        // As in chat completions: a chunk's beginning and end are always the same.
        out.extend_from_slice(&self.head);
        write_json(out, &index);
        out.extend_from_slice(b",\"text\":");
        if echo.is_empty() {
            write_json(out, chunk.text);
        } else {
            write_json(out, &format!("{echo}{}", chunk.text));
        }
        out.extend_from_slice(b",\"logprobs\":");
        write_json(out, &logprobs);
        out.extend_from_slice(b",\"finish_reason\":");
        write_json(out, &chunk.ending.map(|ending| reason_name(ending.reason)));
        let tail: &[u8] = if self.include_usage { b"}],\"usage\":null}\n\n" } else { b"}]}\n\n" };
        out.extend_from_slice(tail);
        ControlFlow::Continue(())
    }

    fn end(&mut self, out: &mut BytesMut, usage: Usage) {
        if self.include_usage {
            let mut chunk = self.envelope(json!([]));
            chunk["usage"] = usage.to_json();
            write_event(out, &chunk);
        }
    }
}
