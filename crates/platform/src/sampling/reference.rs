//! The sampler against a naive one in f64 that sorts everything.

use proptest::prelude::*;

use super::{Sampler, uniform};
use crate::{SampleAt, SamplingParams};

/// Tokens that may be drawn with their probabilities, best first; `None` if a cut is too near to call.
fn distribution(logits: &[f32], at: &SampleAt<'_>) -> Option<Vec<(u32, f64)>> {
    let params = at.params;
    let mut all: Vec<(u32, f64)> = (0..).zip(logits).map(|(i, &l)| (i, f64::from(l))).collect();
    for (token, logit) in &mut all {
        *logit += f64::from(params.logit_bias.get(token).copied().unwrap_or(0.0));
        let in_output = at.output.iter().filter(|&t| t == token).count() as f64;
        if in_output > 0.0 || at.prompt.contains(token) {
            let penalty = f64::from(params.repetition_penalty);
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        }
        *logit -= f64::from(params.frequency_penalty) * in_output;
        *logit -= if in_output > 0.0 { f64::from(params.presence_penalty) } else { 0.0 };
        *logit /= f64::from(params.temperature);
    }
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let near = |a: f64, b: f64| (a - b).abs() < 1e-5;
    let normalise = |all: &mut Vec<(u32, f64)>| {
        let sum: f64 = all.iter().map(|(_, p)| p).sum();
        all.iter_mut().for_each(|(_, p)| *p /= sum);
    };
    let max = all[0].1;
    all.iter_mut().for_each(|(_, logit)| *logit = (*logit - max).exp());
    let min_p = f64::from(params.min_p);
    if all.iter().any(|&(_, w)| min_p > 0.0 && near(w, min_p)) {
        return None;
    }
    all.retain(|&(_, w)| w >= min_p);
    if params.top_k > 0 && params.top_k < all.len() {
        // Equal in f32 but not here, or the other way round: which is kept is a matter of rounding.
        if all[params.top_k - 1].1 != all[params.top_k].1 && near(all[params.top_k - 1].1, all[params.top_k].1) {
            return None;
        }
        all.truncate(params.top_k);
    }
    normalise(&mut all);
    if params.top_p < 1.0 {
        let mut sum = 0.0;
        let mut keep = 0;
        for &(_, p) in &all {
            sum += p;
            keep += 1;
            if near(sum, f64::from(params.top_p)) {
                return None;
            }
            if sum >= f64::from(params.top_p) {
                break;
            }
        }
        all.truncate(keep);
        normalise(&mut all);
    }
    Some(all)
}

prop_compose! {
    fn params()(
        temperature in prop_oneof![Just(1.0f32), 0.2f32..2.0],
        top_k in prop_oneof![Just(0usize), 1usize..80],
        top_p in prop_oneof![Just(1.0f32), 0.0f32..1.0],
        min_p in prop_oneof![Just(0.0f32), 0.001f32..0.5],
        repetition_penalty in prop_oneof![Just(1.0f32), 0.5f32..2.0],
        presence_penalty in prop_oneof![Just(0.0f32), -2.0f32..2.0],
        frequency_penalty in prop_oneof![Just(0.0f32), -2.0f32..2.0],
        logit_bias in proptest::collection::btree_map(0u32..20, -5.0f32..5.0, 0..3),
        seed in any::<u64>(),
    ) -> SamplingParams {
        SamplingParams {
            temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty, logit_bias,
            seed: Some(seed), logprobs: None,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..Default::default() })]

    #[test]
    fn draws_what_the_naive_sampler_draws(
        // Multiples of 1/8, so that equal logits are common.
        logits in proptest::collection::vec((-40i32..40).prop_map(|l| l as f32 / 8.0), 20..700),
        params in params(),
        prompt in proptest::collection::vec(0u32..20, 0..6),
        output in proptest::collection::vec(0u32..20, 0..6),
    ) {
        let at = SampleAt { params: &params, prompt: &prompt, output: &output, processors: &[] };
        let Some(mut wanted) = distribution(&logits, &at) else { return Ok(()) };
        let found = Sampler::default().sample(&logits, &at).unwrap().token;
        // The walk goes by id where nothing was cut by rank.
        if params.top_k == 0 && params.top_p >= 1.0 {
            wanted.sort_by_key(|&(token, _)| token);
        }
        let u = uniform(params.seed.unwrap(), output.len() as u64);
        let mut below = 0.0;
        let mut admitted = false;
        for (token, p) in wanted {
            // Rounding may shift the boundaries between tokens a little.
            admitted |= token == found && u > below - 1e-4 && u < below + p + 1e-4;
            below += p;
        }
        prop_assert!(admitted, "token {found}, u {u}");
    }
}

#[test]
fn frequencies_follow_the_probabilities() {
    let logits = [0.0f32, 1.0, 2.0, -1.0];
    let mut counts = [0.0; 4];
    let draws = 20_000;
    for seed in 0..draws {
        let params = SamplingParams { temperature: 0.8, seed: Some(seed), ..Default::default() };
        let at = SampleAt { params: &params, prompt: &[], output: &[], processors: &[] };
        counts[Sampler::default().sample(&logits, &at).unwrap().token as usize] += 1.0;
    }
    let params = SamplingParams { temperature: 0.8, ..Default::default() };
    let at = SampleAt { params: &params, prompt: &[], output: &[], processors: &[] };
    for (token, p) in distribution(&logits, &at).unwrap() {
        let expected = p * draws as f64;
        let chi = (counts[token as usize] - expected).powi(2) / expected;
        assert!(chi < 25.0, "token {token}: {} drawn, {expected} expected", counts[token as usize]);
    }
}
