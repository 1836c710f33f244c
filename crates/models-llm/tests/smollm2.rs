//! Real weights: SmolLM2-135M-Instruct out of its GGUF says what mlx-lm says on the same numbers.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use support::{Run, fixture};
use vllm_platform::{KvDtype, KvStoreChoice, LoadOptions};

const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// Where `cargo xtask models fetch` puts it.
fn weights() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/models/smollm2").join(FILE);
    assert!(path.exists(), "{} is missing: run `cargo xtask models fetch smollm2`", path.display());
    path
}

struct Case {
    name: String,
    prompt: Vec<u32>,
    tokens: Vec<u32>,
    /// The reference's best logit minus its second best, for each token.
    gaps: Vec<f64>,
}

fn cases() -> Vec<Case> {
    let json: Value = serde_json::from_slice(&fs::read(fixture("smollm2.json")).unwrap()).unwrap();
    let ids = |value: &Value| -> Vec<u32> {
        value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
    };
    let cases: Vec<_> = json["cases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|case| Case {
            name: case["name"].as_str().unwrap().into(),
            prompt: ids(&case["prompt"]),
            tokens: ids(&case["tokens"]),
            gaps: case["gaps"].as_array().unwrap().iter().map(|gap| gap.as_f64().unwrap()).collect(),
        })
        .collect();
    assert!(cases.len() >= 6 && cases.iter().all(|case| case.tokens.len() == 64));
    cases
}

fn assert_same(case: &Case, found: &[u32]) {
    if let Some(at) = (0..case.tokens.len()).find(|&i| found.get(i) != Some(&case.tokens[i])) {
        panic!(
            "{}: token {at} is {:?}, mlx-lm says {}; its best two logits are {} apart there",
            case.name,
            found.get(at),
            case.tokens[at],
            case.gaps[at]
        );
    }
}

#[test]
fn one_at_a_time() {
    let mut run = Run::new(&weights(), 1, 512).tokens_only();
    for case in cases() {
        run.restart(0);
        let found: Vec<_> = run.greedy(0, &case.prompt, case.tokens.len()).iter().map(|s| s.token).collect();
        assert_same(&case, &found);
    }
}

/// Keys and values of 16 bits change no token; bytes change some of other cases than the first
/// (`docs/decisions/0018-kv-cache-types.md`).
#[test]
fn in_every_kv_dtype() {
    let cases = cases();
    for (dtype, cases) in [(KvDtype::F16, &cases[..]), (KvDtype::Bf16, &cases[..]), (KvDtype::Int8, &cases[..1])] {
        let options = LoadOptions { kv_cache_dtype: Some(dtype), ..LoadOptions::default() };
        let mut run = Run::of(options, &weights(), 1, 512).tokens_only();
        for case in cases {
            run.restart(0);
            let found: Vec<_> = run.greedy(0, &case.prompt, case.tokens.len()).iter().map(|s| s.token).collect();
            assert_same(case, &found);
        }
    }
}

/// MLX's attention on the CPU is a fallback: one case takes as long as the others of this file together.
#[test]
fn in_contiguous_extents() {
    let case = &cases()[0];
    let mut run = Run::with(KvStoreChoice::Contiguous, &weights(), 1, 512).tokens_only();
    let found: Vec<_> = run.greedy(0, &case.prompt, case.tokens.len()).iter().map(|s| s.token).collect();
    assert_same(case, &found);
}

#[test]
fn all_in_one_batch() {
    let cases = cases();
    let mut run = Run::new(&weights(), cases.len(), 512).tokens_only();
    let prompts: Vec<_> = cases.iter().enumerate().map(|(i, case)| (i, &case.prompt[..])).collect();
    let mut found: Vec<Vec<u32>> = run.step(&prompts).iter().map(|s| vec![s.token]).collect();
    for _ in 1..64 {
        let last: Vec<_> = found.iter().map(|tokens| [tokens[tokens.len() - 1]]).collect();
        let plan: Vec<_> = last.iter().enumerate().map(|(i, token)| (i, &token[..])).collect();
        for (tokens, sampled) in found.iter_mut().zip(run.step(&plan)) {
            tokens.push(sampled.token);
        }
    }
    for (case, found) in cases.iter().zip(&found) {
        assert_same(case, found);
    }
}
