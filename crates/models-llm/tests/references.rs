//! Every family against the reference implementations: logits and greedy tokens on tiny checkpoints.

mod support;

use vllm_platform::{KvDtype, LoadOptions};

use support::{Reference, Run, argmax, fixture, fixtures, relative_error};

/// DESIGN §7: of the largest |logit|, in f32.
const TOLERANCE: f64 = 1e-4;

fn name(fixture: &std::path::Path) -> String {
    fixture.file_name().unwrap().to_string_lossy().into_owned()
}

/// The reference's greedy answer, with logits as close to its own as `tolerance`.
fn assert_answers(load: impl Fn(&std::path::Path, usize, usize) -> Run, tolerance: f64) {
    for fixture in fixtures() {
        let (name, reference) = (name(&fixture), Reference::load(&fixture));
        let mut run = load(&fixture, 1, 64);
        let answer = run.greedy(0, reference.prompt(), reference.answer().len());
        let tokens: Vec<_> = answer.iter().map(|s| s.token).collect();
        assert_eq!(tokens, reference.answer(), "{name}");
        for (i, sampled) in answer.iter().enumerate() {
            let at = reference.prompt - 1 + i;
            let error = relative_error(sampled, reference.at(at).unwrap());
            assert!(error < tolerance, "{name}, after token {at}: {error:.1e}");
        }
    }
}

#[test]
fn whole_prefill_and_decode() {
    assert_answers(Run::exact, TOLERANCE);
}

/// Activations are rounded to 16 bits before they meet quantized weights (`docs/decisions/0011-activations-as-two-bytes.md`).
/// The random weights of fixtures cancel none of that.
#[test]
fn rounded_activations_stay_close_and_change_no_token() {
    let options = || LoadOptions { kv_cache_dtype: Some(KvDtype::F32), ..LoadOptions::default() };
    assert_answers(|path, sequences, len| Run::of(options(), path, sequences, len), 1e-3);
}

/// As the CPU is used by default: keys and values in f16 too (`docs/decisions/0018-kv-cache-types.md`).
#[test]
fn rounded_keys_and_values_stay_close_and_change_no_token() {
    assert_answers(Run::new, 1e-2);
}

/// Chunks end where the reference has logits: some of one token, some across a block or a window.
#[test]
fn chunked_prefill() {
    for fixture in fixtures() {
        let (name, reference) = (name(&fixture), Reference::load(&fixture));
        let mut run = Run::exact(&fixture, 1, 64);
        let mut start = 0;
        for (at, logits) in &reference.logits {
            let sampled = run.step(&[(0, &reference.tokens[start..=*at])]);
            start = at + 1;
            let error = relative_error(&sampled[0], logits);
            assert!(error < TOLERANCE, "{name}, after token {at}: {error:.1e}");
            assert_eq!(sampled[0].token, argmax(logits), "{name}, after token {at}");
        }
    }
}

/// Three sequences at different places in one batch, prefill chunks beside decode tokens, in blocks that held others.
#[test]
fn ragged_batch() {
    for fixture in fixtures() {
        let (name, reference) = (name(&fixture), Reference::load(&fixture));
        let backwards: Vec<_> = reference.prompt().iter().rev().copied().collect();
        let short = &backwards[3..14];
        let prompts = [reference.prompt(), &backwards, short];
        let answer = reference.answer().len();

        let mut run = Run::exact(&fixture, 3, 64);
        let alone = prompts.map(|prompt| {
            run.restart(0);
            run.greedy(0, prompt, answer)
        });
        run.restart(0);

        // Sequence i starts in step i, with chunks of these sizes; it decodes when its prompt is done.
        let chunks = [40, 7, 4];
        let mut found: [Vec<_>; 3] = Default::default();
        let mut done = [0; 3];
        for step in 0.. {
            let mut plan: Vec<(usize, Vec<u32>)> = Vec::new();
            for i in (0..=step.min(2)).rev().filter(|&i| found[i].len() < answer) {
                let rest = &prompts[i][done[i]..];
                let tokens = match found[i].last() {
                    Some(last) => vec![last_token(last)],
                    None => rest[..rest.len().min(chunks[i])].to_vec(),
                };
                done[i] = prompts[i].len().min(done[i] + tokens.len());
                plan.push((i, tokens));
            }
            if plan.is_empty() {
                break;
            }
            let plan: Vec<_> = plan.iter().map(|(i, tokens)| (*i, &tokens[..])).collect();
            for (&(i, _), sampled) in plan.iter().zip(run.step(&plan)) {
                if done[i] == prompts[i].len() {
                    found[i].push(sampled);
                }
            }
        }
        for (i, (found, alone)) in found.iter().zip(&alone).enumerate() {
            for (j, (found, alone)) in found.iter().zip(alone).enumerate() {
                assert_eq!(found.token, alone.token, "{name}, sequence {i}, token {j}");
                let logprobs = |s: &vllm_platform::Sampled| {
                    let mut logprobs = vec![0.0; s.logprobs.as_ref().unwrap().top.len()];
                    s.logprobs.as_ref().unwrap().top.iter().for_each(|l| logprobs[l.token as usize] = l.logprob);
                    logprobs
                };
                let error = relative_error(found, &logprobs(alone));
                assert!(error < TOLERANCE, "{name}, sequence {i}, token {j}: {error:.1e}");
            }
        }
        assert_eq!(alone[0].iter().map(last_token).collect::<Vec<_>>(), reference.answer(), "{name}");
    }
}

fn last_token(sampled: &vllm_platform::Sampled) -> u32 {
    sampled.token
}

/// The file's own figures, as `vllm-mlx info` shows them.
#[test]
fn model_info() {
    // (fixture, parameters, KV bytes of a token)
    let cases = [
        ("llama", 2 * 96 * 64 + 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 80 + 2 * 64) + 64, 2 * 2 * 2 * 16 * 2),
        // Multi-query; every projection has a bias.
        (
            "llama_bias_rope_linear",
            2 * 96 * 64
                + 2 * (2 * 64 * 64 + 2 * 16 * 64 + 3 * 64 * 80 + 2 * 64 + (64 + 16 + 16 + 64) + (80 + 80 + 64))
                + 64,
            2 * 2 * 16 * 2,
        ),
        // Tied, and quantized weights count as what they stand for.
        (
            "qwen3_mlx_4bit",
            96 * 64 + 2 * (2 * 128 * 64 + 2 * 64 * 64 + 3 * 64 * 128 + 2 * 64 + 2 * 32) + 64,
            2 * 2 * 2 * 32 * 2,
        ),
    ];
    for (name, parameters, kv_bytes) in cases {
        let runner = support::load(&fixture(name), 1, None).unwrap();
        let info = runner.info();
        assert_eq!((info.parameters, info.kv_cache.bytes_per_token()), (parameters, kv_bytes), "{name}");
        assert_eq!((info.vocab_size, info.context_length), (96, 256), "{name}");
    }
}
