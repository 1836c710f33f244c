//! Figures of what models see with.

use std::sync::Arc;

use super::exposition::Exposition;
use crate::model::ServedModel;

pub fn write(out: &mut Exposition, models: &[Arc<ServedModel>]) {
    for model in models {
        let Some(vision) = &model.vision else { continue };
        let stats = vision.engine.stats();
        let labels = [("model_name", model.names.first().map_or("", String::as_str))];
        let gauges = [
            ("vllm_mlx_vision_waiting", "Pictures that wait to be encoded.", stats.waiting as f64),
            ("vllm_mlx_vision_busy_seconds", "Time that encoding took, since the start.", stats.busy.as_secs_f64()),
            ("vllm_mlx_vision_cache_entries", "Pictures whose features are in memory.", stats.entries as f64),
            ("vllm_mlx_vision_cache_bytes", "Memory of their features.", stats.bytes as f64),
            ("vllm_mlx_vision_cache_limit_bytes", "Memory that there is for features.", stats.capacity as f64),
        ];
        for (name, help, value) in gauges {
            out.gauge(name, help, &labels, value);
        }
        let counters = [
            ("vllm_mlx_vision_encoder_runs_total", "Pictures encoded.", stats.encoded),
            ("vllm_mlx_vision_encoded_tokens_total", "Vectors that encoding gave.", stats.tokens),
            ("vllm_mlx_vision_failed_total", "Pictures that could not be encoded.", stats.failed),
            ("vllm_mlx_vision_cache_hits_total", "Pictures whose features were in memory.", stats.hits),
            ("vllm_mlx_vision_cache_ssd_hits_total", "Pictures whose features were on the SSD.", stats.ssd_hits),
            ("vllm_mlx_vision_cache_misses_total", "Pictures whose features were nowhere.", stats.misses),
            ("vllm_mlx_vision_cache_joined_total", "Pictures that were being encoded for another.", stats.joined),
            ("vllm_mlx_vision_cache_evictions_total", "Pictures whose features made room.", stats.evictions),
        ];
        for (name, help, value) in counters {
            out.counter(name, help, &labels, value);
        }
        let cache = &model.engine.stats().prefix_cache;
        let prefixes = [
            ("vllm_mlx_prefix_cache_media_queries_total", "Tokens of pictures looked up.", cache.media_queries),
            ("vllm_mlx_prefix_cache_media_hits_total", "Tokens of pictures whose KV was found.", cache.media_hits),
        ];
        for (name, help, value) in prefixes {
            out.counter(name, help, &labels, value);
        }
    }
}
