//! Fields that chat completions and completions share.

use std::collections::BTreeMap;

use serde_json::Value;
use vllm_platform::{SamplingParams, TokenId};

use super::{ApiError, Fields, fields::show};
use crate::model::{SamplingDefaults, ServedModel};

/// Most answers to one prompt.
const MAX_N: i64 = 128;
/// Most stop strings, and the longest.
const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 1024;

/// Takes the sampling parameters, [`SamplingParams::logprobs`] apart.
///
/// # Errors
/// 400 for a wrong type or a value out of its range.
pub fn take_sampling(fields: &mut Fields, model: &ServedModel) -> Result<SamplingParams, ApiError> {
    take_sampling_or(fields, model, 1.0)
}

/// [`take_sampling`] with the temperature that neither the request nor the model's makers name.
///
/// # Errors
/// See [`take_sampling`].
pub fn take_sampling_or(
    fields: &mut Fields,
    model: &ServedModel,
    temperature: f32,
) -> Result<SamplingParams, ApiError> {
    let defaults: &SamplingDefaults = &model.sampling;
    let params = SamplingParams {
        temperature: fields.number("temperature")?.unwrap_or(defaults.temperature.unwrap_or(temperature)),
        // vLLM's clients say -1 for "all".
        top_k: match fields.integer("top_k", -1..=i64::MAX)? {
            None => defaults.top_k.unwrap_or(0),
            Some(k) => usize::try_from(k).unwrap_or(0),
        },
        top_p: fields.number("top_p")?.unwrap_or(defaults.top_p.unwrap_or(1.0)),
        min_p: fields.number("min_p")?.unwrap_or(defaults.min_p.unwrap_or(0.0)),
        repetition_penalty: fields.number("repetition_penalty")?.unwrap_or(defaults.repetition_penalty.unwrap_or(1.0)),
        presence_penalty: fields.number("presence_penalty")?.unwrap_or(defaults.presence_penalty.unwrap_or(0.0)),
        frequency_penalty: fields.number("frequency_penalty")?.unwrap_or(0.0),
        logit_bias: take_logit_bias(fields)?,
        // The sign is of no meaning to a seed.
        seed: fields.integer("seed", i64::MIN..=i64::MAX)?.map(i64::cast_unsigned),
        logprobs: None,
    };
    params.validate(model.engine.info().vocab_size)?;
    Ok(params)
}

fn take_logit_bias(fields: &mut Fields) -> Result<BTreeMap<TokenId, f32>, ApiError> {
    let Some(object) = fields.object("logit_bias")? else { return Ok(BTreeMap::new()) };
    let entry = |(token, bias): (String, Value)| {
        let id = token.parse::<TokenId>().map_err(|_| {
            ApiError::field("logit_bias", format!("logit_bias has a key {token:?}: keys must be token ids"))
        })?;
        let bias = bias.as_f64().ok_or_else(|| {
            let message = format!("logit_bias for token {id} is {}: it must be a number", show(&bias));
            ApiError::field("logit_bias", message)
        })?;
        Ok((id, bias as f32))
    };
    object.into_map().into_iter().map(entry).collect()
}

/// Takes `n`, the number of answers to a prompt.
///
/// # Errors
/// 400 if it isn't from 1 to 128.
pub fn take_n(fields: &mut Fields) -> Result<usize, ApiError> {
    Ok(fields.integer("n", 1..=MAX_N)?.unwrap_or(1) as usize)
}

/// Takes `stop`, a string or a list of them.
///
/// # Errors
/// 400 for anything else, an empty string, or too many or too long ones.
pub fn take_stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    take_stop_named(fields, "stop")
}

/// [`take_stop`] where the field has another name.
///
/// # Errors
/// See [`take_stop`].
pub fn take_stop_named(fields: &mut Fields, name: &str) -> Result<Vec<String>, ApiError> {
    let error = |message: String| Err(ApiError::field(name, message));
    let items = match fields.value(name) {
        None => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(single) => vec![single],
    };
    if items.len() > MAX_STOPS {
        return error(format!("{name} has {} strings: it may have at most {MAX_STOPS}", items.len()));
    }
    let mut stops = Vec::with_capacity(items.len());
    for item in items {
        match item {
            Value::String(text) if text.is_empty() => return error(format!("{name} has an empty string")),
            Value::String(text) if text.len() > MAX_STOP_BYTES => {
                return error(format!("{name} has a string of {} bytes: at most {MAX_STOP_BYTES}", text.len()));
            }
            Value::String(text) => stops.push(text),
            other => {
                return error(format!("{name} has {}: it must be a string or a list of strings", show(&other)));
            }
        }
    }
    Ok(stops)
}

/// How an answer is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streaming {
    /// As server-sent events.
    pub on: bool,
    /// With a last chunk that holds the usage.
    pub include_usage: bool,
}

/// Takes `stream` and `stream_options`.
///
/// # Errors
/// 400 for wrong types, and for options without `stream`.
pub fn take_streaming(fields: &mut Fields) -> Result<Streaming, ApiError> {
    let on = fields.boolean("stream")?.unwrap_or(false);
    let Some(mut options) = fields.object("stream_options")? else { return Ok(Streaming { on, include_usage: false }) };
    if !on {
        return Err(ApiError::field("stream_options", "stream_options is only allowed with stream: true"));
    }
    let include_usage = options.boolean("include_usage")?.unwrap_or(false);
    // Padding against traffic analysis: a server on one's own machine has none to add.
    options.boolean("include_obfuscation")?;
    options.finish();
    Ok(Streaming { on, include_usage })
}

/// The seed of answer `index` to one prompt: answers with one seed would all be the same.
#[must_use]
pub fn params_of_choice(params: &SamplingParams, index: usize) -> SamplingParams {
    let seed = params.seed.map(|seed| seed.wrapping_add(index as u64));
    SamplingParams { seed, ..params.clone() }
}

/// How many tokens an answer may have.
///
/// # Errors
/// 400 `context_length_exceeded` if the prompt leaves no room, or not enough for what was asked.
pub fn token_budget(
    model: &ServedModel,
    prompt: usize,
    asked: Option<usize>,
    default: usize,
    limit: Option<usize>,
    param: &str,
) -> Result<usize, ApiError> {
    if let (Some(asked), Some(limit)) = (asked, limit)
        && asked > limit
    {
        let message = format!("max_tokens is {asked}: this server allows at most {limit} (--max-request-tokens)");
        return Err(ApiError::field("max_tokens", message));
    }
    let info = model.engine.info();
    let context = info.context_length;
    if prompt >= context {
        let message = format!(
            "the prompt has {prompt} tokens: this model's context is {context} tokens, prompt and answer together"
        );
        return Err(ApiError::context_length(param, message));
    }
    match asked {
        Some(tokens) if prompt.saturating_add(tokens) > context => {
            let message = format!(
                "this model's context is {context} tokens: {prompt} in the prompt and {tokens} asked for are {}",
                prompt.saturating_add(tokens)
            );
            Err(ApiError::context_length(param, message))
        }
        Some(tokens) => Ok(tokens),
        None => {
            let room = context.min(info.kv_cache.capacity()).saturating_sub(prompt);
            Ok(default.min(limit.unwrap_or(usize::MAX)).min(room).max(1))
        }
    }
}
