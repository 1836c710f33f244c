//! Counts of inference requests, as their clients saw them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use vllm_scheduler::Histogram;

use super::exposition::Exposition;
use crate::http::{
    call::{CallResult, Endpoint},
    usage::Usage,
};

const SECONDS: [f64; 12] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0];
const TTFT: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Upper ends of the buckets of `n`.
const N: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 128.0];

/// Counts by route and by whether the answer streamed.
#[derive(Debug)]
pub struct InferenceMetrics {
    series: Mutex<BTreeMap<(Endpoint, bool), Series>>,
    n: Mutex<Histogram>,
}

impl Default for InferenceMetrics {
    fn default() -> Self {
        Self { series: Mutex::default(), n: Mutex::new(Histogram::new(&N)) }
    }
}

#[derive(Debug)]
struct Series {
    results: BTreeMap<CallResult, u64>,
    usage: Usage,
    seconds: Histogram,
    ttft: Histogram,
}

impl Default for Series {
    fn default() -> Self {
        Self {
            results: BTreeMap::new(),
            usage: Usage::default(),
            seconds: Histogram::new(&SECONDS),
            ttft: Histogram::new(&TTFT),
        }
    }
}

impl InferenceMetrics {
    /// Counts a request for `n` answers to each of its prompts.
    pub fn submitted(&self, n: usize) {
        self.n.lock().unwrap_or_else(PoisonError::into_inner).record(n as f64);
    }

    /// Writes vLLM's series of the requests' `n`.
    pub fn write_n(&self, out: &mut Exposition, labels: &[(&str, &str)]) {
        let n = self.n.lock().unwrap_or_else(PoisonError::into_inner);
        out.histogram("vllm:request_params_n", "Answers asked for to each prompt.", labels, &n);
    }

    /// Counts a request that has ended.
    pub fn record(
        &self,
        endpoint: Endpoint,
        stream: bool,
        result: CallResult,
        duration: Duration,
        ttft: Option<Duration>,
        usage: Usage,
    ) {
        let mut all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let series = all.entry((endpoint, stream)).or_default();
        *series.results.entry(result).or_default() += 1;
        series.usage.prompt_tokens += usage.prompt_tokens;
        series.usage.completion_tokens += usage.completion_tokens;
        series.seconds.record(duration.as_secs_f64());
        if let Some(ttft) = ttft {
            series.ttft.record(ttft.as_secs_f64());
        }
    }

    /// Writes the series.
    pub fn write(&self, out: &mut Exposition) {
        let all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let labels = |&(endpoint, stream): &(Endpoint, bool)| {
            [("endpoint", endpoint.name()), ("stream", if stream { "true" } else { "false" })]
        };
        for (key, series) in all.iter() {
            for (result, count) in &series.results {
                let [endpoint, stream] = labels(key);
                let labels = [endpoint, stream, ("result", result.name())];
                out.counter("vllm_mlx_inference_requests_total", "Requests, by how they ended.", &labels, *count);
            }
        }
        for (key, series) in all.iter() {
            let (name, help) = ("vllm_mlx_prompt_tokens_total", "Tokens of prompts.");
            out.counter(name, help, &labels(key), series.usage.prompt_tokens as u64);
        }
        for (key, series) in all.iter() {
            let (name, help) = ("vllm_mlx_completion_tokens_total", "Tokens of answers.");
            out.counter(name, help, &labels(key), series.usage.completion_tokens as u64);
        }
        for (key, series) in all.iter() {
            let (name, help) = ("vllm_mlx_inference_request_duration_seconds", "From a request to its last byte.");
            out.histogram(name, help, &labels(key), &series.seconds);
        }
        for (key, series) in all.iter() {
            let (name, help) = ("vllm_mlx_inference_ttft_seconds", "From a request to its first token.");
            out.histogram(name, help, &labels(key), &series.ttft);
        }
    }
}
