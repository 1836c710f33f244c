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

/// Numbers that are looked at together: as wide as vector units are, some times over.
const LANES: usize = 16;

/// The greatest of `numbers`; −∞ of none.
pub(super) fn greatest(numbers: &[f32]) -> f32 {
    let (chunks, rest) = numbers.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (lane, &number) in lanes.iter_mut().zip(chunk) {
            *lane = if number > *lane { number } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// The logarithm of the sum of the exponentials of `numbers`; −∞ if all are.
pub(super) fn log_sum_exp(numbers: &[f32]) -> f32 {
    let greatest = greatest(numbers);
    if greatest == f32::NEG_INFINITY {
        return greatest;
    }
    let (chunks, rest) = numbers.as_chunks::<LANES>();
    let mut lanes = [0.0f32; LANES];
    for chunk in chunks {
        for (lane, &number) in lanes.iter_mut().zip(chunk) {
            *lane += exp(number - greatest);
        }
    }
    let sum: f64 = lanes.into_iter().chain(rest.iter().map(|&number| exp(number - greatest))).map(f64::from).sum();
    greatest + sum.ln() as f32
}

/// The exponential of a number that is not positive, within a millionth of itself and without a branch, so that several are computed
/// at once: a vocabulary has 50,000 of them at every step. Below −87 it is 10⁻³⁸.
fn exp(x: f32) -> f32 {
    /// Added to a small number, it leaves it rounded to a whole one in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let x = if x > -87.0 { x } else { -87.0 };
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let whole = rounded - ROUND;
    // ln 2 in two parts: the first has so few digits that its products are exact.
    let rest = (x - whole * 0.693_359_4) + whole * 2.121_944_4e-4;
    // exp on ±ln 2 / 2, by its series.
    let series = 1.0
        + rest * (1.0 + rest * (0.5 + rest * (1.0 / 6.0 + rest * (1.0 / 24.0 + rest * (1.0 / 120.0 + rest / 720.0)))));
    let power = f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23));
    series * power
}

/// Index of the greatest of `numbers`, the first of several.
pub(super) fn arg_max(numbers: &[f32]) -> usize {
    let greatest = greatest(numbers);
    numbers.iter().position(|&number| number == greatest).unwrap_or(0)
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
    fn the_exponential_is_one() {
        for step in 0..=8_700_000 {
            let x = -step as f32 / 100_000.0;
            let (found, wanted) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found / wanted - 1.0).abs() < 1e-6, "exp({x}): {found}, not {wanted}");
        }
        assert_eq!((exp(0.0), exp(f32::NEG_INFINITY) < 1e-37), (1.0, true));
    }

    #[test]
    fn sums_and_maxima_are_those_of_all_numbers() {
        for count in [0, 1, 15, 16, 17, 100] {
            let numbers: Vec<f32> = noise(9, count).map(|number| (number * 20.0) as f32).collect();
            let wanted = numbers.iter().map(|&number| f64::from(number).exp()).sum::<f64>().ln() as f32;
            let found = log_sum_exp(&numbers);
            assert!(found == wanted || (found - wanted).abs() < 1e-5, "{count}: {found}, not {wanted}");
            let best = (0..count).max_by(|&a, &b| numbers[a].total_cmp(&numbers[b])).unwrap_or(0);
            assert_eq!(arg_max(&numbers), best);
        }
        assert_eq!(log_sum_exp(&[f32::NEG_INFINITY; 20]), f32::NEG_INFINITY);
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
