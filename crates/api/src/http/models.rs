//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::{
    extract::{Path, State},
    response::Response,
};
use serde_json::{Value, json};

use super::{ApiError, App, audio, encoders, health::json_response};
use crate::residency::ResidentStatus;

pub(super) async fn list(State(app): State<App>) -> Result<Response, ApiError> {
    let models = app.models()?.status();
    let models = models.iter().flat_map(|model| model.names.iter().map(|name| entry(&app, name, model)));
    let encoders = app.encoders.all();
    let encoders = encoders.iter().flat_map(|encoder| encoder.names.iter().map(|name| encoders::entry(name, encoder)));
    let (transcribers, speakers) = (app.speech.transcribers(), app.speech.speakers());
    let heard = transcribers.iter().flat_map(|model| model.names.iter().map(|name| audio::entry(name, model.created)));
    let spoken = speakers.iter().flat_map(|model| model.names.iter().map(|name| audio::entry(name, model.created)));
    let data: Vec<Value> = models.chain(encoders).chain(heard).chain(spoken).collect();
    Ok(json_response(&json!({ "object": "list", "data": data })))
}

pub(super) async fn retrieve(State(app): State<App>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let models = app.models()?.status();
    match models.iter().find(|model| model.names.contains(&id)) {
        Some(model) => Ok(json_response(&entry(&app, &id, model))),
        None => match (app.encoders.find(&id), app.speech.created(&id)) {
            (Some(encoder), _) => Ok(json_response(&encoders::entry(&id, &encoder))),
            (None, Some(created)) => Ok(json_response(&audio::entry(&id, created))),
            (None, None) => Err(encoders::unknown(&app, &id)),
        },
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
        "modalities": loaded.map(|loaded| loaded.modalities()),
        "status": model.phase.name(),
    })
}
