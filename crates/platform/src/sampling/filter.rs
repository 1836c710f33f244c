//! min-p, top-k and top-p by partial selection: the vocabulary is never sorted as a whole, and most of it is looked at once.

use std::cmp::Ordering;

use super::exponential::Weights;
use crate::{SamplingParams, TokenId};

/// Logits whose largest is kept: those that cannot matter are passed over by the chunk.
const CHUNK: usize = 64;
/// How many of the best top-p tries first.
const FIRST: usize = 64;

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

/// exp((logit − max) / temperature): a token's probability up to the common factor.
pub(super) fn weight(logit: f32, max: f32, temperature: f32) -> f32 {
    ((logit - max) / temperature).exp()
}

/// What filtering needs for a while.
#[derive(Debug, Default)]
pub(super) struct Filter {
    /// The largest logit of each [`CHUNK`].
    maxima: Vec<f32>,
    /// Room to select among them.
    selected: Vec<f32>,
}

impl Filter {
    /// Leaves in `kept` the tokens that min-p, top-k and top-p admit; `max` is the largest of `logits`.
    ///
    /// The order of `kept` is by [`better_first`] if top-k or top-p were asked for, else by id.
    pub fn run(
        &mut self,
        logits: &[f32],
        max: f32,
        params: &SamplingParams,
        weights: &mut Weights,
        kept: &mut Vec<Candidate>,
    ) {
        self.maxima.clear();
        self.maxima.extend(logits.chunks(CHUNK).map(super::sampler::largest));
        // p >= min_p * p_max in terms of logits: no exponential is needed.
        let floor = max + params.temperature * params.min_p.ln();
        let weight = |c: &Candidate| f64::from(weight(c.logit, max, params.temperature));
        if params.top_k > 0 {
            self.best(logits, floor, params.top_k, kept);
            if params.top_p < 1.0 {
                let total: f64 = kept.iter().map(weight).sum();
                cut(kept, f64::from(params.top_p) * total, weight);
            }
        } else if params.top_p < 1.0 {
            let total = if params.min_p > 0.0 {
                self.at_least(logits, floor, kept);
                kept.iter().map(weight).sum()
            } else {
                weights.fill(logits, max, params.temperature);
                weights.total()
            };
            let (wanted, mut count) = (f64::from(params.top_p) * total, FIRST);
            loop {
                self.best(logits, floor, count, kept);
                if cut(kept, wanted, weight) || kept.len() < count {
                    break;
                }
                // Flat distributions need many: selection stays linear if the steps grow.
                count *= 8;
            }
        } else {
            self.at_least(logits, floor, kept);
        }
    }

    /// The `count` best of those not below `floor`, the best first.
    fn best(&mut self, logits: &[f32], floor: f32, count: usize, kept: &mut Vec<Candidate>) {
        let mut floor = floor;
        if count < self.maxima.len() {
            // So many chunks have one that is as large as this: whatever is smaller is not among the best.
            self.selected.clone_from(&self.maxima);
            let (_, bound, _) = self.selected.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a));
            floor = floor.max(*bound);
        }
        self.at_least(logits, floor, kept);
        if count < kept.len() {
            kept.select_nth_unstable_by(count - 1, better_first);
            kept.truncate(count);
        }
        kept.sort_unstable_by(better_first);
    }

    /// Those not below `floor` that may be drawn at all, by id.
    fn at_least(&self, logits: &[f32], floor: f32, kept: &mut Vec<Candidate>) {
        kept.clear();
        for (chunk, (logits, &max)) in logits.chunks(CHUNK).zip(&self.maxima).enumerate() {
            if max >= floor {
                let candidates = ((chunk * CHUNK) as TokenId..).zip(logits);
                let candidates = candidates.map(|(token, &logit)| Candidate { logit, token });
                kept.extend(candidates.filter(|c| c.logit >= floor && c.logit > f32::NEG_INFINITY));
            }
        }
    }
}

/// Keeps the smallest prefix whose weights reach `wanted`, but at least one token; false if all together don't.
fn cut(kept: &mut Vec<Candidate>, wanted: f64, weight: impl Fn(&Candidate) -> f64) -> bool {
    let mut sum = 0.0;
    for i in 0..kept.len() {
        sum += weight(&kept[i]);
        if sum >= wanted {
            kept.truncate(i + 1);
            return true;
        }
    }
    false
}
