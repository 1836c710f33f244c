//! Figures after an answer.

use serde_json::{Value, json};
use vllm_scheduler::EngineHandle;

use crate::{answer::Ending, http::reason_name, memory::peak_rss_bytes};

/// What an answer took.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    prompt_tokens: usize,
    completion_tokens: usize,
    /// Prompt tokens a second, from the start of its computation to the first token.
    prompt_tps: Option<f64>,
    /// Tokens a second after the first.
    generation_tps: Option<f64>,
    ttft_ms: f64,
    peak_rss_bytes: Option<u64>,
    peak_device_bytes: u64,
}

impl Report {
    /// From the end of an answer.
    pub fn new(ending: &Ending, engine: &EngineHandle) -> Self {
        let (usage, timings) = (ending.usage, ending.timings);
        let rate = |tokens: usize, seconds: f64| (tokens > 0 && seconds > 0.0).then(|| tokens as f64 / seconds);
        let prefill = timings.ttft.saturating_sub(timings.queue);
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            prompt_tps: rate(usage.prompt_tokens, prefill.as_secs_f64()),
            generation_tps: rate(usage.completion_tokens.saturating_sub(1), timings.decode.as_secs_f64()),
            ttft_ms: timings.ttft.as_secs_f64() * 1e3,
            peak_rss_bytes: peak_rss_bytes(),
            peak_device_bytes: engine.memory().peak,
        }
    }

    /// For people.
    pub fn line(&self) -> String {
        let rate = |rate: Option<f64>| rate.map_or("–".into(), |rate| format!("{rate:.1} tok/s"));
        let process = self.peak_rss_bytes.map_or(String::new(), |bytes| format!("{} process, ", mib(bytes)));
        format!(
            "prompt: {} tokens, {} · generation: {} tokens, {} · first token: {:.0} ms · peak memory: {process}{} MLX",
            self.prompt_tokens,
            rate(self.prompt_tps),
            self.completion_tokens,
            rate(self.generation_tps),
            self.ttft_ms,
            mib(self.peak_device_bytes),
        )
    }

    /// For programs; with the answer.
    pub fn json(&self, text: &str, ending: &Ending) -> Value {
        json!({
            "text": text,
            "finish_reason": reason_name(ending.reason),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "prompt_tps": self.prompt_tps,
            "generation_tps": self.generation_tps,
            "ttft_ms": self.ttft_ms,
            "peak_rss_bytes": self.peak_rss_bytes,
            "peak_device_bytes": self.peak_device_bytes,
        })
    }
}

/// `123 MiB`, `1.2 GiB`.
pub fn mib(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1024.0 { format!("{mib:.0} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}
