//! `POST /v1/embeddings`: a vector for each text.

use std::sync::atomic::Ordering::Relaxed;

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Serialize;
use serde_json::Value;
use vllm_platform::{EncoderOutput, TokenId};
use vllm_scheduler::EncodeInput;
use vllm_text::EncodedInput;

use super::{
    ApiError, App, Fields, blocking,
    call::{Call, Endpoint},
    encoders::{Opened, check_count, encode, open, take_max_tokens, token_ids},
    extras::take_timeout,
    fields::show,
    request_id::Id,
};
use crate::encoder::{Overflow, Role, ServedEncoder, engine_input};

pub(super) async fn create(
    State(app): State<App>,
    Extension(id): Extension<Id>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let mut call = Call::new(&app, Endpoint::Embeddings, id, &headers);
    let Opened { mut fields, name, encoder } = open(&app, body, Role::Embed).await?;
    call.describe(&name, false);
    let timeout = take_timeout(&mut fields, app.config.timeout)?;
    let model = encoder.clone();
    let request = blocking(move || EmbeddingRequest::take(fields, &model)).await?;
    let encoded = encode(&mut call, &encoder, request.inputs, timeout).await?;
    blocking(move || {
        let data = encoded.vectors.into_iter().enumerate().map(|(index, vector)| Item {
            object: "embedding",
            index,
            embedding: request.format.write(shortened(vector, request.dimensions)),
        });
        let usage = TokenUsage { prompt_tokens: encoded.tokens, total_tokens: encoded.tokens };
        write(&EmbeddingResponse { object: "list", data: data.collect(), model: name, usage })
    })
    .await
}

/// A body that was understood.
pub(crate) struct EmbeddingRequest {
    pub inputs: Vec<EncodeInput>,
    format: Format,
    dimensions: Option<usize>,
}

impl EmbeddingRequest {
    /// Blocks for as long as tokenising takes.
    ///
    /// # Errors
    /// 400 naming the field that can't be had.
    pub fn take(mut fields: Fields, encoder: &ServedEncoder) -> Result<Self, ApiError> {
        let info = encoder.engine.info();
        let format = Format::take(&mut fields)?;
        let most = match info.output {
            EncoderOutput::Embedding { dimensions, .. } => dimensions as i64,
            EncoderOutput::Score => 1,
        };
        let dimensions = fields.integer("dimensions", 1..=most)?.map(|n| n as usize);
        fields.string("user")?;
        let asked = take_max_tokens(&mut fields, info.max_input_len)?;
        let texts = take_texts(&mut fields)?;
        fields.finish();
        // Whoever says how long texts may be wants them cut.
        let cut = asked.is_some() || encoder.overflow == Overflow::Truncate;
        let max = asked.unwrap_or(info.max_input_len);
        let one = |(index, text): (usize, Text)| -> Result<EncodeInput, ApiError> {
            let input = text.encode(encoder, max)?;
            let (tokens, whole) = (input.tokens.len(), input.whole_len);
            if tokens == 0 {
                return Err(ApiError::field("input", format!("input[{index}] has no tokens")));
            }
            if tokens > max || input.is_truncated() && !cut {
                let message = format!("input[{index}] has {whole} tokens, and this model takes {max}");
                return Err(ApiError::context_length("input", message));
            }
            if input.is_truncated() {
                encoder.truncated.fetch_add(1, Relaxed);
                tracing::debug!(model = encoder.names.first(), index, tokens = whole, max, "text cut off");
            }
            Ok(engine_input(input))
        };
        let inputs = texts.into_iter().enumerate().map(one).collect::<Result<_, _>>()?;
        Ok(Self { inputs, format, dimensions })
    }
}

/// A text in either form.
enum Text {
    Written(String),
    Tokens(Vec<TokenId>),
}

impl Text {
    /// At most `max` tokens from its beginning. Tokens are taken as they are, without special ones.
    fn encode(self, encoder: &ServedEncoder, max: usize) -> Result<EncodedInput, ApiError> {
        match self {
            Self::Written(text) => {
                encoder.tokenizer.encode_input(&text, max).map_err(|error| ApiError::field("input", error.to_string()))
            }
            Self::Tokens(mut tokens) => {
                let whole_len = tokens.len();
                tokens.truncate(max);
                Ok(EncodedInput { tokens, types: Vec::new(), whole_len })
            }
        }
    }
}

/// Takes `input`: a string, a list of strings, a list of tokens or a list of lists of tokens.
fn take_texts(fields: &mut Fields) -> Result<Vec<Text>, ApiError> {
    let wanted = "a string, token ids, or a list of either";
    let error = |message: String| ApiError::field("input", message);
    match fields.value("input") {
        None => Err(error(format!("input is missing: it must be {wanted}"))),
        Some(Value::String(text)) => Ok(vec![Text::Written(text)]),
        Some(Value::Array(items)) if items.first().is_some_and(Value::is_number) => {
            Ok(vec![Text::Tokens(token_ids("input", "input", &items)?)])
        }
        Some(Value::Array(items)) => {
            check_count("input", items.len())?;
            let text = |(index, item): (usize, Value)| match item {
                Value::String(text) => Ok(Text::Written(text)),
                Value::Array(ids) => Ok(Text::Tokens(token_ids(&format!("input[{index}]"), "input", &ids)?)),
                other => Err(error(format!("input[{index}] is {}: it must be a string or token ids", show(&other)))),
            };
            items.into_iter().enumerate().map(text).collect()
        }
        Some(other) => Err(error(format!("input is {}: it must be {wanted}", show(&other)))),
    }
}

/// How numbers are written.
#[derive(Debug, Clone, Copy)]
enum Format {
    Float,
    /// Their bytes, little-endian f32.
    Base64,
}

impl Format {
    fn take(fields: &mut Fields) -> Result<Self, ApiError> {
        match fields.string("encoding_format")?.as_deref() {
            None | Some("float") => Ok(Self::Float),
            Some("base64") => Ok(Self::Base64),
            Some(other) => {
                let message = format!("encoding_format is {other:?}: it must be \"float\" or \"base64\"");
                Err(ApiError::field("encoding_format", message))
            }
        }
    }

    fn write(self, vector: Vec<f32>) -> Embedding {
        match self {
            Self::Float => Embedding::Float(vector),
            Self::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
                Embedding::Base64(BASE64_STANDARD.encode(bytes))
            }
        }
    }
}

/// The first `dimensions` numbers, scaled to length 1 again.
fn shortened(mut vector: Vec<f32>, dimensions: Option<usize>) -> Vec<f32> {
    let Some(dimensions) = dimensions.filter(|&dimensions| dimensions < vector.len()) else { return vector };
    vector.truncate(dimensions);
    let length = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
    vector
}

#[derive(Serialize)]
struct EmbeddingResponse {
    object: &'static str,
    data: Vec<Item>,
    model: String,
    usage: TokenUsage,
}

#[derive(Serialize)]
struct Item {
    object: &'static str,
    index: usize,
    embedding: Embedding,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Embedding {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct TokenUsage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// 200 with a body that is too long to be made into a JSON value first, which would also print f32 as f64.
fn write(response: &EmbeddingResponse) -> Result<Response, ApiError> {
    let body = serde_json::to_vec(response).map_err(|error| ApiError::engine(error.to_string()))?;
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortened_vectors_have_length_one() {
        assert_eq!(shortened(vec![3.0, 4.0, 12.0], Some(2)), [0.6, 0.8]);
        assert_eq!(shortened(vec![3.0, 4.0], Some(2)), [3.0, 4.0], "nothing is cut, nothing is changed");
        assert_eq!(shortened(vec![0.0, 0.0, 1.0], Some(2)), [0.0, 0.0]);
    }
}
