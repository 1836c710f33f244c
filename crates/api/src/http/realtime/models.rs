//! The models that hear and speak in a session.

use std::sync::Arc;

use crate::{
    http::{ApiError, App},
    speech::{ServedSpeaker, ServedTranscriber},
};

/// The model that hears: the one of that name, or the first.
///
/// # Errors
/// 400 if there is none.
pub fn transcriber(app: &App, name: Option<&str>) -> Result<Arc<ServedTranscriber>, ApiError> {
    let all = app.speech.transcribers();
    let Some(name) = name else {
        let none = || {
            let message = "this server has no model that hears: start it with --transcription-model";
            ApiError::new(axum::http::StatusCode::BAD_REQUEST, "model_not_found", message)
        };
        return all.into_iter().next().ok_or_else(none);
    };
    app.speech.transcriber(name).ok_or_else(|| {
        let known: Vec<&str> = all.iter().flat_map(|model| &model.names).map(String::as_str).collect();
        let message = format!("there is no model {name:?} that hears; there are: {}", known.join(", "));
        ApiError::field("model", message).with_code("model_not_found")
    })
}

/// The model that speaks: the first.
///
/// # Errors
/// 400 if there is none.
pub fn speaker(app: &App) -> Result<Arc<ServedSpeaker>, ApiError> {
    app.speech.speakers().into_iter().next().ok_or_else(|| {
        let message = "this server has no model that speaks: start it with --speech-model";
        ApiError::new(axum::http::StatusCode::BAD_REQUEST, "model_not_found", message)
    })
}

/// Whether there is such a voice.
///
/// # Errors
/// 400 if there is none, or nobody speaks at all.
pub fn check_voice(app: &App, name: &str) -> Result<(), ApiError> {
    Ok(speaker(app)?.check_voice(name)?)
}
