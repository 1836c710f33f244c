//! A sound as a model is given it: spectrograms of its parts, and when each was.

use std::{ops::Range, sync::Arc};

use vllm_platform::Mel;
use vllm_speech::{Segment, mel::MelSpectrogram, whisper::DecodingOptions};

/// A request whose sound is ready to be heard.
#[derive(Debug)]
pub(super) struct Prepared {
    /// In order of time.
    pub parts: Vec<Part>,
    pub options: Arc<DecodingOptions>,
    /// The language asked for, if the model wants to be told.
    pub language: Option<&'static str>,
    /// Seconds of the whole sound.
    pub duration: f64,
}

/// What is heard for itself.
#[derive(Debug)]
pub(super) struct Part {
    /// For a listener with silence behind it, out of which windows are cut.
    pub mel: Mel,
    /// Frames of the sound itself.
    pub frames: usize,
    pub times: Times,
}

/// When a part's times were in the whole sound.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Times {
    /// For each stretch that the part was put together from: when it begins in the part and when in the sound, and how long
    /// it is, in seconds. Empty: the part is the whole sound.
    stretches: Vec<[f64; 3]>,
}

/// Cuts sounds into parts.
#[derive(Debug)]
pub(super) struct Cutter {
    pub spectrogram: MelSpectrogram,
    /// Frames of a listener's window.
    pub window: Option<usize>,
    /// Of a transducer, in samples.
    pub max_chunk: usize,
    pub overlap: usize,
}

impl Cutter {
    /// The parts of a sound, or of its `speech`; those too short for a single frame are left out.
    ///
    /// A listener's is the whole sound; of speech, so many stretches as fill a window, so that they cost no more than one. A
    /// transducer's are as long as it may be given, and overlap where a stretch is cut.
    pub fn cut(&self, sound: &[f32], speech: Option<&[Range<usize>]>) -> Vec<Part> {
        let hop = self.spectrogram.settings().hop;
        let parts = match (self.window, speech) {
            (Some(_), None) => vec![vec![0..sound.len()]],
            (Some(window), Some(speech)) => fill(speech.iter().cloned(), window * hop),
            (None, speech) => {
                let whole = [0..sound.len()];
                let chunks = speech.unwrap_or(&whole).iter().flat_map(|stretch| self.chunks(stretch.clone()));
                fill(chunks, self.max_chunk)
            }
        };
        let parts = parts.into_iter().filter_map(|stretches| self.part(sound, &stretches, speech.is_none()));
        parts.collect()
    }

    /// Stretches no longer than a chunk, each with the end of the one before.
    fn chunks(&self, stretch: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let step = self.max_chunk - self.overlap;
        // What is left after the last step is heard by the chunk before.
        let count = stretch.len().saturating_sub(self.overlap).div_ceil(step).max(1);
        let max = self.max_chunk;
        (0..count).map(move |index| {
            let start = stretch.start + index * step;
            start..stretch.end.min(start + max)
        })
    }

    fn part(&self, sound: &[f32], stretches: &[Range<usize>], whole: bool) -> Option<Part> {
        let settings = self.spectrogram.settings();
        let joined: Vec<f32>;
        let samples = match stretches {
            [stretch] => &sound[stretch.clone()],
            _ => {
                joined = stretches.iter().flat_map(|stretch| &sound[stretch.clone()]).copied().collect();
                &joined
            }
        };
        let frames = samples.len() / settings.hop;
        if frames == 0 {
            return None;
        }
        let silence = self.window.map_or(0, |window| window * settings.hop);
        let mel = self.spectrogram.log_mel_padded(samples, silence);
        let seconds = |samples: usize| samples as f64 / f64::from(settings.sample_rate);
        let mut before = 0;
        let times = |stretch: &Range<usize>| {
            let times = [seconds(before), seconds(stretch.start), seconds(stretch.len())];
            before += stretch.len();
            times
        };
        let whole = whole && self.window.is_some();
        let stretches = if whole { Vec::new() } else { stretches.iter().map(times).collect() };
        Some(Part { mel, frames, times: Times { stretches } })
    }
}

/// Puts stretches together, one after the other, as long as they are no more than `room` samples.
fn fill(stretches: impl Iterator<Item = Range<usize>>, room: usize) -> Vec<Vec<Range<usize>>> {
    let mut parts: Vec<Vec<Range<usize>>> = Vec::new();
    let mut length = 0;
    for stretch in stretches {
        length += stretch.len();
        match parts.last_mut() {
            // Where one overlaps another they are parts of their own.
            Some(part) if length <= room && part.last().is_none_or(|last| last.end <= stretch.start) => {
                part.push(stretch);
            }
            _ => {
                length = stretch.len();
                parts.push(vec![stretch]);
            }
        }
    }
    parts
}

impl Times {
    /// When something that begins in the part began.
    pub fn start(&self, seconds: f64) -> f64 {
        // Between two stretches, the later one begins.
        let after = self.stretches.partition_point(|[begin, ..]| *begin <= seconds);
        self.original(after.saturating_sub(1), seconds)
    }

    /// When something that ends in the part ended.
    pub fn end(&self, seconds: f64) -> f64 {
        let after = self.stretches.partition_point(|[begin, ..]| *begin < seconds);
        self.original(after.saturating_sub(1), seconds)
    }

    fn original(&self, stretch: usize, seconds: f64) -> f64 {
        match self.stretches.get(stretch) {
            None => seconds,
            // What is heard beyond the end is not in the silence that was left out.
            Some([begin, original, length]) => original + (seconds - begin).clamp(0.0, *length),
        }
    }

    /// Gives a segment the times that it had in the whole sound, and says at which of its frames the window began.
    pub fn restore(&self, segment: &mut Segment, frames_per_second: f64) {
        if self.stretches.is_empty() {
            return;
        }
        segment.seek = (self.start(segment.seek as f64 / frames_per_second) * frames_per_second).round() as usize;
        segment.start = self.start(segment.start);
        segment.end = self.end(segment.end).max(segment.start);
        for word in &mut segment.words {
            word.start = self.start(word.start);
            word.end = self.end(word.end).max(word.start);
        }
    }
}
