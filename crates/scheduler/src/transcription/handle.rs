//! Everybody's view of an engine that hears.

use std::{ops::Range, sync::Arc, time::Duration};

use vllm_platform::{MemoryInfo, TranscriberInfo};
use vllm_speech::{
    mel::MelSpectrogram,
    whisper::{DecodingOptions, Task, Vocabulary},
};

use super::{
    TranscribeRequest, TranscriptStream, TranscriptionConfig, TranscriptionStats,
    run::Hearing,
    sound::{Cutter, Prepared},
};
use crate::{EngineState, SubmitError, background::Door};

/// A running engine. Cheap to clone; the engine ends when it was told to or the last clone is gone.
#[derive(Debug, Clone)]
pub struct TranscriptionHandle {
    door: Door<Hearing>,
    cutter: Arc<Cutter>,
}

/// What is known of a model.
#[derive(Debug)]
pub(super) struct ModelInfo {
    pub model: TranscriberInfo,
    /// Frames of a window, and what its tokens are; none: the model takes sounds of any length, and has pieces.
    pub listener: Option<(usize, Arc<Vocabulary>)>,
}

impl TranscriptionHandle {
    pub(super) fn new(door: Door<Hearing>, config: TranscriptionConfig) -> Self {
        let info = door.info();
        let samples = |time: Duration| (time.as_secs_f64() * f64::from(info.model.mel.sample_rate)) as usize;
        let cutter = Cutter {
            spectrogram: MelSpectrogram::new(&info.model.mel),
            window: info.listener.as_ref().map(|(frames, _)| *frames),
            max_chunk: samples(config.max_chunk),
            overlap: samples(config.overlap),
        };
        Self { door, cutter: Arc::new(cutter) }
    }

    /// Queues a request, for which the sound's spectrogram is worked out first, on this thread and up to three others: some
    /// milliseconds for each minute of sound. An async task calls this from where it may block.
    ///
    /// # Errors
    /// [`SubmitError`] if it could never be heard, or not now. Nothing is left behind.
    pub fn submit(&self, request: TranscribeRequest) -> Result<TranscriptStream, SubmitError> {
        let TranscribeRequest { sound, options, speech, client, timeout } = request;
        let language = self.check(&options)?;
        check_speech(sound.len(), speech.as_deref())?;
        if sound.iter().any(|sample| !sample.is_finite()) {
            return Err(SubmitError::Sound("the sound has samples that are not finite numbers".into()));
        }
        self.door.submit(client, timeout, || Prepared {
            parts: self.cutter.cut(&sound, speech.as_deref()),
            options: Arc::new(options),
            language,
            duration: sound.len() as f64 / f64::from(self.info().mel.sample_rate),
        })
    }

    /// Whether the model can do what options ask for: as [`submit`](Self::submit), before there is a sound. The language's code
    /// if it was given and the model wants to be told.
    ///
    /// # Errors
    /// [`SubmitError::Sound`].
    pub fn check(&self, options: &DecodingOptions) -> Result<Option<&'static str>, SubmitError> {
        if let Some(vocabulary) = self.vocabulary() {
            return vocabulary.check(options).map_err(|error| SubmitError::Sound(error.to_string()));
        }
        let refused = |what: &str| Err(SubmitError::Sound(format!("this model {what}")));
        if options.task == Task::Translate {
            return refused("writes down what it hears: it cannot translate");
        }
        if options.language.is_some() {
            return refused("finds out by itself which language it hears: it cannot be told");
        }
        if options.prompt.as_deref().is_some_and(|prompt| !prompt.trim().is_empty()) {
            return refused("takes no prompt");
        }
        if options.temperatures.first().is_some_and(|&temperature| temperature > 0.0) {
            return refused("always writes what is most probable: it takes no temperature");
        }
        Ok(None)
    }

    /// The model in numbers.
    #[must_use]
    pub fn info(&self) -> &TranscriberInfo {
        &self.door.info().model
    }

    /// What a listener's tokens are, and which languages it knows; none for a transducer.
    #[must_use]
    pub fn vocabulary(&self) -> Option<&Arc<Vocabulary>> {
        self.door.info().listener.as_ref().map(|(_, vocabulary)| vocabulary)
    }

    /// Figures as of the model's last call, and the requests that are there now.
    #[must_use]
    pub fn stats(&self) -> TranscriptionStats {
        self.door.stats()
    }

    /// Memory of the model's device, as of a moment ago.
    #[must_use]
    pub fn memory(&self) -> MemoryInfo {
        self.door.memory()
    }

    /// How long the engine has had work in hand without getting on with it; `None` if it has nothing to do, or gives way to
    /// others.
    #[must_use]
    pub fn silence(&self) -> Option<Duration> {
        self.door.silence()
    }

    /// Refuses new requests and lets the engine stop when those it has are done.
    pub fn drain(&self) {
        self.door.drain();
    }

    /// Fails all requests and stops the engine.
    pub fn shutdown(&self) {
        self.door.shutdown();
    }

    /// Waits until the engine has stopped after [`drain`](Self::drain), [`shutdown`](Self::shutdown) or a breakdown.
    pub async fn stopped(&self) -> EngineState {
        self.door.stopped().await
    }
}

/// Whether stretches of speech are in order and within a sound.
fn check_speech(samples: usize, speech: Option<&[Range<usize>]>) -> Result<(), SubmitError> {
    let mut before = 0;
    for stretch in speech.unwrap_or_default() {
        if stretch.start < before || stretch.start >= stretch.end || stretch.end > samples {
            let what = format!("speech at {stretch:?} is not after {before} and within the sound's {samples} samples");
            return Err(SubmitError::Sound(what));
        }
        before = stretch.end;
    }
    Ok(())
}
