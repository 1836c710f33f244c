//! `POST /v1/messages/count_tokens`.

use axum::{body::Body, extract::State, response::Response};
use serde_json::json;

use super::request::Request;
use crate::http::{ApiError, App, Opened, health::json_response, open, staged};

/// Counts the tokens of a request's prompt: exactly those that an answer to it would count as its input, cached or not.
pub async fn create(State(app): State<App>, body: Body) -> Result<Response, ApiError> {
    let Opened { fields, model, .. } = open(&app, body).await?;
    let (config, counting) = (app.config, model.clone());
    let counted = staged(
        &app,
        move || Request::parse(fields, &model, &config),
        move |request| request.chat.count_tokens(&counting),
    );
    Ok(json_response(&json!({ "input_tokens": counted.await?.prepared })))
}
