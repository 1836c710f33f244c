//! Changes to logits beyond what parameters can say.

use std::{collections::HashSet, fmt};

use crate::TokenId;

/// Changes the logits of one request's next token: grammars, forced or forbidden tokens.
///
/// Called on the engine's thread once for each token, so it must be quick: whatever takes long is to be worked out
/// elsewhere beforehand. A preempted request is computed again, so the change may depend on nothing but the arguments.
pub trait LogitsProcessor: fmt::Debug + Send + Sync {
    /// `logits` `[vocab]` of the token that follows `output`. Negative infinity forbids a token.
    fn process(&self, prompt: &[TokenId], output: &[TokenId], logits: &mut [f32]);

    /// The last token of `output` was taken: the time to start on what [`process`](Self::process) will be asked next,
    /// on threads of one's own. Called on the engine's thread, so it must return at once. Nothing may depend on it
    /// having been called.
    fn sampled(&self, prompt: &[TokenId], output: &[TokenId]) {
        let _ = (prompt, output);
    }
}

/// Allows no token but these.
#[derive(Debug, Clone)]
pub struct AllowedTokens(HashSet<TokenId>);

impl AllowedTokens {
    /// The tokens to allow; none at all would leave nothing to sample.
    pub fn new(tokens: impl IntoIterator<Item = TokenId>) -> Self {
        Self(tokens.into_iter().collect())
    }
}

impl LogitsProcessor for AllowedTokens {
    fn process(&self, _prompt: &[TokenId], _output: &[TokenId], logits: &mut [f32]) {
        for (token, logit) in logits.iter_mut().enumerate() {
            if !self.0.contains(&(token as TokenId)) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}

/// Forbids answers to have any of these sequences of tokens: the last of one, wherever the answer ends with the others.
#[derive(Debug, Clone)]
pub struct BadWords(Vec<Vec<TokenId>>);

impl BadWords {
    /// The sequences; empty ones forbid nothing.
    #[must_use]
    pub fn new(sequences: Vec<Vec<TokenId>>) -> Self {
        Self(sequences)
    }
}

impl LogitsProcessor for BadWords {
    fn process(&self, _prompt: &[TokenId], output: &[TokenId], logits: &mut [f32]) {
        for sequence in &self.0 {
            let Some((&last, before)) = sequence.split_last() else { continue };
            if output.ends_with(before)
                && let Some(logit) = logits.get_mut(last as usize)
            {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}

/// Forbids the tokens that would end an answer before it has `tokens` tokens, unless only they are left: a grammar may
/// be at its end before. So it belongs behind all others.
#[derive(Debug, Clone)]
pub struct MinTokens {
    /// Tokens the answer has at least.
    pub tokens: usize,
    /// Tokens that end it.
    pub stop: Vec<TokenId>,
}

impl LogitsProcessor for MinTokens {
    fn process(&self, _prompt: &[TokenId], output: &[TokenId], logits: &mut [f32]) {
        if output.len() < self.tokens {
            let stops = |token: usize| self.stop.iter().any(|&stop| stop as usize == token);
            let mut left = logits.iter().enumerate().filter(|&(_, &logit)| logit > f32::NEG_INFINITY);
            if left.all(|(token, _)| stops(token)) {
                return;
            }
            for &token in &self.stop {
                if let Some(logit) = logits.get_mut(token as usize) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::{
        SampleAt, SamplingParams,
        sampling::{AllowedTokens, BadWords, LogitsProcessor, MinTokens, Sampler},
    };

    fn greedy(processor: impl LogitsProcessor + 'static, output: &[u32]) -> u32 {
        let processors: [Arc<dyn LogitsProcessor>; 1] = [Arc::new(processor)];
        let params = SamplingParams::default();
        let at = SampleAt { params: &params, prompt: &[1], output, processors: &processors };
        Sampler::default().sample(&[0.1, 2.5, -1.0, 2.0], &at).unwrap().token
    }

    #[test]
    fn only_allowed_tokens_are_sampled() {
        assert_eq!(greedy(AllowedTokens::new([0, 2]), &[]), 0);
        assert_eq!(greedy(AllowedTokens::new([3, 900]), &[]), 3);
    }

    #[test]
    fn bad_words_are_not_finished() {
        let words = BadWords::new(vec![vec![2, 1], vec![0, 2, 3], vec![]]);
        let cases: [(&[u32], u32); 5] = [(&[], 1), (&[2], 3), (&[0, 2], 0), (&[2, 0], 1), (&[0, 2, 0], 1)];
        for (output, wanted) in cases {
            assert_eq!(greedy(words.clone(), output), wanted, "{output:?}");
        }
        assert_eq!(greedy(BadWords::new(vec![vec![1], vec![900]]), &[]), 3, "a word of one token");
    }

    #[test]
    fn an_answer_does_not_end_too_early() {
        let processor = MinTokens { tokens: 2, stop: vec![1, 900] };
        assert_eq!(greedy(processor.clone(), &[]), 3);
        assert_eq!(greedy(processor.clone(), &[3]), 3);
        assert_eq!(greedy(processor, &[3, 3]), 1);
    }

    #[test]
    fn an_answer_that_can_only_end_ends() {
        let processors: [Arc<dyn LogitsProcessor>; 2] =
            [Arc::new(AllowedTokens::new([1])), Arc::new(MinTokens { tokens: 2, stop: vec![1] })];
        let params = SamplingParams::default();
        let at = SampleAt { params: &params, prompt: &[1], output: &[], processors: &processors };
        assert_eq!(Sampler::default().sample(&[0.1, 2.5, -1.0, 2.0], &at).unwrap().token, 1);
    }
}
