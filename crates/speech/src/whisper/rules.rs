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

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::whisper::sampling::{Random, choose};
    use crate::whisper::tests::{fixture, noise, vocabulary};

    #[derive(Deserialize)]
    struct Fixture {
        size: usize,
        suppressed: Vec<TokenId>,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        seed: u64,
        boost: f32,
        timestamps: bool,
        text: Vec<TokenId>,
        /// Begins and ends of what may follow.
        left: Vec<usize>,
        token: usize,
        logprob: f32,
    }

    #[test]
    fn what_may_follow_is_what_openai_whisper_lets() {
        let vocabulary = vocabulary();
        let fixture: Fixture = fixture("rules.json");
        assert_eq!((vocabulary.size(), &vocabulary.suppressed), (fixture.size, &fixture.suppressed));
        let begin = vocabulary.timestamp_begin as usize;
        for case in fixture.cases {
            let mut logits: Vec<f32> = noise(case.seed, fixture.size).map(|number| (number * 10.0) as f32).collect();
            logits[begin..].iter_mut().for_each(|logit| *logit += case.boost);
            Rules { vocabulary: &vocabulary, timestamps: case.timestamps }.apply(&case.text, &mut logits);
            let mut left = vec![];
            for (token, pair) in
                [&[f32::NEG_INFINITY], logits.as_slice(), &[f32::NEG_INFINITY]].concat().windows(2).enumerate()
            {
                if pair[0].is_finite() != pair[1].is_finite() {
                    left.push(token);
                }
            }
            assert_eq!(left, case.left, "after {:?}", case.text);
            let (token, logprob) = choose(&logits, 0.0, &mut Random(0));
            assert_eq!(token, case.token, "after {:?}", case.text);
            assert!((logprob - case.logprob).abs() < 1e-5, "after {:?}: {logprob}, not {}", case.text, case.logprob);
        }
    }
}
