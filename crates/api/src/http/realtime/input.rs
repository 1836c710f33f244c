//! What the client's microphone sends, until it is a turn of the conversation.

use std::{mem::take, sync::Arc};

use vllm_audio::Resampler;
use vllm_speech::vad::{Silero, TurnDetector, TurnEvent};

use super::{conversation::Samples, settings::Settings};

/// Samples a second of what models hear.
pub const RATE: u32 = 16_000;

/// What became clear from new samples.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// Somebody speaks, since so many milliseconds after the session's first sample.
    Started { ms: u64 },
    /// And has stopped: this was said.
    Stopped { ms: u64, samples: Samples },
}

/// Sound that is in no item yet.
pub struct InputBuffer {
    resampler: Resampler,
    detector: Option<TurnDetector>,
    /// At [`RATE`].
    samples: Vec<f32>,
    /// Samples of the session before these.
    before: usize,
    /// Where the speech that is under way began, in samples of the session.
    speech: Option<usize>,
    /// How much is kept of what was before speech, in samples.
    padding: usize,
}

impl InputBuffer {
    /// An empty one. Turns are found by `silero`, if the settings say so.
    pub fn new(settings: &Settings, silero: Option<&Arc<Silero>>) -> Self {
        let turns = settings.turns.zip(silero);
        Self {
            resampler: Resampler::new(settings.input.rate(), RATE),
            detector: turns.map(|(turns, silero)| TurnDetector::new(Arc::clone(silero), turns.options())),
            samples: Vec::new(),
            before: 0,
            speech: None,
            padding: turns.map_or(0, |(turns, _)| turns.padding_ms as usize * RATE as usize / 1000),
        }
    }

    /// Another for the same session, whose settings have changed. What is in this one goes over.
    pub fn with(self, settings: &Settings, silero: Option<&Arc<Silero>>) -> Self {
        let mut new = Self::new(settings, silero);
        (new.before, new.samples) = (self.before, self.samples);
        if let Some(detector) = &mut new.detector {
            detector.start_at(new.before + new.samples.len());
        }
        new
    }

    /// Seconds of sound in it.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(RATE)
    }

    /// Takes samples as the client sends them. Takes a hundredth of the time that they last, where turns are found.
    pub fn push(&mut self, samples: &[f32]) -> Vec<Heard> {
        let new = self.resampler.push(samples);
        self.samples.extend_from_slice(&new);
        let Some(detector) = &mut self.detector else { return Vec::new() };
        let mut heard = Vec::new();
        for event in detector.push(&new) {
            match event {
                TurnEvent::Start { sample } => {
                    self.speech = Some(sample.max(self.before));
                    heard.push(Heard::Started { ms: millis(sample) });
                }
                TurnEvent::End { sample } => {
                    let start = self.speech.take().unwrap_or(self.before);
                    let said = start.saturating_sub(self.before)..sample.saturating_sub(self.before);
                    let samples = self.samples.get(said).unwrap_or_default().into();
                    self.forget(sample);
                    heard.push(Heard::Stopped { ms: millis(sample), samples });
                }
            }
        }
        if self.speech.is_none() {
            // Silence is only kept for as long as it may yet belong to a turn; the detector is a little behind.
            let end = self.before + self.samples.len();
            self.forget(end.saturating_sub(self.padding + RATE as usize));
        }
        heard
    }

    /// Forgets what is before a sample of the session.
    fn forget(&mut self, until: usize) {
        let gone = until.saturating_sub(self.before).min(self.samples.len());
        self.samples.drain(..gone);
        self.before += gone;
    }

    /// All of it; it is empty then.
    pub fn commit(&mut self) -> Samples {
        let samples = take(&mut self.samples);
        self.before += samples.len();
        self.speech = None;
        if let Some(detector) = &mut self.detector {
            detector.start_at(self.before);
        }
        samples.into()
    }
}

fn millis(samples: usize) -> u64 {
    samples as u64 * 1000 / u64::from(RATE)
}
