//! `GET /health`, `/ready` and `/ping`: whether requests can be served. `GET /live`: whether a restart would help.

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
    let Ok(model) = app.model() else {
        return with_status(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "loading" }));
    };
    let stats = model.engine.stats();
    let (code, status) = match stats.state {
        _ if app.stalled().is_some() => (StatusCode::SERVICE_UNAVAILABLE, "stalled"),
        EngineState::Running => (StatusCode::OK, "ok"),
        EngineState::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        EngineState::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "stopped"),
        EngineState::Broken => (StatusCode::SERVICE_UNAVAILABLE, "broken"),
    };
    let requests = json!({ "running": stats.running, "waiting": stats.waiting });
    let mut body = json!({ "status": status, "requests": requests });
    if let Some(silence) = app.stalled() {
        body["silence_s"] = json!(silence.as_secs_f64());
    }
    with_status(code, &body)
}

/// 503 for what does not get better by itself; a server that is starting or on its way down is alive.
pub(super) async fn live(State(app): State<App>) -> Response {
    let state = app.model().map(|model| model.engine.stats().state);
    let broken = match state {
        Ok(EngineState::Broken) => Some("broken"),
        Ok(EngineState::Stopped) => Some("stopped"),
        _ => app.stalled().map(|_| "stalled"),
    };
    let code = if broken.is_some() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    with_status(code, &json!({ "status": broken.unwrap_or("alive") }))
}

fn with_status(code: StatusCode, body: &serde_json::Value) -> Response {
    let mut response = json_response(body);
    *response.status_mut() = code;
    response
}

/// 200 with a JSON body.
pub(super) fn json_response(value: &serde_json::Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
