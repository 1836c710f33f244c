//! `GET /v1/audio/voices`: who can speak.

use axum::{extract::State, http::Uri, response::Response};
use serde_json::{Value, json};
use vllm_speech::{phonemes::Language, voices::Gender};

use super::{form::Form, models::unsuitable};
use crate::{
    http::{ApiError, App, health::json_response},
    speech::ServedSpeaker,
};

/// Of `?model=`, or of the first model that speaks.
pub async fn list(State(app): State<App>, uri: Uri) -> Result<Response, ApiError> {
    app.models()?;
    let mut query = Form::new(Vec::new(), &uri);
    let name = query.string("model")?;
    query.finish()?;
    let model = match &name {
        Some(name) => {
            app.speech.speaker(name).ok_or_else(|| unsuitable(&app, name, ("does not speak", "--speech-model")))?
        }
        None => {
            let none = || ApiError::not_found("model_not_found", "no model here speaks: serve one with --speech-model");
            app.speech.speakers().into_iter().next().ok_or_else(none)?
        }
    };
    Ok(json_response(&voices(&model)))
}

/// The original's list of names, and what is known of each.
fn voices(model: &ServedSpeaker) -> Value {
    let names: Vec<&str> = model.voices.names().collect();
    let details = model.voices.list().map(|voice| {
        json!({
            "id": voice.name,
            "language": voice.language.map(Language::code),
            "gender": voice.gender.map(Gender::as_str),
        })
    });
    let details: Vec<Value> = details.collect();
    json!({ "model": model.names.first(), "voices": names, "default": model.default_voice(), "details": details })
}
