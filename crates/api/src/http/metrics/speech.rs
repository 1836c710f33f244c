//! Figures of the engines that hear and speak.

use super::exposition::{Exposition, Labels};
use crate::http::audio::SpeechModels;
use vllm_scheduler::WorkStats;

pub fn write(out: &mut Exposition, models: &SpeechModels) {
    for model in models.transcribers() {
        let stats = model.engine.stats();
        let labels = [("model", model.names.first().map_or("", String::as_str))];
        work(out, "transcription", &labels, &stats.work);
        let counters = [
            ("vllm_mlx_transcription_windows_total", "Windows of sound encoded.", stats.windows),
            ("vllm_mlx_transcription_tokens_total", "Tokens written.", stats.tokens),
            ("vllm_mlx_transcription_fallbacks_total", "Attempts at higher temperatures.", stats.fallbacks),
        ];
        for (name, help, value) in counters {
            out.counter(name, help, &labels, value);
        }
        let (name, help) = ("vllm_mlx_transcription_audio_seconds_total", "Seconds of sound transcribed.");
        out.seconds(name, help, &labels, stats.audio_seconds);
        let (name, help) = ("vllm_mlx_transcription_encode_seconds_total", "Time that encoding windows took.");
        out.seconds(name, help, &labels, stats.encode_time.as_secs_f64());
        let (name, help) = ("vllm_mlx_transcription_decode_seconds_total", "Time that writing texts took.");
        out.seconds(name, help, &labels, stats.decode_time.as_secs_f64());
    }
    for model in models.speakers() {
        let stats = model.engine.stats();
        let labels = [("model", model.names.first().map_or("", String::as_str))];
        work(out, "speech", &labels, &stats.work);
        let counters = [
            ("vllm_mlx_speech_utterances_total", "Utterances spoken.", stats.utterances),
            ("vllm_mlx_speech_symbols_total", "Phonemes of utterances spoken.", stats.symbols),
        ];
        for (name, help, value) in counters {
            out.counter(name, help, &labels, value);
        }
        let seconds = stats.samples as f64 / f64::from(model.sample_rate());
        out.seconds("vllm_mlx_speech_audio_seconds_total", "Seconds of sound spoken.", &labels, seconds);
        let (name, help) = ("vllm_mlx_speech_first_chunk_seconds", "From submission to the first utterance.");
        out.histogram(name, help, &labels, &stats.first_chunk);
    }
}

fn work(out: &mut Exposition, what: &str, labels: Labels<'_>, work: &WorkStats) {
    let name = |end: &str| format!("vllm_mlx_{what}_{end}");
    out.gauge(&name("requests_waiting"), "Requests that nothing has been done for yet.", labels, work.waiting as f64);
    out.gauge(&name("requests_running"), "Requests under way.", labels, work.running as f64);
    out.seconds(&name("busy_seconds_total"), "Time that calls of the model took.", labels, work.busy.as_secs_f64());
}
