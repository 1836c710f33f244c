//! The models that make embeddings and scores, by name, and what their routes have in common.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::body::Body;
use serde_json::{Value, json};
use vllm_platform::TokenId;
use vllm_scheduler::{EncodeInput, EncodeRequest, Encoded, EncoderStats};

use super::{ApiError, App, Fields, audio, call::Call, fields::show, read_request, usage::Usage};
use crate::{
    encoder::{Role, ServedEncoder},
    residency::LeaseError,
};

/// Most texts of a request, as OpenAI has it.
pub const MAX_TEXTS: usize = 2048;

/// The encoders of a server, in the order in which they came.
#[derive(Debug, Default)]
pub struct Encoders(Mutex<Vec<Arc<ServedEncoder>>>);

impl Encoders {
    pub fn add(&self, encoder: Arc<ServedEncoder>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(encoder);
    }

    pub fn all(&self) -> Vec<Arc<ServedEncoder>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn find(&self, name: &str) -> Option<Arc<ServedEncoder>> {
        self.all().into_iter().find(|encoder| encoder.names.iter().any(|known| known == name))
    }

    pub fn names(&self) -> Vec<String> {
        self.all().iter().flat_map(|encoder| encoder.names.clone()).collect()
    }
}

/// A name that nobody answers to, with all that somebody does.
pub fn unknown(app: &App, name: &str) -> ApiError {
    let models = app.models().map(|models| models.status()).unwrap_or_default();
    let others = app.encoders.names().into_iter().chain(app.speech.names());
    let known = models.into_iter().flat_map(|model| model.names).chain(others).collect();
    LeaseError::Unknown { name: name.to_owned(), known }.into()
}

/// The right route for a model that was asked for at another.
pub fn other_route(encoder: &ServedEncoder, name: &str) -> ApiError {
    let message = match encoder.role() {
        Role::Embed => format!("the model {name:?} makes embeddings: it is served at /v1/embeddings"),
        Role::Score => format!("the model {name:?} scores pairs of texts: it is served at /v1/rerank and /v1/score"),
    };
    ApiError::field("model", message).with_code("wrong_model_type")
}

/// A body with the encoder it is for.
#[derive(Debug)]
pub struct Opened {
    /// What is left of the body.
    pub fields: Fields,
    /// The model as the request names it.
    pub name: String,
    pub encoder: Arc<ServedEncoder>,
}

/// Reads a body and finds its model, which must do what `role` says.
///
/// # Errors
/// 400 and 404.
pub async fn open(app: &App, body: Body, role: Role) -> Result<Opened, ApiError> {
    let (fields, name) = read_request(app, body).await?;
    match app.encoders.find(&name) {
        Some(encoder) if encoder.role() == role => Ok(Opened { fields, name, encoder }),
        Some(encoder) => Err(other_route(&encoder, &name)),
        None if let Some(error) = audio::other_route(app, &name) => Err(error),
        None if app.models()?.status().iter().any(|model| model.names.contains(&name)) => {
            let (what, flag) = match role {
                Role::Embed => ("makes no embeddings", "--embedding-model"),
                Role::Score => ("scores no pairs of texts", "--rerank-model"),
            };
            let message = format!("the model {name:?} generates text and {what}: serve one that does with {flag}");
            Err(ApiError::field("model", message).with_code("wrong_model_type"))
        }
        None => Err(unknown(app, &name)),
    }
}

/// Takes `truncate_prompt_tokens`: the most tokens of a text; −1 and nothing at all mean what the model takes.
///
/// # Errors
/// 400 if the model doesn't take as many.
pub fn take_max_tokens(fields: &mut Fields, limit: usize) -> Result<Option<usize>, ApiError> {
    let name = "truncate_prompt_tokens";
    match fields.integer(name, -1..=i64::MAX)? {
        None => Ok(None),
        Some(-1) => Ok(Some(limit)),
        Some(tokens) if tokens >= 1 && tokens as usize <= limit => Ok(Some(tokens as usize)),
        Some(tokens) => Err(ApiError::field(
            name,
            format!("{name} is {tokens}: it must be -1, or from 1 to {limit} for this model"),
        )),
    }
}

/// A list of token ids.
///
/// # Errors
/// 400 for anything else.
pub fn token_ids(name: &str, param: &str, items: &[Value]) -> Result<Vec<TokenId>, ApiError> {
    let token = |item: &Value| {
        item.as_u64()
            .and_then(|id| TokenId::try_from(id).ok())
            .ok_or_else(|| ApiError::field(param, format!("{name} has {}: it must have token ids only", show(item))))
    };
    items.iter().map(token).collect()
}

/// Refuses lists that are empty or too long.
///
/// # Errors
/// 400.
pub fn check_count(name: &str, count: usize) -> Result<(), ApiError> {
    match count {
        0 => Err(ApiError::field(name, format!("{name} is an empty list"))),
        1..=MAX_TEXTS => Ok(()),
        _ => Err(ApiError::field(name, format!("{name} has {count} entries: it may have {MAX_TEXTS}"))),
    }
}

/// Has texts computed, and keeps the books on that.
///
/// # Errors
/// What the engine says.
pub async fn encode(
    call: &mut Call,
    encoder: &ServedEncoder,
    inputs: Vec<EncodeInput>,
    timeout: Option<Duration>,
) -> Result<Encoded, ApiError> {
    let request = EncodeRequest { inputs, client: call.client.clone(), timeout };
    let ticket = encoder.engine.submit(request)?;
    call.working();
    let result = ticket.wait().await;
    call.worked(result.as_ref().map(|encoded| (encoded.queue, encoded.compute)));
    let encoded = result?;
    call.count(Usage { prompt_tokens: encoded.tokens, ..Usage::default() });
    if encoded.vectors.iter().flatten().any(|number| !number.is_finite()) {
        return Err(ApiError::engine("the model gave numbers that are not finite"));
    }
    Ok(encoded)
}

/// An entry of `/v1/models`.
pub fn entry(name: &str, encoder: &ServedEncoder) -> Value {
    json!({
        "id": name,
        "object": "model",
        "created": encoder.created,
        "owned_by": "vllm-mlx",
        "max_model_len": encoder.engine.info().max_input_len,
        "status": "loaded",
    })
}

/// An entry of `/v1/status`.
pub fn status(encoder: &ServedEncoder) -> Value {
    let EncoderStats { waiting, steps, texts, tokens, busy, finished, cancelled, failed, .. } = encoder.engine.stats();
    let info = encoder.engine.info();
    json!({
        "model": encoder.names.first(),
        "output": info.output,
        "max_input_tokens": info.max_input_len,
        "num_waiting": waiting,
        "steps_executed": steps,
        "texts": texts,
        "tokens": tokens,
        "busy_s": busy.as_secs_f64(),
        "total_requests_processed": finished + cancelled + failed,
        "total_requests_cancelled": cancelled,
        "total_requests_failed": failed,
    })
}
