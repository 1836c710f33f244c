//! `POST /v1/completions`: plain continuation of texts or tokens.

use std::ops::ControlFlow;

use axum::{Extension, body::Body, extract::State, http::HeaderMap, response::Response};
use bytes::BytesMut;
use serde_json::{Value, json};
use vllm_platform::TokenId;
use vllm_scheduler::GeneratedToken;

use super::{
    ApiError, App, Fields, HttpConfig, Opened, blocking,
    call::{Call, Endpoint},
    chat::{OutputFormat, OutputPlan},
    choices::{Choices, Collected, Complete, Generation, Prompt, reason_name},
    extras::{Extras, Scheduling},
    fields::show,
    guide::Guide,
    health::json_response,
    logprobs::CompletionLogprobs,
    open,
    request_id::Id,
    sampling::{Streaming, take_n, take_sampling, take_stop, take_streaming, token_budget},
    sse::{self, Chunk, Encoder, write_event, write_json},
    usage::Usage,
};
use crate::{answer::TextOptions, model::ServedModel, residency::Lease};

/// Tokens of an answer whose request doesn't say, as OpenAI has it.
const DEFAULT_MAX_TOKENS: usize = 16;
/// Most alternatives to a token, as OpenAI has it.
const MAX_ALTERNATIVES: i64 = 5;

pub(super) async fn create(
    State(app): State<App>,
    Extension(id): Extension<Id>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let mut call = Call::new(&app, Endpoint::Completions, id, &headers);
    let Opened { fields, name, model } = open(&app, body).await?;
    let (config, served) = (app.config, model.clone());
    let request = blocking(move || CompletionRequest::parse(fields, &served, &config)).await?;
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

/// A body that was understood.
struct CompletionRequest {
    prompts: Vec<Prompt>,
    generation: Generation,
    streaming: Streaming,
    logprobs: bool,
    /// Text of each prompt, if answers start with it.
    echo: Vec<String>,
}

impl CompletionRequest {
    /// Blocks for as long as tokenising takes.
    fn parse(mut fields: Fields, model: &ServedModel, config: &HttpConfig) -> Result<Self, ApiError> {
        let add_special = fields.boolean("add_special_tokens")?.unwrap_or(true);
        let inputs = take_prompts(&mut fields)?;
        let mut params = take_sampling(&mut fields, model)?;
        let alternatives = fields.integer("logprobs", 0..=MAX_ALTERNATIVES)?;
        params.logprobs = alternatives.map(|n| n as usize);
        let n = take_n(&mut fields)?;
        if let Some(best_of) = fields.integer("best_of", 1..=i64::MAX)?
            && best_of as usize != n
        {
            let message = format!("best_of is {best_of}: it must be the same as n, {n}");
            return Err(ApiError::unsupported("best_of", message));
        }
        let stop = take_stop(&mut fields)?;
        let streaming = take_streaming(&mut fields)?;
        let asked = fields.integer("max_tokens", 1..=i64::MAX)?.map(|n| n as usize);
        let echo = fields.boolean("echo")?.unwrap_or(false);
        if echo && alternatives.is_some() {
            let message = "logprobs of an echoed prompt are not supported yet: leave out one of echo and logprobs";
            return Err(ApiError::unsupported("echo", message));
        }
        if fields.string("suffix")?.is_some_and(|suffix| !suffix.is_empty()) {
            return Err(ApiError::unsupported("suffix", "suffix: this model does not fill in the middle"));
        }
        fields.string("user")?;
        let format = OutputFormat::take(&mut fields)?;
        let extras = Extras::take(&mut fields, model)?;
        let scheduling = Scheduling::take(&mut fields, config.timeout)?;
        fields.finish();

        let invalid = |error: vllm_text::TextError| ApiError::field("prompt", error.to_string());
        let mut prompts = Vec::with_capacity(inputs.len());
        let mut texts = Vec::new();
        for input in inputs {
            let tokens = match &input {
                Input::Text(text) => model.tokenizer.encode(text, add_special).map_err(invalid)?,
                Input::Tokens(tokens) => tokens.clone(),
            };
            if echo {
                texts.push(match input {
                    Input::Text(text) => text,
                    Input::Tokens(tokens) => model.tokenizer.decode(&tokens, false).map_err(invalid)?,
                });
            }
            let max_tokens =
                token_budget(model, tokens.len(), asked, DEFAULT_MAX_TOKENS, config.max_request_tokens, "prompt")?;
            prompts.push(Prompt::of_text(tokens, max_tokens));
        }
        let shortest = prompts.iter().map(|prompt| prompt.max_tokens).min().unwrap_or(0);
        let stop_tokens = extras.stop_tokens(model);
        let constraint = format.constraint();
        let constraint = constraint.as_ref().map(|constraint| (constraint, "structured_outputs"));
        let guide = Guide::new(model, constraint, None, None, &stop_tokens)?;
        extras.check_with(&guide)?;
        let generation = Generation {
            params,
            n,
            guide,
            stop_tokens,
            processors: extras.processors(model, shortest)?,
            scheduling,
            text: TextOptions {
                stop,
                include_stop: extras.include_stop,
                skip_special: extras.skip_special,
                keep: Vec::new(),
            },
        };
        let logprobs = alternatives.is_some();
        Ok(Self { prompts, generation, streaming, logprobs, echo: texts })
    }
}

/// A prompt in either form.
enum Input {
    Text(String),
    Tokens(Vec<TokenId>),
}

/// Takes `prompt`: a string, a list of strings, a list of tokens or a list of lists of tokens.
fn take_prompts(fields: &mut Fields) -> Result<Vec<Input>, ApiError> {
    let error = |message: String| ApiError::field("prompt", message);
    match fields.value("prompt") {
        None => Err(error("prompt is missing: it must be a string, token ids, or a list of either".into())),
        Some(Value::String(text)) => Ok(vec![Input::Text(text)]),
        Some(Value::Array(items)) if items.is_empty() => Err(error("prompt is an empty list".into())),
        Some(Value::Array(items)) if items[0].is_number() => Ok(vec![Input::Tokens(tokens("prompt", &items)?)]),
        Some(Value::Array(items)) => {
            let input = |(index, item): (usize, Value)| match item {
                Value::String(text) => Ok(Input::Text(text)),
                Value::Array(ids) => Ok(Input::Tokens(tokens(&format!("prompt[{index}]"), &ids)?)),
                other => Err(error(format!("prompt[{index}] is {}: it must be a string or token ids", show(&other)))),
            };
            items.into_iter().enumerate().map(input).collect()
        }
        Some(other) => {
            Err(error(format!("prompt is {}: it must be a string, token ids, or a list of either", show(&other))))
        }
    }
}

fn tokens(name: &str, items: &[Value]) -> Result<Vec<TokenId>, ApiError> {
    let token = |item: &Value| {
        item.as_u64()
            .and_then(|id| TokenId::try_from(id).ok())
            .ok_or_else(|| ApiError::field("prompt", format!("{name} has {}: it must have token ids only", show(item))))
    };
    items.iter().map(token).collect()
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
