//! Figures of the engines that make embeddings and scores.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::exposition::Exposition;
use crate::encoder::{Role, ServedEncoder};

pub fn write(out: &mut Exposition, encoders: &[Arc<ServedEncoder>]) {
    for encoder in encoders {
        let stats = encoder.engine.stats();
        let labels = [("model", encoder.names.first().map_or("", String::as_str))];
        let name = "vllm_mlx_encoder_requests_waiting";
        out.gauge(name, "Requests for embeddings or scores that have not ended.", &labels, stats.waiting as f64);
        let busy = "vllm_mlx_encoder_busy_seconds";
        out.gauge(busy, "Time that steps took, since the start.", &labels, stats.busy.as_secs_f64());
        let counters = [
            ("vllm_mlx_encoder_steps_total", "Steps taken.", stats.steps),
            ("vllm_mlx_encoder_texts_total", "Texts encoded.", stats.texts),
            ("vllm_mlx_encoder_tokens_total", "Tokens of texts encoded.", stats.tokens),
        ];
        for (name, help, value) in counters {
            out.counter(name, help, &labels, value);
        }
        if encoder.role() == Role::Embed {
            let help = "Texts whose ends were cut off to fit the model.";
            out.counter("vllm_mlx_embedding_truncated_total", help, &labels, encoder.truncated.load(Relaxed));
        }
    }
}
