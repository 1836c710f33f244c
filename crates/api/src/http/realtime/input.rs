//! What the client's microphone sends, until it is a turn of the conversation.

use std::{mem::take, sync::Arc};

use vllm_audio::Resampler;
use vllm_speech::vad::{Silero, TurnDetector, TurnEvent};

use super::{conversation::Samples, format::SoundFormat, settings::Settings};

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

/// Finds turns, and where in the session its first sample was.
struct Detector {
    turns: TurnDetector,
    start: usize,
}

/// Sound that is in no item yet.
pub struct InputBuffer {
    format: SoundFormat,
    resampler: Resampler,
    detector: Option<Detector>,
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
        Self {
            format: settings.input,
            resampler: Resampler::new(settings.input.rate(), RATE),
            detector: None,
            samples: Vec::new(),
            before: 0,
            speech: None,
            padding: 0,
        }
        .with(settings, silero)
    }

    /// The same, its session's settings changed. Speech that is under way is no turn of its own any more.
    pub fn with(mut self, settings: &Settings, silero: Option<&Arc<Silero>>) -> Self {
        if settings.input != self.format {
            self.format = settings.input;
            self.resampler = Resampler::new(settings.input.rate(), RATE);
        }
        let start = self.end();
        let turns = settings.turns.zip(silero);
        self.detector = turns.map(|(turns, silero)| {
            let turns = TurnDetector::new(Arc::clone(silero), turns.options());
            Detector { turns, start }
        });
        self.speech = None;
        self.padding = settings.turns.map_or(0, |turns| turns.padding_ms as usize * RATE as usize / 1000);
        self
    }

    /// Samples of the session so far.
    fn end(&self) -> usize {
        self.before + self.samples.len()
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
        let (start, events) = (detector.start, detector.turns.push(&new));
        let mut heard = Vec::new();
        for event in events {
            match event {
                TurnEvent::Started { at } => {
                    let at = (start + at as usize).max(self.before);
                    self.speech = Some(at);
                    heard.push(Heard::Started { ms: millis(at) });
                }
                TurnEvent::Stopped { at } => {
                    let at = start + at as usize;
                    let began = self.speech.take().unwrap_or(self.before);
                    let said = began - self.before..(at - self.before).min(self.samples.len());
                    let samples = self.samples.get(said).unwrap_or_default().into();
                    self.forget(at);
                    heard.push(Heard::Stopped { ms: millis(at), samples });
                }
            }
        }
        if self.speech.is_none() {
            // Silence is only kept for as long as it may yet belong to a turn; the detector is a chunk behind.
            self.forget(self.end().saturating_sub(self.padding + RATE as usize));
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
            detector.turns.reset();
        }
        samples.into()
    }
}

fn millis(samples: usize) -> u64 {
    samples as u64 * 1000 / u64::from(RATE)
}
