//! `GET /health`, `/ready` and `/ping`: whether requests can be served. `GET /live`: whether a restart would help.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::json;
use vllm_scheduler::{EncoderStats, EngineState, Stats, WorkStats};

use super::{App, mcp::Totals};

/// What [`state`] is of a server that takes requests.
pub(crate) const SERVING: &str = "ok";

/// How the server stands, in a word.
pub(crate) fn state(app: &App) -> &'static str {
    if app.models().is_err() {
        return "loading";
    }
    let models = app.loaded().into_iter().map(|model| model.engine.stats().state);
    let encoders = app.encoders().into_iter().map(|encoder| encoder.engine.stats().state);
    let speech = app.speech.work().into_iter().map(|work| work.state);
    let states: Vec<EngineState> = models.chain(encoders).chain(speech).collect();
    let any = |state: EngineState| states.contains(&state);
    if app.stalled().is_some() {
        "stalled"
    } else if any(EngineState::Broken) {
        "broken"
    } else if app.loaded().iter().any(|model| model.problem().is_some()) {
        "incomplete"
    } else if any(EngineState::Stopped) {
        "stopped"
    } else if any(EngineState::Draining) || app.draining().has_begun() {
        "draining"
    } else {
        SERVING
    }
}

pub(super) async fn get(State(app): State<App>) -> Response {
    let status = state(&app);
    let code = if status == SERVING { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if app.models().is_err() {
        return with_status(code, &json!({ "status": status }));
    }
    let stats: Vec<Stats> = app.loaded().iter().map(|model| model.engine.stats()).collect();
    let encoders: Vec<EncoderStats> = app.encoders().iter().map(|encoder| encoder.engine.stats()).collect();
    let speech: Vec<WorkStats> = app.speech.work();
    let silence = app.stalled();
    let problem = app.loaded().iter().find_map(|model| model.problem());
    let sum = |count: fn(&Stats) -> usize| stats.iter().map(count).sum::<usize>();
    let waiting = sum(|stats| stats.waiting) + encoders.iter().map(|stats| stats.waiting).sum::<usize>();
    let waiting = waiting + speech.iter().map(|work| work.waiting).sum::<usize>();
    let running = sum(|stats| stats.running) + speech.iter().map(|work| work.running).sum::<usize>();
    let requests = json!({ "running": running, "waiting": waiting });
    let mut body = json!({ "status": status, "requests": requests, "mcp": Totals::of(&app).map(|mcp| mcp.to_json()) });
    if let Some(silence) = silence {
        body["silence_s"] = json!(silence.as_secs_f64());
    }
    if let Some(problem) = problem {
        body["reason"] = json!(problem);
    }
    with_status(code, &body)
}

/// 503 for what does not get better by itself; a server that is starting or on its way down is alive.
pub(super) async fn live(State(app): State<App>) -> Response {
    let states: Vec<EngineState> = app.loaded().iter().map(|model| model.engine.stats().state).collect();
    let broken = if app.stalled().is_some() {
        Some("stalled")
    } else if states.contains(&EngineState::Broken) {
        Some("broken")
    } else if states.contains(&EngineState::Stopped) {
        Some("stopped")
    } else {
        None
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
