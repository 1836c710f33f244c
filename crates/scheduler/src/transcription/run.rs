//! What the thread of an engine that hears does.

use std::{sync::Arc, time::Instant};

use vllm_platform::{Error, MemoryInfo, Transcriber};
use vllm_speech::vad::SAMPLE_RATE;

use super::{
    SpeechText, TranscriptEvent, TranscriptionConfig, TranscriptionStats, handle::ModelInfo, listen::Listening,
    sound::Prepared, transduce::Transducing,
};
use crate::{
    Failure, FailureKind, StartError, WorkStats,
    background::{Caller, Room, Service},
};

/// A model and who wants something written down.
pub(super) enum Hearing {
    Listener(Box<Listening>),
    Transducer(Box<Transducing>),
}

impl Hearing {
    pub fn new(
        model: Transcriber,
        text: Option<SpeechText>,
        config: &TranscriptionConfig,
    ) -> Result<(Self, ModelInfo), StartError> {
        let info = model.info().clone();
        let unusable = |why: String| StartError::Load(Error::Model(why));
        let rate = info.mel.sample_rate;
        if rate != SAMPLE_RATE {
            return Err(unusable(format!(
                "the model hears {rate} samples a second, and speech is found in {SAMPLE_RATE}"
            )));
        }
        match model {
            Transcriber::Listener(model) => {
                let text = text.ok_or_else(|| unusable("a model that writes needs a tokenizer".into()))?;
                let vocabulary = text(info.vocab_size).map_err(|error| unusable(error.to_string()))?;
                let vocabulary = Arc::new(vocabulary);
                let listener = Some((model.listener_info().window_frames, Arc::clone(&vocabulary)));
                let listening = Listening::new(model, vocabulary, config);
                Ok((Self::Listener(Box::new(listening)), ModelInfo { model: info, listener }))
            }
            Transcriber::Transducer(model) => {
                let transducing = Transducing::new(model, config);
                Ok((Self::Transducer(Box::new(transducing)), ModelInfo { model: info, listener: None }))
            }
        }
    }
}

impl Service for Hearing {
    type Request = Prepared;
    type Event = TranscriptEvent;
    type Info = ModelInfo;
    type Stats = TranscriptionStats;

    fn admit(&mut self, request: Prepared, caller: Caller<TranscriptEvent>) {
        match self {
            Self::Listener(model) => model.admit(request, caller),
            Self::Transducer(model) => model.admit(request, caller),
        }
    }

    fn is_idle(&self) -> bool {
        match self {
            Self::Listener(model) => model.is_idle(),
            Self::Transducer(model) => model.is_idle(),
        }
    }

    fn remove(&mut self, which: &dyn Fn(&Caller<TranscriptEvent>) -> bool) -> Vec<Caller<TranscriptEvent>> {
        match self {
            Self::Listener(model) => model.remove(which),
            Self::Transducer(model) => model.remove(which),
        }
    }

    fn turn(&mut self, room: &mut Room<Self>) {
        match self {
            Self::Listener(model) => model.turn(room),
            Self::Transducer(model) => model.turn(room),
        }
    }

    fn memory(&self) -> vllm_platform::Result<MemoryInfo> {
        match self {
            Self::Listener(model) => model.model().memory(),
            Self::Transducer(model) => model.model().memory(),
        }
    }

    fn work(stats: &mut TranscriptionStats) -> &mut WorkStats {
        &mut stats.work
    }
}

/// Tells a caller that all has been heard.
pub(super) fn done(
    caller: Caller<TranscriptEvent>,
    duration: f64,
    tokens: usize,
    windows: usize,
    room: &Room<Hearing>,
) {
    let now = Instant::now();
    let started = caller.started.unwrap_or(now);
    let (queue, compute) = (started - caller.submitted, now - started);
    room.count(|stats| stats.audio_seconds += duration);
    room.finish(caller, Some(TranscriptEvent::Done { duration, tokens, windows, queue, compute }));
}

pub(super) fn failed_step(message: String) -> Failure {
    Failure { kind: FailureKind::Step, message }
}
