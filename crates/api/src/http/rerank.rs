//! `POST /v1/rerank`, `/v2/rerank` and `/rerank`: documents by how well they answer a query, as Jina and Cohere have it.

use axum::{Extension, body::Body, extract::State, http::HeaderMap, response::Response};
use serde_json::{Value, json};

use super::{
    ApiError, App, Fields, blocking,
    call::{Call, Endpoint},
    encoders::{Opened, check_count, encode, open, take_max_tokens},
    extras::take_timeout,
    fields::show,
    health::json_response,
    request_id::Id,
    score::{Pairs, take_instruction},
};
use crate::encoder::Role;

pub(super) async fn create(
    State(app): State<App>,
    Extension(id): Extension<Id>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let mut call = Call::new(&app, Endpoint::Rerank, id, &headers);
    let Opened { mut fields, name, encoder } = open(&app, body, Role::Score).await?;
    call.describe(&name, false);
    let timeout = take_timeout(&mut fields, app.config.timeout)?;
    let max = take_max_tokens(&mut fields, encoder.engine.info().max_input_len)?;
    let instruction = take_instruction(&mut fields, &encoder)?;
    let request = RerankRequest::take(fields)?;

    let model = encoder.clone();
    let (inputs, request) = blocking(move || {
        let pairs = Pairs { encoder: &model, instruction: instruction.as_deref(), max };
        let inputs = pairs.encode(request.documents.iter().map(|document| (request.query.as_str(), document.as_str())));
        inputs.map(|inputs| (inputs, request))
    })
    .await?;
    let encoded = encode(&mut call, &encoder, inputs, timeout).await?;
    let scores: Vec<f32> = encoded.vectors.into_iter().flatten().collect();
    let results: Vec<Value> =
        request.best(&scores).into_iter().map(|index| request.result(index, scores[index])).collect();
    Ok(json_response(&json!({
        "id": call.id,
        "model": name,
        "results": results,
        "usage": { "prompt_tokens": encoded.tokens, "total_tokens": encoded.tokens },
    })))
}

/// A body that was understood.
struct RerankRequest {
    query: String,
    documents: Vec<String>,
    top_n: Option<usize>,
    return_documents: bool,
}

impl RerankRequest {
    fn take(mut fields: Fields) -> Result<Self, ApiError> {
        let query = fields.string("query")?;
        let query = query.ok_or_else(|| ApiError::field("query", "query is missing: it must be a string"))?;
        if query.trim().is_empty() {
            return Err(ApiError::field("query", "query is blank"));
        }
        let missing = || ApiError::field("documents", "documents is missing: it must be a list of texts");
        let documents = fields.array("documents")?.ok_or_else(missing)?;
        check_count("documents", documents.len())?;
        let documents = documents.into_iter().enumerate().map(document).collect::<Result<_, _>>()?;
        let top_n = fields.integer("top_n", 1..=i64::MAX)?.map(|n| n as usize);
        let return_documents = fields.boolean("return_documents")?.unwrap_or(true);
        fields.finish();
        Ok(Self { query, documents, top_n, return_documents })
    }

    /// The documents to return, best first; equals in the order given.
    fn best(&self, scores: &[f32]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        order.truncate(self.top_n.unwrap_or(usize::MAX));
        order
    }

    fn result(&self, index: usize, score: f32) -> Value {
        let mut result = json!({ "index": index, "relevance_score": score });
        if self.return_documents {
            result["document"] = json!({ "text": self.documents[index] });
        }
        result
    }
}

/// A string, or an object with a `text`.
fn document((index, value): (usize, Value)) -> Result<String, ApiError> {
    let wrong = |found: &Value| {
        let message = format!("documents[{index}] is {}: it must be a string or {{\"text\": …}}", show(found));
        ApiError::field("documents", message)
    };
    match value {
        Value::String(text) => Ok(text),
        Value::Object(mut fields) => match fields.remove("text") {
            Some(Value::String(text)) => Ok(text),
            _ => Err(wrong(&Value::Object(fields))),
        },
        other => Err(wrong(&other)),
    }
}
