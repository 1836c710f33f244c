//! Flags of `serve` for models that hear and speak.

use std::time::Duration;

use clap::Args;

use super::{
    args::{RuntimeArgs, SourceArgs, at_least_one, positive},
    speech::SpeechModels,
};
use crate::{
    http::AudioLimits,
    speech::{SpeechRole, SpeechSpec},
};

/// Which models hear and speak, and how much.
#[derive(Debug, Clone, Args)]
pub struct SpeechArgs {
    /// Model for /v1/audio/transcriptions, Whisper or Parakeet: a folder, or org/name on the hub (can be given several times)
    #[arg(long, value_name = "MODEL")]
    transcription_model: Vec<String>,
    /// Model for /v1/audio/speech, Kokoro: a folder, or org/name on the hub (can be given several times)
    #[arg(long, value_name = "MODEL")]
    speech_model: Vec<String>,
    /// Model that finds where somebody speaks, Silero: its .safetensors file, its folder, or org/name on the hub
    #[arg(long, value_name = "MODEL")]
    vad_model: Option<String>,
    /// Longest file to transcribe, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 25, value_parser = at_least_one)]
    max_audio_upload_mb: usize,
    /// Longest sound to transcribe, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1800.0, value_parser = positive)]
    max_audio_seconds: f64,
    /// Longest text to speak, in characters
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = at_least_one)]
    max_tts_input_chars: usize,
}

impl SpeechArgs {
    /// Bounds of requests.
    pub fn limits(&self) -> AudioLimits {
        AudioLimits {
            upload_bytes: (self.max_audio_upload_mb as u64).saturating_mul(1 << 20),
            duration: Duration::from_secs_f64(self.max_audio_seconds),
            input_chars: self.max_tts_input_chars,
        }
    }

    /// What the flags name.
    pub fn models(&self, source: &SourceArgs, runtime: &RuntimeArgs) -> SpeechModels {
        let of = |models: &[String], role| models.iter().map(move |model| spec(model, role, source, runtime)).collect();
        let mut specs: Vec<SpeechSpec> = of(&self.transcription_model, SpeechRole::Transcribe);
        let speakers: Vec<SpeechSpec> = of(&self.speech_model, SpeechRole::Speak);
        specs.extend(speakers);
        SpeechModels { specs, vad: self.vad_model.clone(), hub: source.hub() }
    }
}

/// One model, with what else the flags say.
pub fn spec(model: &str, role: SpeechRole, source: &SourceArgs, runtime: &RuntimeArgs) -> SpeechSpec {
    SpeechSpec {
        model: model.to_owned(),
        names: Vec::new(),
        hub: source.hub(),
        load: vllm_platform::SpeechOptions {
            device: source.device,
            threads: runtime.threads,
            pin_threads: runtime.pin_threads,
            activations: runtime.activations,
        },
        role,
    }
}
