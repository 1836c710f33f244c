//! When somebody begins and stops to speak, while they do.

use std::sync::Arc;
use std::time::Duration;

use super::silero::{CHUNK, Silero, Stream};
use super::stretches::samples_in;

/// When a turn begins and ends. The defaults are those of OpenAI's `server_vad`.
#[derive(Debug, Clone, PartialEq)]
pub struct TurnOptions {
    /// Speech begins where it is at least this probable; it has ended where it is 0.15 less.
    pub threshold: f32,
    /// How much of what came before belongs to a turn.
    pub prefix_padding: Duration,
    /// A turn has ended if nobody spoke for so long.
    pub silence_duration: Duration,
}

impl Default for TurnOptions {
    fn default() -> Self {
        Self {
            threshold: 0.5,
            prefix_padding: Duration::from_millis(300),
            silence_duration: Duration::from_millis(500),
        }
    }
}

/// What a [`TurnDetector`] noticed; positions in samples from the sound's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnEvent {
    /// Somebody began to speak.
    Started {
        /// Where the turn begins, with what came just before.
        at: u64,
    },
    /// They stopped.
    Stopped {
        /// Where the turn ends, with the silence that ended it.
        at: u64,
    },
}

/// Follows a sound of 16 kHz that comes piece by piece.
#[derive(Debug, Clone)]
pub struct TurnDetector {
    stream: Stream,
    options: TurnOptions,
    /// Samples that do not make a chunk yet.
    chunk: [f32; CHUNK],
    filled: usize,
    /// Samples of whole chunks so far.
    heard: u64,
    speaking: bool,
    /// Where silence began, if somebody was speaking before.
    silence: Option<u64>,
    /// What is before this belongs to no further turn.
    ended: u64,
}

impl TurnDetector {
    /// At a sound's beginning.
    #[must_use]
    pub fn new(silero: Arc<Silero>, options: TurnOptions) -> Self {
        let stream = Stream::new(silero);
        Self { stream, options, chunk: [0.0; CHUNK], filled: 0, heard: 0, speaking: false, silence: None, ended: 0 }
    }

    /// Hears the next samples, however many.
    pub fn push(&mut self, mut samples: &[f32]) -> Vec<TurnEvent> {
        let mut events = vec![];
        while !samples.is_empty() {
            let (now, later) = samples.split_at(samples.len().min(CHUNK - self.filled));
            self.chunk[self.filled..self.filled + now.len()].copy_from_slice(now);
            self.filled += now.len();
            samples = later;
            if self.filled == CHUNK {
                self.filled = 0;
                let probability = self.stream.push(&self.chunk);
                events.extend(self.step(probability));
            }
        }
        events
    }

    fn step(&mut self, probability: f32) -> Option<TurnEvent> {
        let begin = self.heard;
        self.heard += CHUNK as u64;
        if probability >= self.options.threshold {
            self.silence = None;
            if self.speaking {
                return None;
            }
            self.speaking = true;
            let at = begin.saturating_sub(samples_in(self.options.prefix_padding) as u64).max(self.ended);
            return Some(TurnEvent::Started { at });
        }
        if !self.speaking || (self.silence.is_none() && probability >= (self.options.threshold - 0.15).max(0.01)) {
            return None;
        }
        let silence = *self.silence.get_or_insert(begin);
        if self.heard - silence < samples_in(self.options.silence_duration) as u64 {
            return None;
        }
        self.speaking = false;
        self.silence = None;
        self.ended = self.heard;
        Some(TurnEvent::Stopped { at: self.heard })
    }

    /// Whether somebody is speaking.
    #[must_use]
    pub fn is_speaking(&self) -> bool {
        self.speaking
    }

    /// How many samples it was given.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.heard + self.filled as u64
    }

    /// Other options from now on.
    pub fn set_options(&mut self, options: TurnOptions) {
        self.options = options;
    }

    /// Forgets the turn under way, for sound that was thrown away or taken by hand: none begins before this place any more.
    pub fn reset(&mut self) {
        self.stream.reset();
        self.speaking = false;
        self.silence = None;
        self.ended = self.position();
    }
}
