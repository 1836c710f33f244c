//! `GET /v1/status`: what the server is doing, request by request.

use std::time::Duration;

use axum::{extract::State, response::Response};
use serde_json::{Value, json};
use vllm_platform::MemoryInfo;
use vllm_scheduler::{EngineState, Histogram, Phase, RequestStatus, Stats};

use super::{App, audio, cache::cache_json, encoders, health::json_response};
use crate::{
    model::ServedModel,
    residency::{self, Residency},
};

/// How long the list of requests is waited for: the engine gives it between two steps, and one that is stuck is just
/// what somebody may want to look at.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) async fn get(State(app): State<App>) -> Response {
    let uptime = app.shared.started.elapsed().as_secs_f64();
    let loaded = app.loaded();
    let mut models = Vec::with_capacity(loaded.len());
    for model in &loaded {
        models.push(model_json(&app, model).await);
    }
    let mut body = models.first().cloned();
    let body = body.get_or_insert_with(|| json!({ "status": "not_loaded", "model": null, "requests": [] }));
    body["uptime_s"] = json!(uptime);
    let encoders = app.encoders();
    if !encoders.is_empty() {
        body["encoders"] = encoders.iter().map(|encoder| encoders::status(encoder)).collect();
    }
    let (transcribers, speakers) = (app.speech.transcribers(), app.speech.speakers());
    if !transcribers.is_empty() {
        body["transcribers"] = transcribers.iter().map(|model| audio::status_of_transcriber(model)).collect();
    }
    if !speakers.is_empty() {
        body["speakers"] = speakers.iter().map(|model| audio::status_of_speaker(model)).collect();
    }
    if let Ok(residency) = app.models()
        && !residency.is_single()
    {
        // The fields above are the first loaded model's.
        body["models"] = Value::Array(models);
        body["model_manager"] = residency_json(residency);
    }
    json_response(body)
}

fn residency_json(residency: &Residency) -> Value {
    let config = residency.config();
    let models = residency.status();
    let models = models.iter().map(|model| {
        json!({
            "id": model.names.first(),
            "names": model.names,
            "status": model.phase.name(),
            "loaded": model.phase == residency::Phase::Loaded,
            "pinned": model.pinned,
            "active_requests": model.uses,
            "memory_gb": gib(model.bytes),
            "idle_s": model.last_used.map(|then| then.elapsed().as_secs_f64()),
            "last_error": model.last_error,
        })
    });
    json!({
        "memory_budget_gb": config.budget.map(gib),
        "idle_unload_seconds": config.idle_unload.map(|limit| limit.as_secs_f64()),
        "models": models.collect::<Vec<_>>(),
    })
}

async fn model_json(app: &App, model: &ServedModel) -> Value {
    let stats = model.engine.stats();
    let (stalled, silence) = (app.stalled_for(model).is_some(), model.engine.silence());
    let requests = tokio::time::timeout(PATIENCE, model.engine.requests()).await.ok();
    let requests: Option<Vec<Value>> = requests.map(|requests| requests.iter().map(request_json).collect());
    let status = match stats.state {
        _ if stalled => "stalled",
        EngineState::Running => "running",
        EngineState::Draining => "draining",
        EngineState::Stopped => "stopped",
        EngineState::Broken => "broken",
    };
    let cache = cache_json(model, &stats);
    json!({
        "status": status,
        "model": model.names.first(),
        "steps_executed": stats.steps,
        "num_running": stats.running,
        "num_waiting": stats.waiting,
        "num_preemptions": stats.preemptions,
        "total_requests_processed": stats.finished() + stats.aborted + stats.failed,
        "total_requests_cancelled": stats.aborted,
        "total_requests_failed": stats.failed,
        "total_prompt_tokens": stats.prompt_tokens,
        "total_completion_tokens": stats.generated_tokens,
        "generation_tps": generation_tps(&stats),
        "prompt_tps": rate(&stats.histograms.prefill_time, stats.prompt_tokens),
        "silence_s": silence.map(|silence| silence.as_secs_f64()),
        "last_step_s": stats.last_step.map(|then| then.elapsed().as_secs_f64()),
        "memory": memory_json(&model.engine.memory()),
        "cache": cache["engine_cache"],
        "ssd": cache["ssd"],
        "vision": cache["vision"],
        "requests": requests,
    })
}

/// Tokens a second of one request that is being answered, on average; `None` before there was one.
fn generation_tps(stats: &Stats) -> Option<f64> {
    let gaps = &stats.histograms.inter_token_latency;
    (gaps.sum() > 0.0).then(|| gaps.count() as f64 / gaps.sum())
}

/// Prompt tokens a second of one request whose prompt is being computed, on average.
fn rate(time: &Histogram, tokens: u64) -> Option<f64> {
    (time.sum() > 0.0).then(|| tokens as f64 / time.sum())
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

fn memory_json(memory: &MemoryInfo) -> Value {
    json!({
        "active_memory_gb": gib(memory.active),
        "peak_memory_gb": gib(memory.peak),
        "cache_memory_gb": gib(memory.cached),
        "limit_memory_gb": gib(memory.limit),
    })
}

fn request_json(request: &RequestStatus) -> Value {
    let (status, phase) = match request.phase {
        Phase::Waiting => ("waiting", "queued"),
        Phase::Loading => ("waiting", "loading"),
        Phase::Encoding => ("waiting", "encoding"),
        Phase::Prefill => ("running", "prefill"),
        Phase::Decode => ("running", "generation"),
    };
    let since_first = request.ttft.map(|ttft| request.age.saturating_sub(ttft).as_secs_f64());
    let speed = since_first.filter(|&seconds| seconds > 0.0 && request.generated_tokens > 1);
    // The engine's requests are named after the response and the answer's index.
    let id = request.id.0.rsplit_once('-').map_or(request.id.0.as_str(), |(id, _)| id);
    json!({
        "request_id": id,
        "engine_id": request.id.0,
        "status": status,
        "phase": phase,
        "priority": request.priority,
        "elapsed_s": request.age.as_secs_f64(),
        "prompt_tokens": request.prompt_tokens,
        "computed_tokens": request.computed_tokens,
        "completion_tokens": request.generated_tokens,
        "max_tokens": request.max_tokens,
        "progress": request.generated_tokens as f64 / request.max_tokens.max(1) as f64,
        "tokens_per_second": speed.map(|seconds| (request.generated_tokens - 1) as f64 / seconds),
        "ttft_s": request.ttft.map(|ttft| ttft.as_secs_f64()),
        "cache_hit_type": if request.cached_tokens > 0 { "prefix" } else { "miss" },
        "cached_tokens": request.cached_tokens,
    })
}
