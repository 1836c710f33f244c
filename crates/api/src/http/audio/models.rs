//! The models that hear and speak, by name.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use vllm_scheduler::WorkStats;
use vllm_speech::vad::Silero;

use crate::{
    http::{ApiError, App, encoders},
    speech::{ServedSpeaker, ServedTranscriber},
};

/// The models of a server that hear and speak, in the order in which they came.
#[derive(Debug, Default)]
pub struct SpeechModels {
    transcribers: Mutex<Vec<Arc<ServedTranscriber>>>,
    speakers: Mutex<Vec<Arc<ServedSpeaker>>>,
    vad: OnceLock<Arc<Silero>>,
}

impl SpeechModels {
    pub fn add_transcriber(&self, model: Arc<ServedTranscriber>) {
        self.transcribers.lock().unwrap_or_else(PoisonError::into_inner).push(model);
    }

    pub fn add_speaker(&self, model: Arc<ServedSpeaker>) {
        self.speakers.lock().unwrap_or_else(PoisonError::into_inner).push(model);
    }

    /// Only the first counts.
    pub fn set_vad(&self, vad: Arc<Silero>) {
        let _ = self.vad.set(vad);
    }

    pub fn vad(&self) -> Option<Arc<Silero>> {
        self.vad.get().cloned()
    }

    pub fn transcribers(&self) -> Vec<Arc<ServedTranscriber>> {
        self.transcribers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn speakers(&self) -> Vec<Arc<ServedSpeaker>> {
        self.speakers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// By a name that is listed, or else by one that the original knows it by.
    pub fn transcriber(&self, name: &str) -> Option<Arc<ServedTranscriber>> {
        let all = self.transcribers();
        let named = all.iter().find(|model| model.names.iter().any(|known| known == name));
        named.or_else(|| all.iter().find(|model| model.aliases.iter().any(|known| known == name))).cloned()
    }

    /// The same, of those that speak.
    pub fn speaker(&self, name: &str) -> Option<Arc<ServedSpeaker>> {
        let all = self.speakers();
        let named = all.iter().find(|model| model.names.iter().any(|known| known == name));
        named.or_else(|| all.iter().find(|model| model.aliases.iter().any(|known| known == name))).cloned()
    }

    /// When a model was loaded, in seconds since 1970, if there is one of that name.
    pub fn created(&self, name: &str) -> Option<u64> {
        let transcriber = self.transcriber(name).map(|model| model.created);
        transcriber.or_else(|| Some(self.speaker(name)?.created))
    }

    /// What their engines are at.
    pub fn work(&self) -> Vec<WorkStats> {
        let (transcribers, speakers) = (self.transcribers(), self.speakers());
        let heard = transcribers.iter().map(|model| model.engine.stats().work);
        heard.chain(speakers.iter().map(|model| model.engine.stats().work)).collect()
    }

    /// How long each engine that has work in hand has been silent.
    pub fn silences(&self) -> Vec<Duration> {
        let (transcribers, speakers) = (self.transcribers(), self.speakers());
        let heard = transcribers.iter().filter_map(|model| model.engine.silence());
        heard.chain(speakers.iter().filter_map(|model| model.engine.silence())).collect()
    }

    /// All names that are listed.
    pub fn names(&self) -> Vec<String> {
        let (transcribers, speakers) = (self.transcribers(), self.speakers());
        let heard = transcribers.iter().flat_map(|model| model.names.clone());
        heard.chain(speakers.iter().flat_map(|model| model.names.clone())).collect()
    }
}

/// The right route for a model that hears or speaks, if it is one; asked for at another.
pub fn other_route(app: &App, name: &str) -> Option<ApiError> {
    let message = if app.speech.transcriber(name).is_some() {
        format!("the model {name:?} transcribes: it is served at /v1/audio/transcriptions and /v1/audio/translations")
    } else if app.speech.speaker(name).is_some() {
        format!("the model {name:?} speaks: it is served at /v1/audio/speech")
    } else {
        return None;
    };
    Some(wrong_type(message))
}

fn wrong_type(message: String) -> ApiError {
    ApiError::field("model", message).with_code("wrong_model_type")
}

/// What is wrong with a name that no model of the right kind has. `cannot`: what the route wants, and with which flag such
/// models are served.
pub fn unsuitable(app: &App, name: &str, cannot: (&str, &str)) -> ApiError {
    if let Some(error) = other_route(app, name) {
        return error;
    }
    if let Some(encoder) = app.encoders.find(name) {
        return encoders::other_route(&encoder, name);
    }
    match app.models() {
        Err(loading) => loading,
        Ok(models) if models.status().iter().any(|model| model.names.iter().any(|known| known == name)) => {
            let (what, flag) = cannot;
            wrong_type(format!("the model {name:?} generates text and {what}: serve one that does with {flag}"))
        }
        Ok(_) => encoders::unknown(app, name),
    }
}

/// An entry of `/v1/models`.
pub fn entry(name: &str, created: u64) -> Value {
    json!({ "id": name, "object": "model", "created": created, "owned_by": "vllm-mlx", "max_model_len": null, "status": "loaded" })
}

/// An entry of `/v1/status`.
pub fn status_of_transcriber(model: &ServedTranscriber) -> Value {
    let (stats, info) = (model.engine.stats(), model.engine.info());
    let mut status = work_json(model.names.first(), &info.architecture, &stats.work);
    status["audio_seconds"] = json!(stats.audio_seconds);
    status["windows"] = json!(stats.windows);
    status["tokens"] = json!(stats.tokens);
    status
}

/// The same.
pub fn status_of_speaker(model: &ServedSpeaker) -> Value {
    let (stats, info) = (model.engine.stats(), model.engine.info());
    let mut status = work_json(model.names.first(), &info.architecture, &stats.work);
    status["utterances"] = json!(stats.utterances);
    status["symbols"] = json!(stats.symbols);
    status["audio_seconds"] = json!(stats.samples as f64 / f64::from(info.sample_rate));
    status["voices"] = json!(model.voices.names().count());
    status
}

fn work_json(name: Option<&String>, architecture: &str, work: &WorkStats) -> Value {
    json!({
        "model": name,
        "architecture": architecture,
        "num_running": work.running,
        "num_waiting": work.waiting,
        "busy_s": work.busy.as_secs_f64(),
        "total_requests_processed": work.finished + work.cancelled + work.failed,
        "total_requests_cancelled": work.cancelled,
        "total_requests_failed": work.failed,
    })
}
