//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use serde_json::{Value, json};

use super::{ApiError, App, health::json_response};
use crate::model::ServedModel;

pub(super) async fn list(State(app): State<App>) -> Result<Response, ApiError> {
    let model = app.model()?;
    let data: Vec<Value> = model.names.iter().map(|name| entry(name, &model)).collect();
    Ok(json_response(&json!({ "object": "list", "data": data })))
}

pub(super) async fn retrieve(State(app): State<App>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let model = app.model()?;
    if model.names.contains(&id) {
        return Ok(json_response(&entry(&id, &model)));
    }
    Err(not_found(&id, &model))
}

fn entry(name: &str, model: &ServedModel) -> Value {
    json!({
        "id": name,
        "object": "model",
        "created": model.created,
        "owned_by": "vllm-mlx",
        "max_model_len": model.engine.info().context_length,
    })
}

/// 404 that says what there is.
pub(super) fn not_found(name: &str, model: &ServedModel) -> ApiError {
    let message = format!("the model {name:?} does not exist: this server has {}", model.names.join(", "));
    ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message)
}
