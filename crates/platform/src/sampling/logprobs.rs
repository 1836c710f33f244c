//! Log probabilities of the model's own distribution.

use super::filter::{Candidate, better_first};
use crate::{Logprob, TokenId, TokenLogprobs};

/// Log probabilities of `token` and of the `top` most probable tokens under `logits` `[vocab]`.
///
/// O(vocab) however many are asked for; equal logits stand in the order of their ids.
#[must_use]
pub fn token_logprobs(logits: &[f32], token: TokenId, top: usize) -> TokenLogprobs {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from((logit - max).exp())).sum();
    let log_sum = f64::from(max) + sum.ln();
    let logprob = |logit: f32| (f64::from(logit) - log_sum) as f32;

    let mut best: Vec<Candidate> = Vec::new();
    let top = top.min(logits.len());
    if top > 0 {
        best = (0..).zip(logits).map(|(token, &logit)| Candidate { logit, token }).collect();
        if top < best.len() {
            best.select_nth_unstable_by(top - 1, better_first);
            best.truncate(top);
        }
        best.sort_unstable_by(better_first);
    }
    let own = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
    TokenLogprobs {
        sampled: logprob(own),
        rank: logits.iter().filter(|&&logit| logit >= own).count(),
        top: best.into_iter().map(|c| Logprob { token: c.token, logprob: logprob(c.logit) }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalised_sorted_and_large_logits_do_not_overflow() {
        let logits = [1000.0, 1001.0, 999.0, 1001.0];
        let found = token_logprobs(&logits, 2, 3);
        assert_eq!(found.top.iter().map(|l| l.token).collect::<Vec<_>>(), [1, 3, 0]);
        let all = token_logprobs(&logits, 2, 9);
        let total: f32 = all.top.iter().map(|l| l.logprob.exp()).sum();
        assert!((total - 1.0).abs() < 1e-5, "{total}");
        assert_eq!(all.top[3], Logprob { token: 2, logprob: found.sampled });
        let ranks: Vec<usize> = (0..4).map(|token| token_logprobs(&logits, token, 0).rank).collect();
        assert_eq!(ranks, [3, 2, 4, 2], "equals share the worse rank");
    }
}
