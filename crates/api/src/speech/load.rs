//! Loading models that hear and speak.

use std::{sync::Arc, thread};

use anyhow::{Context as _, anyhow, bail};
use vllm_checkpoint::{Checkpoint, hub::HubOptions};
use vllm_platform::{ModelPurpose, ModelSource, SpeechOptions};
use vllm_scheduler::{SpeechText, SynthesisConfig, SynthesisEngine, TranscriptionConfig, TranscriptionEngine};
use vllm_speech::{voices::Voices, whisper::Vocabulary};
use vllm_text::Tokenizer;

use super::{ServedSpeaker, ServedTranscriber, aliases::aliases};
use crate::{
    encoder::purpose,
    model::{LoadObserver, LoadStage, open_platform, resolve},
};

/// What a model is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpeechRole {
    /// To write down what is said.
    Transcribe,
    /// To say what is written.
    Speak,
}

impl SpeechRole {
    /// Of a model of that purpose, if it has to do with speech.
    #[must_use]
    pub fn of(purpose: ModelPurpose) -> Option<Self> {
        match purpose {
            ModelPurpose::Transcribe => Some(Self::Transcribe),
            ModelPurpose::Speak => Some(Self::Speak),
            ModelPurpose::Generate | ModelPurpose::Embed | ModelPurpose::Score => None,
        }
    }
}

/// What to load and how.
#[derive(Debug, Clone)]
pub struct SpeechSpec {
    /// A folder, or `org/name` on the hub.
    pub model: String,
    /// Names to answer to; none: `model` as given.
    pub names: Vec<String>,
    /// For the hub.
    pub hub: HubOptions,
    /// For the platform.
    pub load: SpeechOptions,
    /// What it is to do.
    pub role: SpeechRole,
}

impl SpeechSpec {
    /// Finds the files, and whether they are of a model that does what is asked.
    fn open(&self, observer: &LoadObserver) -> anyhow::Result<ModelSource> {
        let path = resolve(&self.model, &self.hub, observer)?;
        let purpose = purpose(&path)?;
        if SpeechRole::of(purpose) == Some(self.role) {
            return Ok(ModelSource { path });
        }
        let does = match purpose {
            ModelPurpose::Transcribe => "transcribes",
            ModelPurpose::Speak => "speaks",
            ModelPurpose::Generate => "generates text",
            ModelPurpose::Embed => "makes embeddings",
            ModelPurpose::Score => "scores pairs of texts",
        };
        let wanted = match self.role {
            SpeechRole::Transcribe => "transcribe",
            SpeechRole::Speak => "speak",
        };
        bail!("{} {does}: it does not {wanted}", self.model)
    }

    fn names(&self) -> Vec<String> {
        if self.names.is_empty() { vec![self.model.clone()] } else { self.names.clone() }
    }
}

/// Loads a model that hears and starts its engine. Blocks; not for async workers.
///
/// # Errors
/// Whatever is wrong with the files or the device, or that the model is for something else, in one line.
pub fn load_transcriber(spec: &SpeechSpec, observer: &LoadObserver) -> anyhow::Result<ServedTranscriber> {
    let source = spec.open(observer)?;
    // Models that go along the sound have none.
    let tokenizer =
        Checkpoint::open(&source.path).map_err(anyhow::Error::from).and_then(|files| Ok(Tokenizer::load(&files)?));
    let tokenizer = tokenizer.map(Arc::new);
    let text = tokenizer.as_ref().ok().map(|tokenizer| {
        let tokenizer = Arc::clone(tokenizer);
        Box::new(move |size| Vocabulary::new(tokenizer, size)) as SpeechText
    });
    let (load, observer) = (spec.load, Arc::clone(observer));
    let make = move || {
        let loaded = open_platform()?.load_transcriber(&source, &load, &mut |done, total| {
            observer(LoadStage::Weights { done, total });
        });
        observer(LoadStage::Ready);
        loaded
    };
    let started = on_a_thread(|| TranscriptionEngine::start(make, text, TranscriptionConfig::default()))?;
    let engine = match (started, &tokenizer) {
        (Ok(engine), _) => engine,
        // Whoever has no tokenizer and needs one says so first.
        (Err(error), Err(missing)) => return Err(anyhow!("{error}; of its tokenizer: {missing:#}")),
        (Err(error), Ok(_)) => return Err(error.into()),
    };
    Ok(ServedTranscriber::new(spec.names(), aliases(&spec.model), engine))
}

/// Loads a model that speaks and starts its engine. Blocks; not for async workers.
///
/// # Errors
/// As [`load_transcriber`]; if it has no voices.
pub fn load_speaker(spec: &SpeechSpec, observer: &LoadObserver) -> anyhow::Result<ServedSpeaker> {
    let source = spec.open(observer)?;
    let folder = source.path.clone();
    let (load, observer) = (spec.load, Arc::clone(observer));
    let make = move || {
        let loaded = open_platform()?.load_synthesizer(&source, &load, &mut |done, total| {
            observer(LoadStage::Weights { done, total });
        });
        observer(LoadStage::Ready);
        loaded
    };
    let engine = on_a_thread(|| SynthesisEngine::start(make, SynthesisConfig::default()))??;
    let voices = Voices::open(&folder.join("voices"), engine.info().style_len).context("the model's voices")?;
    let speaker = ServedSpeaker::new(spec.names(), aliases(&spec.model), voices, engine);
    speaker.warm()?;
    Ok(speaker)
}

/// Not where async tasks may run: engines' starts wait for their models.
fn on_a_thread<T: Send>(start: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
    thread::scope(|scope| scope.spawn(start).join()).map_err(|_| anyhow!("starting the engine panicked"))
}
