//! Stretches of speech in a sound.

use std::ops::Range;
use std::time::Duration;

use super::silero::{CHUNK, SAMPLE_RATE, Silero};

/// What counts as a stretch of speech. The defaults are Silero's own.
#[derive(Debug, Clone, PartialEq)]
pub struct VadOptions {
    /// Speech begins where it is at least this probable.
    pub threshold: f32,
    /// It ends where it is less probable than this; none: 0.15 below the threshold, at least 0.01.
    pub end_threshold: Option<f32>,
    /// A shorter stretch is none.
    pub min_speech: Duration,
    /// Speech has ended if it does not go on for so long.
    pub min_silence: Duration,
    /// Added to a stretch at both ends, as far as there is silence.
    pub padding: Duration,
    /// A longer stretch is cut, at the longest silence within it if there is any.
    pub max_speech: Option<Duration>,
}

impl Default for VadOptions {
    fn default() -> Self {
        Self {
            threshold: 0.5,
            end_threshold: None,
            min_speech: Duration::from_millis(250),
            min_silence: Duration::from_millis(100),
            padding: Duration::from_millis(30),
            max_speech: None,
        }
    }
}

impl VadOptions {
    pub(super) fn end_threshold(&self) -> f32 {
        self.end_threshold.unwrap_or((self.threshold - 0.15).max(0.01))
    }
}

/// Samples in a time at 16 kHz.
pub(super) fn samples_in(time: Duration) -> usize {
    (time.as_nanos() * u128::from(SAMPLE_RATE) / 1_000_000_000) as usize
}

/// Silence shorter than this is no place to cut a stretch that is too long.
const CUT_SILENCE: Duration = Duration::from_millis(98);

/// The stretches of a sound of 16 kHz in which somebody speaks, in samples.
#[must_use]
pub fn speech(silero: &Silero, samples: &[f32], options: &VadOptions) -> Vec<Range<usize>> {
    let mut state = silero.state();
    let (chunks, rest) = samples.as_chunks::<CHUNK>();
    let mut probabilities: Vec<f32> = chunks.iter().map(|chunk| silero.push(&mut state, chunk)).collect();
    if !rest.is_empty() {
        let mut chunk = [0.0; CHUNK];
        chunk[..rest.len()].copy_from_slice(rest);
        probabilities.push(silero.push(&mut state, &chunk));
    }
    stretches(&probabilities, samples.len(), options)
}

/// The stretches of a sound of `len` samples, by the probability of speech in each of its chunks.
#[must_use]
pub fn stretches(probabilities: &[f32], len: usize, options: &VadOptions) -> Vec<Range<usize>> {
    let mut search = Search { options, begin: None, silence: None, pauses: vec![], found: vec![] };
    for (index, &probability) in probabilities.iter().enumerate() {
        search.step(index * CHUNK, probability);
    }
    let Search { begin, mut found, .. } = search;
    if let Some(begin) = begin
        && len.saturating_sub(begin) > samples_in(options.min_speech)
    {
        found.push(begin..len);
    }
    pad(&mut found, len, samples_in(options.padding));
    found
}

/// The search, going along the chunks.
struct Search<'a> {
    options: &'a VadOptions,
    /// Where the stretch under way began.
    begin: Option<usize>,
    /// Where in it silence began, if it is silent now.
    silence: Option<usize>,
    /// Silences within it that were followed by speech again: where, and how long.
    pauses: Vec<(usize, usize)>,
    found: Vec<Range<usize>>,
}

impl Search<'_> {
    /// The chunk at sample `at`.
    fn step(&mut self, at: usize, probability: f32) {
        let speaks = probability >= self.options.threshold;
        if speaks && let Some(silence) = self.silence.take() {
            let len = at - silence;
            if len > samples_in(CUT_SILENCE) {
                self.pauses.push((silence, len));
            }
        }
        let Some(begin) = self.begin else {
            self.begin = speaks.then_some(at);
            return;
        };
        if self.max_speech().is_some_and(|max| (at - begin) as i64 > max) && !self.divide(begin, at) {
            return;
        }
        if probability < self.options.end_threshold() {
            let silence = *self.silence.get_or_insert(at);
            if at - silence >= samples_in(self.options.min_silence) {
                self.end(silence);
            }
        }
    }

    /// How many samples a stretch may have, its padding and the chunk under way left out; possibly less than none.
    fn max_speech(&self) -> Option<i64> {
        let max = samples_in(self.options.max_speech?) as i64;
        Some(max - CHUNK as i64 - 2 * samples_in(self.options.padding) as i64)
    }

    /// Cuts the stretch under way: where its longest pause is, or else here. Whether it goes on.
    fn divide(&mut self, begin: usize, at: usize) -> bool {
        // The first of those that are equally long.
        let longest = self.pauses.iter().rev().max_by_key(|(_, len)| len).copied();
        self.pauses.clear();
        self.silence = None;
        let (end, next) = longest.map_or((at, None), |(pause, len)| (pause, Some(pause + len)));
        self.found.push(begin..end);
        self.begin = next;
        next.is_some()
    }

    /// Ends the stretch under way, which is dropped if it is too short.
    fn end(&mut self, at: usize) {
        if let Some(begin) = self.begin.take()
            && at - begin > samples_in(self.options.min_speech)
        {
            self.found.push(begin..at);
        }
        self.silence = None;
        self.pauses.clear();
    }
}

/// Widens stretches by `padding` on both sides; what is between two that are closer than that they share.
fn pad(found: &mut [Range<usize>], len: usize, padding: usize) {
    if let Some(first) = found.first_mut() {
        first.start = first.start.saturating_sub(padding);
    }
    for index in 0..found.len() {
        let Some(next) = found.get(index + 1).map(|next| next.start) else {
            found[index].end = (found[index].end + padding).min(len);
            return;
        };
        let between = next - found[index].end;
        let share = if between < 2 * padding { between / 2 } else { padding };
        found[index].end += share;
        found[index + 1].start = next - share;
    }
}
