//! The engine's figures.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vllm_platform::{MemoryInfo, ModelInfo};
use vllm_scheduler::{Load, Stats};

use super::exposition::Exposition;
use crate::http::cache::{hit_rate, ratio};

/// What the series are made from.
#[derive(Debug)]
pub struct Source<'a> {
    pub model: &'a str,
    pub info: &'a ModelInfo,
    pub stats: &'a Stats,
    pub load: Load,
    pub memory: &'a MemoryInfo,
    pub silence: Option<Duration>,
    pub stalled: bool,
}

impl Source<'_> {
    /// Blocks that prefixes can be found in: those of the layers that read everything.
    fn blocks(&self) -> usize {
        self.load.max_tokens / self.info.kv_cache.block_size.max(1)
    }

    /// Bytes of blocks that requests hold, and of those that only the prefix cache holds.
    fn bytes(&self) -> (u64, u64) {
        let sum = |count: fn(&vllm_scheduler::BlockStats) -> usize| {
            self.stats.blocks.iter().map(|group| count(group) as u64 * group.block_bytes).sum()
        };
        (sum(|group| group.in_use), sum(|group| group.cached))
    }
}

/// vLLM's series. Those that the endpoint picker of the Gateway API inference extension goes by are among them: requests
/// that wait and run, use of the KV cache, its configuration and adapters (proposal 003, "Model Server Protocol").
pub fn write_vllm(out: &mut Exposition, source: &Source<'_>) {
    let stats = source.stats;
    let labels = [("model_name", source.model), ("engine", "0")];
    let used = source.load.active_kv_usage;
    let gauges = [
        ("vllm:num_requests_running", "Requests being computed.", stats.running as f64),
        ("vllm:num_requests_waiting", "Requests waiting for their turn.", stats.waiting as f64),
        ("vllm:kv_cache_usage_perc", "Share of KV blocks that requests hold; 1 is all.", used),
        // The name it had in vLLM before 0.10, by which pickers before 1.0 know it.
        ("vllm:gpu_cache_usage_perc", "The same under its former name.", used),
    ];
    for (name, help, value) in gauges {
        out.gauge(name, help, &labels, value);
    }
    let cache = &stats.prefix_cache;
    let counters = [
        ("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.", cache.queries),
        ("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.", cache.hits),
        ("vllm:num_preemptions_total", "Times that a request gave its place to another.", stats.preemptions),
        ("vllm:prompt_tokens_total", "Prompt tokens computed.", stats.prompt_tokens),
        ("vllm:generation_tokens_total", "Tokens generated.", stats.generated_tokens),
    ];
    for (name, help, value) in counters {
        out.counter(name, help, &labels, value);
    }
    let ends = [("stop", stats.stopped), ("length", stats.full), ("abort", stats.aborted), ("error", stats.failed)];
    for (reason, count) in ends {
        let labels = [labels[0], labels[1], ("finished_reason", reason)];
        out.counter("vllm:request_success_total", "Requests that ended, by why.", &labels, count);
    }
    let all = &stats.histograms;
    let histograms = [
        ("vllm:time_to_first_token_seconds", "From submission to the first token.", &all.time_to_first_token),
        ("vllm:inter_token_latency_seconds", "Between two tokens of a request.", &all.inter_token_latency),
        ("vllm:e2e_request_latency_seconds", "From submission to the end.", &all.e2e_latency),
        ("vllm:request_queue_time_seconds", "From submission to the first step.", &all.queue_time),
        ("vllm:request_prefill_time_seconds", "From the first step to the first token.", &all.prefill_time),
        ("vllm:request_decode_time_seconds", "From the first token to the last.", &all.decode_time),
        ("vllm:request_inference_time_seconds", "From the first step to the end.", &all.inference_time),
        ("vllm:request_prompt_tokens", "Tokens of a prompt.", &all.prompt_tokens),
        ("vllm:request_generation_tokens", "Tokens of an answer.", &all.generation_tokens),
        ("vllm:request_params_max_tokens", "Most tokens that a request asked for.", &all.max_tokens),
        ("vllm:iteration_tokens_total", "Tokens of a step.", &all.iteration_tokens),
    ];
    for (name, help, histogram) in histograms {
        out.histogram(name, help, &labels, histogram);
    }
    let spec = &source.info.kv_cache;
    let (block_size, blocks) = (spec.block_size.to_string(), source.blocks().to_string());
    let labels = [
        labels[0],
        labels[1],
        ("block_size", block_size.as_str()),
        ("num_gpu_blocks", blocks.as_str()),
        ("cache_dtype", spec.dtype.name()),
        ("enable_prefix_caching", if cache.enabled { "True" } else { "False" }),
    ];
    out.gauge("vllm:cache_config_info", "What the KV cache is like; always 1.", &labels, 1.0);
    // Pickers that know adapters look for this one, and take what they find to be as recent as its value.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let labels =
        [labels[0], labels[1], ("max_lora", "0"), ("running_lora_adapters", ""), ("waiting_lora_adapters", "")];
    let help =
        "Adapters that can be served at once, are loaded, and are waited for: there are none; seconds since 1970.";
    out.gauge("vllm:lora_requests_info", help, &labels, now.as_secs_f64());
}

/// The original's series, and a few of ours beside them.
pub fn write_original(out: &mut Exposition, source: &Source<'_>) {
    let (stats, cache) = (source.stats, &source.stats.prefix_cache);
    let (used, cached) = source.bytes();
    let limit = source.info.kv_cache.total_bytes();
    let silence = source.silence.map_or(0.0, |silence| silence.as_secs_f64());
    let gauges = [
        ("vllm_mlx_scheduler_waiting_requests", "Requests waiting for their turn.", stats.waiting as f64),
        ("vllm_mlx_scheduler_running_requests", "Requests being computed.", stats.running as f64),
        ("vllm_mlx_engine_steps_executed", "Steps taken.", stats.steps as f64),
        ("vllm_mlx_engine_stalled", "Whether the engine has work and ends no step.", f64::from(source.stalled)),
        ("vllm_mlx_engine_silence_seconds", "Time with work in hand and no step ended.", silence),
        ("vllm_mlx_cache_entry_count", "Blocks in the prefix cache.", cache.indexed_blocks as f64),
        ("vllm_mlx_cache_hits", "Requests that found a prefix.", cache.hit_requests as f64),
        ("vllm_mlx_cache_misses", "Requests that found none.", cache.missed_requests as f64),
        ("vllm_mlx_cache_evictions", "Blocks forgotten to make room.", cache.evictions as f64),
        ("vllm_mlx_cache_tokens_saved", "Prompt tokens not computed again.", cache.hits as f64),
        ("vllm_mlx_cache_hit_rate", "Share of the tokens looked up that were found.", hit_rate(stats)),
        ("vllm_mlx_cache_utilization_ratio", "Share of KV memory that holds something.", ratio(used + cached, limit)),
        ("vllm_mlx_cache_memory_bytes", "KV memory that holds something.", (used + cached) as f64),
        ("vllm_mlx_cache_memory_limit_bytes", "KV memory in all.", limit as f64),
    ];
    for (name, help, value) in gauges {
        out.gauge(name, help, &[], value);
    }
    let memory = source.memory;
    for (kind, bytes) in [("active", memory.active), ("peak", memory.peak), ("cache", memory.cached)] {
        let help = "Memory of the model's device that MLX holds.";
        out.gauge("vllm_mlx_metal_memory_bytes", help, &[("kind", kind)], bytes as f64);
    }
    let kind = [("cache_type", if cache.enabled { "radix" } else { "none" })];
    out.gauge("vllm_mlx_cache_type", "Which prefix cache there is; always 1.", &kind, 1.0);
    let kind = [("engine_type", "batched")];
    out.gauge("vllm_mlx_engine_type", "Which engine there is; always 1.", &kind, 1.0);
    let Some(ssd) = &stats.ssd else { return };
    out.gauge("vllm_mlx_ssd_cache_entries", "Blocks on the SSD.", &[], ssd.entries as f64);
    out.gauge("vllm_mlx_ssd_cache_bytes", "Bytes on the SSD.", &[], ssd.bytes as f64);
    out.gauge("vllm_mlx_ssd_cache_limit_bytes", "Bytes that may be on the SSD.", &[], ssd.max_bytes as f64);
    let counters = [
        ("vllm_mlx_ssd_cache_written_blocks_total", "Blocks written.", ssd.written_blocks),
        ("vllm_mlx_ssd_cache_written_bytes_total", "Bytes written.", ssd.written_bytes),
        ("vllm_mlx_ssd_cache_read_blocks_total", "Blocks read.", ssd.read_blocks),
        ("vllm_mlx_ssd_cache_read_bytes_total", "Bytes read.", ssd.read_bytes),
        ("vllm_mlx_ssd_cache_hit_tokens_total", "Prompt tokens read instead of computed.", cache.ssd_hits),
        ("vllm_mlx_ssd_cache_dropped_total", "Blocks not written: too many waited.", ssd.dropped),
        ("vllm_mlx_ssd_cache_evictions_total", "Blocks deleted to make room.", ssd.evicted),
        ("vllm_mlx_ssd_cache_corrupt_total", "Blocks deleted because they were damaged.", ssd.corrupt),
        ("vllm_mlx_ssd_cache_errors_total", "Reads and writes that failed.", ssd.errors),
    ];
    for (name, help, value) in counters {
        out.counter(name, help, &[], value);
    }
}
