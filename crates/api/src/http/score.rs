//! `POST /v1/score` and `/score`: how well texts go together, pair by pair, as vLLM has it.

use axum::{Extension, body::Body, extract::State, http::HeaderMap, response::Response};
use serde_json::{Value, json};
use vllm_scheduler::EncodeInput;

use super::{
    ApiError, App, Fields, blocking,
    call::{Call, Endpoint},
    encoders::{Opened, check_count, encode, open, take_max_tokens},
    extras::take_timeout,
    fields::show,
    health::json_response,
    request_id::Id,
};
use crate::encoder::{Role, ServedEncoder, engine_input};

pub(super) async fn create(
    State(app): State<App>,
    Extension(id): Extension<Id>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let mut call = Call::new(&app, Endpoint::Score, id, &headers);
    let Opened { mut fields, name, encoder } = open(&app, body, Role::Score).await?;
    call.describe(&name, false);
    let timeout = take_timeout(&mut fields, app.config.timeout)?;
    let max = take_max_tokens(&mut fields, encoder.engine.info().max_input_len)?;
    let instruction = take_instruction(&mut fields, &encoder)?;
    let (first, second) = (take_texts(&mut fields, "text_1")?, take_texts(&mut fields, "text_2")?);
    fields.finish();
    if first.len() != 1 && first.len() != second.len() {
        let (one, two) = (first.len(), second.len());
        let message = format!("text_1 has {one} texts and text_2 {two}: text_1 must have one, or as many as text_2");
        return Err(ApiError::field("text_1", message));
    }
    let model = encoder.clone();
    let inputs = blocking(move || {
        let pairs = Pairs { encoder: &model, instruction: instruction.as_deref(), max };
        pairs.encode(first.iter().cycle().map(String::as_str).zip(second.iter().map(String::as_str)))
    })
    .await?;
    let encoded = encode(&mut call, &encoder, inputs, timeout).await?;
    let score = |(index, score): (usize, f32)| json!({ "index": index, "object": "score", "score": score });
    let data: Vec<Value> = encoded.vectors.into_iter().flatten().enumerate().map(score).collect();
    Ok(json_response(&json!({
        "id": call.id,
        "object": "list",
        "created": call.created,
        "model": name,
        "data": data,
        "usage": { "prompt_tokens": encoded.tokens, "total_tokens": encoded.tokens, "completion_tokens": 0 },
    })))
}

/// Takes a string or a list of strings.
fn take_texts(fields: &mut Fields, name: &str) -> Result<Vec<String>, ApiError> {
    let wanted = "a string or a list of strings";
    let error = |message: String| ApiError::field(name, message);
    match fields.value(name) {
        None => Err(error(format!("{name} is missing: it must be {wanted}"))),
        Some(Value::String(text)) => Ok(vec![text]),
        Some(Value::Array(items)) => {
            check_count(name, items.len())?;
            let text = |(index, item): (usize, Value)| match item {
                Value::String(text) => Ok(text),
                other => Err(error(format!("{name}[{index}] is {}: it must be a string", show(&other)))),
            };
            items.into_iter().enumerate().map(text).collect()
        }
        Some(other) => Err(error(format!("{name} is {}: it must be {wanted}", show(&other)))),
    }
}

/// Takes `instruction`, the task for a model that is asked in words.
///
/// # Errors
/// 400 for one that isn't.
pub(super) fn take_instruction(fields: &mut Fields, encoder: &ServedEncoder) -> Result<Option<String>, ApiError> {
    let instruction = fields.string("instruction")?;
    if instruction.is_some() && encoder.judge.is_none() {
        let message = "instruction: this model reads the two texts and nothing else";
        return Err(ApiError::unsupported("instruction", message));
    }
    Ok(instruction)
}

/// How pairs of texts become inputs.
pub(super) struct Pairs<'a> {
    pub encoder: &'a ServedEncoder,
    pub instruction: Option<&'a str>,
    /// Most tokens of a pair; `None`: what the model takes.
    pub max: Option<usize>,
}

impl Pairs<'_> {
    /// Blocks for as long as tokenising takes. Pairs that are too long are cut: they are made for ranking, and a
    /// document's beginning ranks it better than an error.
    pub fn encode<'t>(&self, pairs: impl Iterator<Item = (&'t str, &'t str)>) -> Result<Vec<EncodeInput>, ApiError> {
        let max = self.max.unwrap_or(self.encoder.engine.info().max_input_len);
        let one = |(first, second): (&str, &str)| {
            let input = self.encoder.pair(first, second, self.instruction, max);
            let input = input.map_err(|error| ApiError::invalid(None, error.to_string()))?;
            match input.tokens.len() {
                0 => Err(ApiError::invalid(None, "a pair of texts has no tokens")),
                tokens if tokens > max => {
                    let message = format!("a pair takes {tokens} tokens even without its texts: {max} are allowed");
                    Err(ApiError::context_length("truncate_prompt_tokens", message))
                }
                _ => Ok(engine_input(input)),
            }
        };
        pairs.map(one).collect()
    }
}
