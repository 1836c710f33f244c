//! `GET /metrics`: figures for Prometheus, in vLLM's names and in those of the original vllm-mlx.

mod encoder;
mod engine;
mod exposition;
mod http;
mod inference;
mod speech;
mod vision;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use exposition::Exposition;
pub use http::{Counted, HttpMetrics};
pub use inference::InferenceMetrics;

use super::{ApiError, App, mcp::Totals};

/// Always there, so that a scrape works while the model loads; only the engine's own series come later.
pub(super) async fn get(State(app): State<App>) -> Response {
    if !app.config.metrics {
        let message = "there is no GET /metrics: this server runs with --disable-metrics";
        return ApiError::new(StatusCode::NOT_FOUND, "not_found", message).into_response();
    }
    let mut out = Exposition::default();
    let models = app.loaded();
    let loaded = f64::from(u8::from(!models.is_empty()));
    out.gauge("vllm_mlx_model_loaded", "Whether a model is loaded.", &[], loaded);
    let uptime = app.shared.started.elapsed().as_secs_f64();
    out.gauge("vllm_mlx_engine_uptime_seconds", "Time since the start of the server.", &[], uptime);
    if let Ok(residency) = app.models() {
        let entries = residency.status().len() as f64;
        out.gauge("vllm_mlx_model_registry_entries", "Models that may be served.", &[], entries);
    }
    for (index, model) in models.iter().enumerate() {
        let source = engine::Source {
            model: model.names.first().map_or("", String::as_str),
            info: model.engine.info(),
            stats: &model.engine.stats(),
            load: model.engine.load(),
            memory: &model.engine.memory(),
            silence: model.engine.silence(),
            stalled: app.stalled_for(model).is_some(),
        };
        engine::write_vllm(&mut out, &source);
        if index == 0 {
            app.shared.inference.write_n(&mut out, &[("model_name", source.model), ("engine", "0")]);
            // The original's have no label for the model: they are the first loaded one's.
            engine::write_original(&mut out, &source);
        }
    }
    encoder::write(&mut out, &app.encoders());
    speech::write(&mut out, &app.speech);
    vision::write(&mut out, &models);
    if let Some(mcp) = Totals::of(&app) {
        out.gauge("vllm_mlx_mcp_connected_servers", "MCP servers that are connected.", &[], mcp.connected as f64);
        out.gauge("vllm_mlx_mcp_total_servers", "MCP servers of the configuration.", &[], mcp.servers as f64);
        out.gauge("vllm_mlx_mcp_tools_available", "Tools of MCP servers that may be called.", &[], mcp.tools as f64);
    }
    app.shared.http.write(&mut out);
    app.shared.inference.write(&mut out);
    let mut response = Response::new(Body::from(out.finish()));
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}
