//! Stretches of speech, packed into windows for a model that hears a fixed length at once.

use std::ops::Range;

use super::silero::SAMPLE_RATE;

/// Some stretches of a sound, one after the other, without what is between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpeechWindow {
    /// In samples of the sound.
    pub stretches: Vec<Range<usize>>,
}

/// Packs stretches into windows of at most `max` samples, as full as their order allows. One that is longer becomes several, cut
/// where a window is full: [`VadOptions::max_speech`](super::VadOptions::max_speech) cuts at better places.
#[must_use]
pub fn windows(stretches: &[Range<usize>], max: usize) -> Vec<SpeechWindow> {
    let max = max.max(1);
    let mut windows: Vec<SpeechWindow> = vec![];
    let mut len = 0;
    for stretch in stretches {
        let mut begin = stretch.start;
        while begin < stretch.end {
            let part = begin..stretch.end.min(begin + max);
            begin = part.end;
            match windows.last_mut() {
                Some(window) if len + part.len() <= max => {
                    len += part.len();
                    window.stretches.push(part);
                }
                _ => {
                    len = part.len();
                    windows.push(SpeechWindow { stretches: vec![part] });
                }
            }
        }
    }
    windows
}

impl SpeechWindow {
    /// How many samples it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stretches.iter().map(Range::len).sum()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its samples, out of the sound's.
    ///
    /// # Panics
    /// If the sound is shorter than it was.
    #[must_use]
    pub fn samples(&self, sound: &[f32]) -> Vec<f32> {
        self.stretches.iter().flat_map(|stretch| &sound[stretch.clone()]).copied().collect()
    }

    /// Where in the sound is what is at `seconds` of the window: for times at which something begins.
    #[must_use]
    pub fn start(&self, seconds: f64) -> f64 {
        self.original(seconds, |at, len| at < len)
    }

    /// Where in the sound is what is at `seconds` of the window: for times at which something ends. On the border of two stretches that is
    /// the end of the first.
    #[must_use]
    pub fn end(&self, seconds: f64) -> f64 {
        self.original(seconds, |at, len| at <= len)
    }

    fn original(&self, seconds: f64, is_within: impl Fn(f64, f64) -> bool) -> f64 {
        // A hundredth of a millisecond is no sample: times are multiples of 0.02 s that floating point cannot hold.
        let mut at = (seconds * f64::from(SAMPLE_RATE) * 100.0).round() / 100.0;
        for stretch in &self.stretches {
            let len = stretch.len() as f64;
            if is_within(at, len) {
                return (stretch.start as f64 + at.max(0.0)) / f64::from(SAMPLE_RATE);
            }
            at -= len;
        }
        // A model may hear something in the silence that fills its window up.
        self.stretches.last().map_or(seconds, |last| last.end as f64 / f64::from(SAMPLE_RATE))
    }
}
