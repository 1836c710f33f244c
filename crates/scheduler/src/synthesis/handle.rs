//! Everybody's view of an engine that speaks.

use std::time::Duration;

use vllm_platform::{MemoryInfo, SynthesizerInfo};

use super::{SpeakRequest, SpeechStats, SpeechStream, Spoken, run::Speaking};
use crate::{EngineState, SubmitError, background::Door};

/// A running engine. Cheap to clone; the engine ends when it was told to or the last clone is gone.
#[derive(Debug, Clone)]
pub struct SynthesisHandle {
    pub(super) door: Door<Speaking>,
    pub(super) max_pause: Duration,
}

impl SynthesisHandle {
    /// Queues a request.
    ///
    /// # Errors
    /// [`SubmitError`] if it could never be spoken, or not now. Nothing is left behind.
    pub fn submit(&self, request: SpeakRequest) -> Result<SpeechStream, SubmitError> {
        if request.utterances.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        if !(request.speed.is_finite() && request.speed > 0.0) {
            return Err(SubmitError::Sound(format!("speed is {}: it must be greater than 0", request.speed)));
        }
        for (index, utterance) in request.utterances.iter().enumerate() {
            self.check(utterance).map_err(|what| SubmitError::Utterance { index, what })?;
        }
        let (client, timeout) = (request.client.clone(), request.timeout);
        self.door.submit(client, timeout, || request)
    }

    fn check(&self, utterance: &Spoken) -> Result<(), String> {
        let info = self.info();
        let symbols = utterance.symbols.len();
        if symbols == 0 {
            return Err("has no symbols".into());
        }
        if symbols > info.max_symbols {
            return Err(format!("has {symbols} symbols, and this model speaks {}", info.max_symbols));
        }
        if utterance.style.len() != info.style_len {
            let style = utterance.style.len();
            return Err(format!("has a style of {style} numbers, and this model's have {}", info.style_len));
        }
        if !utterance.style.iter().all(|number| number.is_finite()) {
            return Err("has a style that is not made of finite numbers".into());
        }
        if utterance.pause > self.max_pause {
            return Err(format!("has a pause of {:?} after it, and {:?} are allowed", utterance.pause, self.max_pause));
        }
        Ok(())
    }

    /// The model in numbers.
    #[must_use]
    pub fn info(&self) -> &SynthesizerInfo {
        self.door.info()
    }

    /// Figures as of the last utterance, and the requests that are there now.
    #[must_use]
    pub fn stats(&self) -> SpeechStats {
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
