//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::{
    extract::{Path, State},
    response::Response,
};
use serde_json::{Value, json};

use super::{ApiError, App, health::json_response};
use crate::residency::{LeaseError, ResidentStatus};

pub(super) async fn list(State(app): State<App>) -> Result<Response, ApiError> {
    let models = app.models()?.status();
    let data: Vec<Value> =
        models.iter().flat_map(|model| model.names.iter().map(|name| entry(&app, name, model))).collect();
    Ok(json_response(&json!({ "object": "list", "data": data })))
}

pub(super) async fn retrieve(State(app): State<App>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let models = app.models()?.status();
    match models.iter().find(|model| model.names.contains(&id)) {
        Some(model) => Ok(json_response(&entry(&app, &id, model))),
        None => {
            let known = models.into_iter().flat_map(|model| model.names).collect();
            Err(LeaseError::Unknown { name: id, known }.into())
        }
    }
}

fn entry(app: &App, name: &str, model: &ResidentStatus) -> Value {
    let loaded = model.loaded.as_ref();
    json!({
        "id": name,
        "object": "model",
        "created": loaded.map_or(app.shared.created, |loaded| loaded.created),
        "owned_by": "vllm-mlx",
        // Known when it is loaded.
        "max_model_len": loaded.map(|loaded| loaded.engine.info().context_length),
        "status": model.phase.name(),
    })
}
