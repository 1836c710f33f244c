//! min-p, top-k and top-p by partial selection: the vocabulary is never sorted as a whole.

use std::cmp::Ordering;

use crate::{SamplingParams, TokenId};

/// A token that may still be drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub logit: f32,
    pub token: TokenId,
}

/// Larger logits first, equal ones by id: a total order, so that every selection is reproducible.
pub(super) fn better_first(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
}

/// Whether `params` removes any candidate.
pub(super) fn is_needed(params: &SamplingParams) -> bool {
    params.top_k > 0 || params.top_p < 1.0 || params.min_p > 0.0
}

/// Leaves in `kept` the tokens that min-p, top-k and top-p admit; `max` is the largest of `logits`.
///
/// The order of `kept` is by [`better_first`] if top-k or top-p were asked for, else by id.
pub(super) fn filter(logits: &[f32], max: f32, params: &SamplingParams, kept: &mut Vec<Candidate>) {
    // p >= min_p * p_max in terms of logits: no exponential is needed.
    let floor = max + params.temperature * params.min_p.ln();
    kept.clear();
    let candidates = (0..).zip(logits).map(|(token, &logit)| Candidate { logit, token });
    kept.extend(candidates.filter(|c| c.logit >= floor && c.logit > f32::NEG_INFINITY));

    if params.top_k > 0 && params.top_k < kept.len() {
        kept.select_nth_unstable_by(params.top_k - 1, better_first);
        kept.truncate(params.top_k);
    }
    if params.top_p < 1.0 {
        top_p(kept, max, params);
    } else if params.top_k > 0 {
        kept.sort_unstable_by(better_first);
    }
}

/// exp((logit - max) / temperature): a token's probability up to the common factor.
pub(super) fn weight(logit: f32, max: f32, temperature: f32) -> f32 {
    ((logit - max) / temperature).exp()
}

/// Keeps the smallest best-first prefix whose weights reach `top_p` of all, but at least one token.
fn top_p(kept: &mut Vec<Candidate>, max: f32, params: &SamplingParams) {
    let weight = |c: &Candidate| f64::from(weight(c.logit, max, params.temperature));
    let wanted = f64::from(params.top_p) * kept.iter().map(weight).sum::<f64>();
    let (mut done, mut sum, mut chunk) = (0, 0.0, 64);
    while done < kept.len() {
        // The next `chunk` best ones, sorted; what stands behind them is worse and unsorted.
        let rest = &mut kept[done..];
        if chunk < rest.len() {
            rest.select_nth_unstable_by(chunk - 1, better_first);
        }
        let best = chunk.min(rest.len());
        rest[..best].sort_unstable_by(better_first);
        for (i, candidate) in rest[..best].iter().enumerate() {
            sum += weight(candidate);
            if sum >= wanted {
                kept.truncate(done + i + 1);
                return;
            }
        }
        done += best;
        // Flat distributions need many: selection stays linear if the chunks grow.
        chunk *= 8;
    }
}
