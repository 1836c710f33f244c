//! The host's sampler.

use super::{
    exponential::Weights,
    filter::{self, Candidate, Filter},
    logprobs::token_logprobs,
    random::uniform,
};
use crate::{Error, Result, SampleAt, TokenId, TokenLogprobs};

/// What one draw gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Draw {
    /// The token.
    pub token: TokenId,
    /// If [`SamplingParams::logprobs`](crate::SamplingParams::logprobs) asked for them.
    pub logprobs: Option<TokenLogprobs>,
}

/// Chooses tokens from logits in host memory. Holds nothing but buffers: any sampler gives the same answer.
///
/// ```
/// use vllm_platform::{SampleAt, SamplingParams, sampling::Sampler};
///
/// let greedy = SamplingParams::default();
/// let at = SampleAt { params: &greedy, prompt: &[1, 2], output: &[], processors: &[] };
/// let draw = Sampler::default().sample(&[0.1, 2.5, -1.0], &at).unwrap();
/// assert_eq!(draw.token, 1);
/// ```
#[derive(Debug, Default)]
pub struct Sampler {
    /// Logits as a request changed them.
    changed: Vec<f32>,
    kept: Vec<Candidate>,
    filter: Filter,
    weights: Weights,
    /// Occurrences by token id; all zero between calls.
    counts: Vec<u32>,
}

impl Sampler {
    /// Chooses the token that follows `at.output`, from `logits` `[vocab]`.
    ///
    /// They are copied only if the request changes them: greedy without penalties costs two passes over the vocabulary.
    ///
    /// # Errors
    /// [`Error::Step`] if the logits are empty or their largest is not finite (the model's numbers broke down).
    pub fn sample(&mut self, logits: &[f32], at: &SampleAt<'_>) -> Result<Draw> {
        if !changes_logits(at) {
            return self.choose(logits, logits, at);
        }
        let mut changed = std::mem::take(&mut self.changed);
        changed.clear();
        changed.extend_from_slice(logits);
        self.change(&mut changed, at);
        let draw = self.choose(&changed, logits, at);
        self.changed = changed;
        draw
    }

    /// What the request does to the logits before anything is chosen.
    fn change(&mut self, logits: &mut [f32], at: &SampleAt<'_>) {
        for processor in at.processors {
            processor.process(at.prompt, at.output, logits);
        }
        for (&token, &bias) in &at.params.logit_bias {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += bias;
            }
        }
        if at.params.has_penalties() {
            self.penalise(logits, at);
        }
    }

    /// Chooses from `logits`; log probabilities are those of the model's own, `raw`.
    fn choose(&mut self, logits: &[f32], raw: &[f32], at: &SampleAt<'_>) -> Result<Draw> {
        let params = at.params;
        let max = largest(logits);
        if !max.is_finite() {
            return Err(Error::Step(format!(
                "the logits of the token at position {} are not usable: the largest of {} is {max}",
                at.prompt.len() + at.output.len(),
                logits.len()
            )));
        }
        let token = if params.is_greedy() {
            logits.iter().position(|&logit| logit == max).unwrap_or_default() as TokenId
        } else {
            self.draw(logits, max, at)?
        };
        let logprobs = params.logprobs.map(|top| token_logprobs(raw, token, top));
        Ok(Draw { token, logprobs })
    }

    /// Repetition, then frequency and presence penalties.
    fn penalise(&mut self, logits: &mut [f32], at: &SampleAt<'_>) {
        let params = at.params;
        self.counts.resize(logits.len(), 0);
        let repetition = params.repetition_penalty;
        if repetition != 1.0 {
            for &token in at.prompt.iter().chain(at.output) {
                let token = token as usize;
                // Once per token, however often it occurs.
                if self.counts.get(token) == Some(&0) {
                    self.counts[token] = 1;
                    let logit = &mut logits[token];
                    *logit = if *logit > 0.0 { *logit / repetition } else { *logit * repetition };
                }
            }
            self.clear_counts(at.prompt.iter().chain(at.output));
        }
        if params.frequency_penalty != 0.0 || params.presence_penalty != 0.0 {
            for &token in at.output {
                if let Some(count) = self.counts.get_mut(token as usize) {
                    *count += 1;
                }
            }
            for &token in at.output {
                let count = self.counts.get(token as usize).copied().unwrap_or_default();
                if count > 0 {
                    logits[token as usize] -= params.frequency_penalty * count as f32 + params.presence_penalty;
                    self.counts[token as usize] = 0;
                }
            }
        }
    }

    fn clear_counts<'a>(&mut self, tokens: impl Iterator<Item = &'a TokenId>) {
        for &token in tokens {
            if let Some(count) = self.counts.get_mut(token as usize) {
                *count = 0;
            }
        }
    }

    /// One draw at temperature above 0. Leaves `logits` as they are.
    fn draw(&mut self, logits: &[f32], max: f32, at: &SampleAt<'_>) -> Result<TokenId> {
        let params = at.params;
        let u = uniform(params.seed.unwrap_or_default(), at.output.len() as u64);
        let nothing = || Error::Step("no token has a usable probability: the logits hold NaN".into());
        if !filter::is_needed(params) {
            self.weights.fill(logits, max, params.temperature);
            let place = self.weights.place(u * self.weights.total());
            return place.map(|token| token as TokenId).ok_or_else(nothing);
        }
        self.filter.run(logits, max, params, &mut self.weights, &mut self.kept);
        let weight = |logit: f32| f64::from(filter::weight(logit, max, params.temperature));
        // The logits of the kept become their weights, so that no exponential is taken twice.
        let mut total = 0.0;
        for candidate in &mut self.kept {
            let weight = weight(candidate.logit);
            candidate.logit = weight as f32;
            total += weight;
        }
        let mut left = u * total;
        for candidate in &self.kept {
            left -= f64::from(candidate.logit);
            if left < 0.0 {
                return Ok(candidate.token);
            }
        }
        // Rounding may leave a little over: the last token that has any weight takes it.
        let last = self.kept.iter().rev().find(|candidate| candidate.logit > 0.0);
        last.map(|candidate| candidate.token).ok_or_else(nothing)
    }
}

fn changes_logits(at: &SampleAt<'_>) -> bool {
    !at.processors.is_empty() || !at.params.logit_bias.is_empty() || at.params.has_penalties()
}

/// The largest of `logits`, NaN counting as smallest; -inf if there is none.
pub(super) fn largest(logits: &[f32]) -> f32 {
    // Sixteen independent maxima: the compiler turns them into vector instructions.
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = logits.as_chunks::<16>();
    for chunk in chunks {
        for (lane, &logit) in lanes.iter_mut().zip(chunk) {
            *lane = if logit > *lane { logit } else { *lane };
        }
    }
    rest.iter().chain(&lanes).copied().fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SamplingParams;

    fn sample(logits: &[f32], params: &SamplingParams, prompt: &[u32], output: &[u32]) -> u32 {
        let at = SampleAt { params, prompt, output, processors: &[] };
        Sampler::default().sample(logits, &at).unwrap().token
    }

    #[test]
    fn greedy_cases() {
        let base = SamplingParams::default;
        /// Name, logits, parameters, prompt, output, token wanted.
        type Case<'a> = (&'a str, Vec<f32>, SamplingParams, &'a [u32], &'a [u32], u32);
        let cases: [Case<'_>; 9] = [
            ("plain", vec![0.0, 3.0, 1.0], base(), &[], &[], 1),
            ("first of equals", vec![0.0, 3.0, 3.0], base(), &[], &[], 1),
            ("masked by the model", vec![f32::NEG_INFINITY, -3.0, f32::NEG_INFINITY], base(), &[], &[], 1),
            ("bias", vec![0.0, 3.0, 1.0], SamplingParams { logit_bias: [(2, 2.5)].into(), ..base() }, &[], &[], 2),
            (
                "repetition counts the prompt, once",
                vec![0.0, 3.0, 2.0],
                SamplingParams { repetition_penalty: 1.4, ..base() },
                &[1, 1, 1],
                &[],
                1,
            ),
            (
                "repetition makes a negative logit more so",
                vec![-1.0, -1.1, -9.0],
                SamplingParams { repetition_penalty: 1.2, ..base() },
                &[],
                &[0],
                1,
            ),
            (
                "presence ignores the prompt",
                vec![0.0, 3.0, 2.0],
                SamplingParams { presence_penalty: 2.0, ..base() },
                &[1],
                &[],
                1,
            ),
            (
                "presence counts once",
                vec![0.0, 3.0, 2.0],
                SamplingParams { presence_penalty: 0.9, ..base() },
                &[],
                &[1, 1, 1],
                1,
            ),
            (
                "frequency counts each",
                vec![0.0, 3.0, 2.0],
                SamplingParams { frequency_penalty: 0.4, ..base() },
                &[],
                &[1, 1, 1],
                2,
            ),
        ];
        for (name, logits, params, prompt, output, wanted) in cases {
            assert_eq!(sample(&logits, &params, prompt, output), wanted, "{name}");
        }
    }

    #[test]
    fn a_reused_sampler_forgets() {
        let params = SamplingParams {
            repetition_penalty: 1.5,
            frequency_penalty: 1.0,
            presence_penalty: 0.5,
            ..Default::default()
        };
        let mut sampler = Sampler::default();
        for prompt in [vec![], vec![0], vec![1, 2, 99], vec![]] {
            for output in [vec![], vec![2, 2], vec![1, 77]] {
                let at = SampleAt { params: &params, prompt: &prompt, output: &output, processors: &[] };
                let logits = [1.0, 1.2, 1.1];
                let fresh = Sampler::default().sample(&logits, &at).unwrap();
                assert_eq!(sampler.sample(&logits, &at).unwrap(), fresh, "prompt {prompt:?}, output {output:?}");
            }
        }
    }

    #[test]
    fn broken_logits_are_an_error() {
        let hot = SamplingParams { temperature: 1.0, ..Default::default() };
        let greedy = SamplingParams::default();
        let cases: [(&str, &[f32], &SamplingParams); 5] = [
            ("empty", &[], &greedy),
            ("all NaN", &[f32::NAN, f32::NAN], &greedy),
            ("infinite", &[f32::INFINITY, 0.0], &greedy),
            ("all masked", &[f32::NEG_INFINITY; 3], &hot),
            ("infinite, drawn", &[0.0, f32::INFINITY], &hot),
        ];
        for (name, logits, params) in cases {
            let at = SampleAt { params, prompt: &[5], output: &[], processors: &[] };
            let result = Sampler::default().sample(logits, &at);
            assert!(matches!(result, Err(Error::Step(_))), "{name}: {result:?}");
        }
    }

    #[test]
    fn logprobs_are_those_before_penalties_and_temperature() {
        let params = SamplingParams {
            temperature: 0.5,
            top_k: 1,
            logit_bias: [(0, 50.0)].into(),
            logprobs: Some(2),
            ..Default::default()
        };
        let at = SampleAt { params: &params, prompt: &[], output: &[], processors: &[] };
        let draw = Sampler::default().sample(&[0.0, 1.0], &at).unwrap();
        let logprobs = draw.logprobs.unwrap();
        assert_eq!(draw.token, 0);
        assert!((logprobs.sampled - (1.0f32 / (1.0 + 1.0f32.exp())).ln()).abs() < 1e-6);
        assert_eq!(logprobs.top[0].token, 1);
    }
}
