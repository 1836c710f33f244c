//! What a request may ask of the sampler.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::TokenId;

/// The most alternatives that [`SamplingParams::logprobs`] may ask for.
pub const MAX_LOGPROBS: usize = 20;

/// How to choose each token of an answer. The default is greedy and changes nothing.
///
/// ```
/// use vllm_platform::SamplingParams;
///
/// let params = SamplingParams { temperature: 0.7, top_p: 0.9, seed: Some(7), ..Default::default() };
/// assert!(params.validate(32_000).is_ok());
///
/// let wrong = SamplingParams { top_p: 1.5, ..Default::default() };
/// assert_eq!(wrong.validate(32_000).unwrap_err().to_string(), "top_p is 1.5: it must be from 0 to 1");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SamplingParams {
    /// Divides the logits; 0 takes the most probable token. 0 to 2.
    pub temperature: f32,
    /// Keeps the `top_k` most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the smallest set of most probable tokens whose probabilities sum to at least this; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this fraction as probable as the most probable one; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens in the prompt or the answer; 1 changes nothing
    /// (Keskar et al., 2019, arXiv:1909.05858).
    pub repetition_penalty: f32,
    /// Taken from the logit of every token that is in the answer. -2 to 2.
    pub presence_penalty: f32,
    /// Taken from a token's logit for each time that it is in the answer. -2 to 2.
    pub frequency_penalty: f32,
    /// Added to single tokens' logits. -100 to 100.
    pub logit_bias: BTreeMap<TokenId, f32>,
    /// Makes the answer reproducible. The scheduler gives a random one to requests that have none.
    pub seed: Option<u64>,
    /// Report the sampled token's log probability and those of this many most probable tokens.
    pub logprobs: Option<usize>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: BTreeMap::new(),
            seed: None,
            logprobs: None,
        }
    }
}

/// A parameter outside its range. Shows as e.g. `top_p is 1.5: it must be from 0 to 1`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}: it must be {allowed}")]
pub struct InvalidParam {
    /// Name of the field.
    pub field: &'static str,
    /// The value given.
    pub value: String,
    /// What would be right.
    pub allowed: String,
}

impl SamplingParams {
    /// Checks every field against its range and against a vocabulary of `vocab` tokens.
    ///
    /// # Errors
    /// The first field that is out of its range; NaN and infinities always are.
    pub fn validate(&self, vocab: usize) -> Result<(), InvalidParam> {
        let closed = [
            ("temperature", self.temperature, 0.0, 2.0),
            ("top_p", self.top_p, 0.0, 1.0),
            ("min_p", self.min_p, 0.0, 1.0),
            ("presence_penalty", self.presence_penalty, -2.0, 2.0),
            ("frequency_penalty", self.frequency_penalty, -2.0, 2.0),
        ];
        for (field, value, low, high) in closed {
            if !(low..=high).contains(&value) {
                return Err(InvalidParam { field, value: value.to_string(), allowed: format!("from {low} to {high}") });
            }
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty <= 10.0) {
            return Err(InvalidParam {
                field: "repetition_penalty",
                value: self.repetition_penalty.to_string(),
                allowed: "above 0 and at most 10".into(),
            });
        }
        for (&token, &bias) in &self.logit_bias {
            let error = |value, allowed| InvalidParam { field: "logit_bias", value, allowed };
            if token as usize >= vocab {
                let value = format!("for token {token}");
                return Err(error(value, format!("for tokens below {vocab}, the size of the vocabulary")));
            }
            if !(-100.0..=100.0).contains(&bias) {
                return Err(error(format!("{bias} for token {token}"), "from -100 to 100".into()));
            }
        }
        if self.logprobs.is_some_and(|n| n > MAX_LOGPROBS) {
            return Err(InvalidParam {
                field: "logprobs",
                value: self.logprobs.unwrap_or_default().to_string(),
                allowed: format!("from 0 to {MAX_LOGPROBS}"),
            });
        }
        Ok(())
    }

    /// Whether the most probable token is always taken.
    #[must_use]
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// Whether logits must be changed by what stands in the prompt or the answer.
    pub(super) fn has_penalties(&self) -> bool {
        self.repetition_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let good = SamplingParams::default;
        type Change = fn(&mut SamplingParams);
        let cases: [(&str, Change, Option<&str>); 16] = [
            ("default", |_| {}, None),
            ("temperature at its top", |p| p.temperature = 2.0, None),
            ("top_p 0 is the one best", |p| p.top_p = 0.0, None),
            ("top_k above the vocabulary", |p| p.top_k = 1 << 40, None),
            ("temperature", |p| p.temperature = -0.1, Some("temperature is -0.1: it must be from 0 to 2")),
            ("hot", |p| p.temperature = 2.5, Some("temperature is 2.5: it must be from 0 to 2")),
            ("nan", |p| p.temperature = f32::NAN, Some("temperature is NaN: it must be from 0 to 2")),
            ("inf", |p| p.min_p = f32::INFINITY, Some("min_p is inf: it must be from 0 to 1")),
            ("top_p", |p| p.top_p = 1.1, Some("top_p is 1.1: it must be from 0 to 1")),
            ("presence", |p| p.presence_penalty = 3.0, Some("presence_penalty is 3: it must be from -2 to 2")),
            ("frequency", |p| p.frequency_penalty = -3.0, Some("frequency_penalty is -3: it must be from -2 to 2")),
            (
                "repetition",
                |p| p.repetition_penalty = 0.0,
                Some("repetition_penalty is 0: it must be above 0 and at most 10"),
            ),
            (
                "repetition nan",
                |p| p.repetition_penalty = f32::NAN,
                Some("repetition_penalty is NaN: it must be above 0 and at most 10"),
            ),
            (
                "bias token",
                |p| p.logit_bias = [(10, 1.0)].into(),
                Some("logit_bias is for token 10: it must be for tokens below 10, the size of the vocabulary"),
            ),
            (
                "bias value",
                |p| p.logit_bias = [(9, -101.0)].into(),
                Some("logit_bias is -101 for token 9: it must be from -100 to 100"),
            ),
            ("logprobs", |p| p.logprobs = Some(21), Some("logprobs is 21: it must be from 0 to 20")),
        ];
        for (name, change, wanted) in cases {
            let mut params = good();
            change(&mut params);
            let found = params.validate(10).err().map(|error| error.to_string());
            assert_eq!(found.as_deref(), wanted, "{name}");
        }
    }
}
