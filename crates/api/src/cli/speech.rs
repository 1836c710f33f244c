//! Loading the models that hear and speak, and watching over them.

use std::{io::Write as _, sync::Arc, time::Duration};

use vllm_checkpoint::hub::HubOptions;
use vllm_scheduler::EngineState;

use super::progress;
use crate::{
    http::App,
    speech::{ServedSpeaker, ServedTranscriber, SpeechRole, SpeechSpec, load_speaker, load_transcriber, load_vad},
};

/// What is to be loaded.
#[derive(Debug, Clone, Default)]
pub struct SpeechModels {
    /// Models that hear or speak, in the order in which they are listed.
    pub specs: Vec<SpeechSpec>,
    /// The model that finds where somebody speaks.
    pub vad: Option<String>,
    /// For that one.
    pub hub: HubOptions,
}

/// What is there.
#[derive(Debug, Clone, Default)]
pub struct LoadedSpeech {
    transcribers: Vec<Arc<ServedTranscriber>>,
    speakers: Vec<Arc<ServedSpeaker>>,
}

/// Loads them one after the other, and lets the application serve them.
///
/// # Errors
/// The first that fails.
pub async fn load(models: SpeechModels, app: &App) -> anyhow::Result<LoadedSpeech> {
    let SpeechModels { specs, vad, hub } = models;
    let mut loaded = LoadedSpeech::default();
    for spec in specs {
        match spec.role {
            SpeechRole::Transcribe => {
                let load = move || load_transcriber(&spec, &progress::bars());
                let model = Arc::new(tokio::task::spawn_blocking(load).await??);
                let info = model.engine.info();
                let languages = match model.vocabulary() {
                    Some(vocabulary) if vocabulary.is_multilingual() => {
                        format!("{} languages", vocabulary.languages().count())
                    }
                    Some(_) => "English".to_owned(),
                    None => "its languages".to_owned(),
                };
                say(&format!("ready: {} on {}, transcribes {languages}", model.names.join(", "), info.device));
                app.add_transcriber(Arc::clone(&model));
                loaded.transcribers.push(model);
            }
            SpeechRole::Speak => {
                let load = move || load_speaker(&spec, &progress::bars());
                let model = Arc::new(tokio::task::spawn_blocking(load).await??);
                let (device, voices) = (model.engine.info().device, model.voices.names().count());
                say(&format!("ready: {} on {device}, speaks with {voices} voices", model.names.join(", ")));
                app.add_speaker(Arc::clone(&model));
                loaded.speakers.push(model);
            }
        }
    }
    if let Some(vad) = vad {
        let load = move || load_vad(&vad, &hub, &progress::bars());
        app.set_vad(Arc::new(tokio::task::spawn_blocking(load).await??));
    }
    Ok(loaded)
}

/// The terminal may be gone.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

impl LoadedSpeech {
    /// Waits for one of their engines to stop, and says so. For ever, if there are none.
    pub async fn lost(&self) -> String {
        let mut waits = tokio::task::JoinSet::new();
        for model in &self.transcribers {
            let model = Arc::clone(model);
            waits.spawn(async move { (model.names.join(", "), model.engine.stopped().await) });
        }
        for model in &self.speakers {
            let model = Arc::clone(model);
            waits.spawn(async move { (model.names.join(", "), model.engine.stopped().await) });
        }
        match waits.join_next().await {
            Some(Ok((names, state))) => format!("the engine of {names} has stopped: {state:?}"),
            Some(Err(error)) => format!("watching models that hear and speak broke off: {error}"),
            None => std::future::pending().await,
        }
    }

    /// Stops their engines, and waits for them a little.
    pub async fn close(&self) {
        self.transcribers.iter().for_each(|model| model.engine.shutdown());
        self.speakers.iter().for_each(|model| model.engine.shutdown());
        // Gives the device's memory back in order, but never hangs on it.
        let stopped = async {
            let mut states: Vec<EngineState> = Vec::new();
            for model in &self.transcribers {
                states.push(model.engine.stopped().await);
            }
            for model in &self.speakers {
                states.push(model.engine.stopped().await);
            }
            states
        };
        drop(tokio::time::timeout(Duration::from_secs(5), stopped).await);
    }
}
