//! `GET /v1/cache/stats`, `DELETE /v1/cache` and `DELETE /v1/cache/prefix`.
//!
//! There are two levels: what models have seen in images (`vision`), and the KV of prompts with or without images.

use axum::{extract::State, response::Response};
use serde_json::{Value, json};
use vllm_media::Remembered;
use vllm_scheduler::{SsdStats, Stats, VisionStats};

use super::{ApiError, App, engine_says, health::json_response};
use crate::model::ServedModel;

pub(super) async fn stats(State(app): State<App>) -> Result<Response, ApiError> {
    Ok(json_response(&stats_json(&app)?))
}

/// Forgets every prefix that no running request holds, and what images were, in memory and on the SSD, of all loaded models,
/// and decoded images.
pub(super) async fn clear(State(app): State<App>) -> Result<Response, ApiError> {
    app.models()?;
    let (mut blocks, mut pictures) = (0, 0);
    for model in app.loaded() {
        blocks += engine_says(model.engine.clear_cache()).await?;
        pictures += model.vision.as_ref().map_or(0, |vision| vision.engine.clear_cache());
    }
    if let Some(loader) = &app.loader {
        loader.forget();
    }
    tracing::info!(blocks, pictures, "cache cleared");
    let stats = stats_json(&app)?;
    Ok(json_response(&json!({
        "status": "cleared",
        "blocks": blocks,
        "pictures": pictures,
        "engine_cache": stats["engine_cache"],
        "vision": stats["vision"],
    })))
}

/// The first loaded model's cache; where there may be several models, those of all by name.
fn stats_json(app: &App) -> Result<Value, ApiError> {
    let single = app.models()?.is_single();
    let loaded = app.loaded();
    let caches: Vec<Value> = loaded.iter().map(|model| cache_json(model, &model.engine.stats())).collect();
    let mut body =
        caches.first().cloned().unwrap_or_else(|| json!({ "engine_cache": null, "ssd": null, "vision": null }));
    body["decoded_media"] = app.loader.as_ref().map_or(Value::Null, |loader| decoded_json(loader.remembered()));
    if !single {
        let names = loaded.iter().map(|model| model.names.first().cloned().unwrap_or_default());
        body["models"] = Value::Object(names.zip(caches).collect());
    }
    Ok(body)
}

/// What the cache holds and did.
pub(super) fn cache_json(model: &ServedModel, stats: &Stats) -> Value {
    let spec = &model.engine.info().kv_cache;
    let cache = &stats.prefix_cache;
    let cached_bytes: u64 = stats.blocks.iter().map(|group| group.cached as u64 * group.block_bytes).sum();
    let used_bytes: u64 = stats.blocks.iter().map(|group| group.in_use as u64 * group.block_bytes).sum();
    let groups: Vec<Value> = spec
        .groups
        .iter()
        .zip(&stats.blocks)
        .map(|(group, blocks)| {
            json!({
                "window": group.window,
                "total_blocks": blocks.total,
                "allocated_blocks": blocks.in_use,
                "cached_blocks": blocks.cached,
                "free_blocks": blocks.total.saturating_sub(blocks.in_use + blocks.cached),
                "block_bytes": blocks.block_bytes,
            })
        })
        .collect();
    json!({
        "engine_cache": {
            "enabled": cache.enabled,
            "block_size": spec.block_size,
            "dtype": spec.dtype.name(),
            "hits": cache.hit_requests,
            "misses": cache.missed_requests,
            "hit_rate": hit_rate(stats),
            "tokens_queried": cache.queries,
            "tokens_saved": cache.hits,
            "tokens_from_ssd": cache.ssd_hits,
            "media_tokens_queried": cache.media_queries,
            "media_tokens_saved": cache.media_hits,
            "evictions": cache.evictions,
            "copies": cache.copies,
            "entry_count": cache.indexed_blocks,
            "current_memory_mb": mib(cached_bytes),
            "in_use_memory_mb": mib(used_bytes),
            "max_memory_mb": mib(spec.total_bytes()),
            "memory_utilization": ratio(cached_bytes + used_bytes, spec.total_bytes()),
            "groups": groups,
        },
        "ssd": stats.ssd.as_ref().map(ssd_json),
        "vision": model.vision.as_ref().map(|vision| vision_json(&vision.engine.stats())),
    })
}

/// What a model has seen, and what that cost.
fn vision_json(stats: &VisionStats) -> Value {
    json!({
        "entry_count": stats.entries,
        "bytes": stats.bytes,
        "max_bytes": stats.capacity,
        "hits": stats.hits,
        "ssd_hits": stats.ssd_hits,
        "misses": stats.misses,
        "joined": stats.joined,
        "evictions": stats.evictions,
        "encoder_runs": stats.encoded,
        "encoded_patches": stats.patches,
        "encoded_tokens": stats.tokens,
        "encoder_seconds": stats.busy.as_secs_f64(),
        "waiting": stats.waiting,
        "failed": stats.failed,
        "ssd": stats.ssd.as_ref().map(ssd_json),
    })
}

/// Images and videos that are decoded already.
fn decoded_json(remembered: Remembered) -> Value {
    json!({
        "entry_count": remembered.entries,
        "bytes": remembered.bytes,
        "max_bytes": remembered.capacity,
        "hits": remembered.hits,
        "misses": remembered.misses,
    })
}

/// Share of the tokens looked up that were found.
pub(super) fn hit_rate(stats: &Stats) -> f64 {
    ratio(stats.prefix_cache.hits, stats.prefix_cache.queries)
}

fn ssd_json(ssd: &SsdStats) -> Value {
    json!({
        "entry_count": ssd.entries,
        "bytes": ssd.bytes,
        "max_bytes": ssd.max_bytes,
        "spill_count": ssd.written_blocks,
        "spill_bytes": ssd.written_bytes,
        "reload_count": ssd.read_blocks,
        "reload_bytes": ssd.read_bytes,
        "dropped": ssd.dropped,
        "evictions": ssd.evicted,
        "corrupt": ssd.corrupt,
        "errors": ssd.errors,
    })
}

pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
