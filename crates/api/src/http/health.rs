//! `GET /health`: whether requests can be served.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::json;
use vllm_scheduler::EngineState;

use super::App;

pub(super) async fn get(State(app): State<App>) -> Response {
    let (code, status) = match app.model() {
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "loading"),
        Ok(model) => match model.engine.stats().state {
            EngineState::Running => (StatusCode::OK, "ok"),
            EngineState::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
            EngineState::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "stopped"),
            EngineState::Broken => (StatusCode::SERVICE_UNAVAILABLE, "broken"),
        },
    };
    let mut response = json_response(&json!({ "status": status }));
    *response.status_mut() = code;
    response
}

/// 200 with a JSON body.
pub(super) fn json_response(value: &serde_json::Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
