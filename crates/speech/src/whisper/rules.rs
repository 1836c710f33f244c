//! What Whisper's decoder may write next: rules over the logits of one step.
//!
//! Times come in pairs, never go back, and begin within the first second of a window; see the paper (arXiv:2212.04356, 4.5).

use vllm_platform::TokenId;

use super::Vocabulary;

/// Places of a window within which its first time has to be: one second.
const MAX_INITIAL_TIMESTAMP: usize = 50;

/// The rules of one decoding.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    pub vocabulary: &'a Vocabulary,
    pub timestamps: bool,
}

impl Rules<'_> {
    /// Makes what may not follow `written` (without the prompt) impossible in the logits [vocab] of the step after it.
    pub fn apply(&self, written: &[TokenId], logits: &mut [f32]) {
        let vocabulary = self.vocabulary;
        if written.is_empty() {
            forbid(logits, &vocabulary.blank);
        }
        forbid(logits, &vocabulary.suppressed);
        if self.timestamps {
            forbid(logits, &[vocabulary.no_timestamps]);
            self.pair(written, logits);
            self.prefer_timestamps(logits);
        }
    }

    /// Times in pairs, not decreasing, the first within a second.
    fn pair(&self, written: &[TokenId], logits: &mut [f32]) {
        let begin = self.vocabulary.timestamp_begin;
        let is_time = |token: &TokenId| *token >= begin;
        if written.is_empty() {
            logits[..begin as usize].fill(f32::NEG_INFINITY);
            logits[begin as usize + MAX_INITIAL_TIMESTAMP + 1..].fill(f32::NEG_INFINITY);
            return;
        }
        let last_is = written.last().is_some_and(is_time);
        let before_is = written.len() < 2 || is_time(&written[written.len() - 2]);
        if last_is && before_is {
            logits[begin as usize..].fill(f32::NEG_INFINITY);
        } else if last_is {
            logits[..self.vocabulary.eot as usize].fill(f32::NEG_INFINITY);
        }
        if let Some(&last) = written.iter().rev().find(|token| is_time(token)) {
            // The second of a pair may be the same as the first; a segment has a length.
            let least = if last_is && !before_is { last } else { last + 1 };
            let least = (least as usize).min(logits.len());
            logits[begin as usize..least].fill(f32::NEG_INFINITY);
        }
    }

    /// If it is more probable that any time follows than the most probable text, a time follows.
    fn prefer_timestamps(&self, logits: &mut [f32]) {
        let (text, times) = logits.split_at_mut(self.vocabulary.timestamp_begin as usize);
        if log_sum_exp(times) > greatest(text) {
            text.fill(f32::NEG_INFINITY);
        }
    }
}

fn forbid(logits: &mut [f32], tokens: &[TokenId]) {
    for &token in tokens {
        logits[token as usize] = f32::NEG_INFINITY;
    }
}

/// The greatest of `numbers`; −∞ of none.
pub(super) fn greatest(numbers: &[f32]) -> f32 {
    numbers.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

/// The logarithm of the sum of the exponentials of `numbers`; −∞ if all are.
pub(super) fn log_sum_exp(numbers: &[f32]) -> f32 {
    let greatest = greatest(numbers);
    if greatest == f32::NEG_INFINITY {
        return greatest;
    }
    // Most of a vocabulary is far below what is chosen: its exponentials are 0 in single precision.
    let far = |number: f32| number - greatest < -88.0;
    let sum: f64 =
        numbers.iter().filter(|&&number| !far(number)).map(|&number| f64::from((number - greatest).exp())).sum();
    greatest + sum.ln() as f32
}

/// Index of the greatest of `numbers`, the first of several.
pub(super) fn arg_max(numbers: &[f32]) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, &number) in numbers.iter().enumerate() {
        if number > best.1 {
            best = (index, number);
        }
    }
    best.0
}
