//! Qwen2-VL, Qwen2.5-VL and Qwen3-VL against the reference implementations, on tiny checkpoints in the layouts there are.

mod support;

use std::{path::Path, sync::Arc};

use support::{
    Reference, difference, encoder, pictures,
    sequences::{Run, argmax, fixture, relative_error},
};
use vllm_platform::{Features, VisionEncoder, VisionInput};
use vllm_platform_mlx::MlxVision;

/// DESIGN §7: of the largest number, in f32.
const TOLERANCE: f64 = 1e-4;

const FIXTURES: [&str; 5] = ["qwen2_vl", "qwen2_vl_mlx_4bit", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"];

/// Both of an encoder's backends.
fn backends(path: &Path) -> [(&'static str, Box<dyn VisionEncoder>); 2] {
    let ours = encoder(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mlx = MlxVision::load_over_mlx(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    [("ours", ours), ("MLX's", Box::new(mlx))]
}

#[test]
fn features() {
    for name in FIXTURES {
        let (path, Reference { pictures: all, features: wanted, .. }) =
            (fixture(name), Reference::load(&fixture(name)));
        for (backend, mut encoder) in backends(&path) {
            let info = encoder.info();
            let known = (info.patch_len, info.levels, info.width);
            assert_eq!(known, (all.patch_len, wanted.levels(), wanted.width()), "{name}");
            let found = encoder.encode(&all, &mut || {}).unwrap();
            for level in 0..wanted.levels() {
                let error = difference(found.level(level), wanted.level(level));
                assert!(f64::from(error) < TOLERANCE, "{name}, {backend}, level {level}: {error:.1e}");
            }
            // A picture's features are the same whatever else there is to look at.
            let mut first = 0;
            for picture in 0..all.grids.len() {
                let alone = encoder.encode(&pictures(&all, picture..picture + 1), &mut || {}).unwrap();
                let (from, to) = (first * wanted.width(), (first + alone.tokens()) * wanted.width());
                for level in 0..wanted.levels() {
                    let error = difference(alone.level(level), &found.level(level)[from..to]);
                    assert!(error < 1e-5, "{name}, {backend}, picture {picture}, level {level}: {error:.1e}");
                }
                first += alone.tokens();
            }
            assert_eq!(first, wanted.tokens(), "{name}");
        }
    }
}

/// A picture of more rows than are computed at once: the slices make no difference, and there are pauses between them.
#[test]
fn a_large_picture_is_computed_in_slices() {
    for name in FIXTURES {
        let path = fixture(name);
        let all = Reference::load(&path).pictures;
        let grid = [40, 28];
        let of_large = all.patches.iter().cycle().skip(7).step_by(5).take(40 * 28 * all.patch_len);
        let large = VisionInput { patches: of_large.copied().collect(), grids: vec![grid], ..all };
        let [(_, mut ours), (_, mut whole)] = backends(&path);
        let mut pauses = 0;
        let (ours, whole) = (ours.encode(&large, &mut || pauses += 1), whole.encode(&large, &mut || {}));
        let (ours, whole) = (ours.unwrap(), whole.unwrap());
        assert_eq!(ours.tokens(), 20 * 14, "{name}");
        // Five slices of queries, keys and values, of what attention gives, and of the MLP, in two blocks at least.
        assert!(pauses >= 5 * 3 * 2, "{name}: {pauses} pauses");
        for level in 0..ours.levels() {
            let error = difference(ours.level(level), whole.level(level));
            assert!(f64::from(error) < TOLERANCE, "{name}, level {level}: {error:.1e}");
        }
    }
}

#[test]
fn a_picture_that_is_no_blocks_is_refused() {
    let path = fixture("qwen2_5_vl");
    let mut encoder = encoder(&path).unwrap();
    let input = VisionInput { patches: vec![0.0; 15 * 96], patch_len: 96, grids: vec![[3, 5]] };
    let error = encoder.encode(&input, &mut || {}).unwrap_err().to_string();
    assert!(error.contains("3 by 5 patches are no blocks of 2 by 2"), "{error}");
}

/// A runner for `sequences` prompts of a fixture, and its pictures as its own encoder sees them.
fn seeing(path: &Path, sequences: usize) -> (Run, Reference, Arc<Features>) {
    let reference = Reference::load(path);
    let features = encoder(path).unwrap().encode(&reference.pictures, &mut || {}).unwrap();
    (Run::exact(path, sequences, 96), reference, features.into())
}

#[test]
fn whole_prefill_and_decode() {
    for name in FIXTURES {
        let (mut run, reference, features) = seeing(&fixture(name), 1);
        for case in &reference.cases {
            run.restart(0);
            run.show(0, case.media(&features));
            let answer = run.greedy(0, case.prompt(), case.answer().len());
            let error = relative_error(&answer[0], case.logits_at(case.prompt - 1).unwrap());
            assert!(error < TOLERANCE, "{name}, {}: {error:.1e}", case.name);
            let tokens: Vec<_> = answer.iter().map(|s| s.token).collect();
            assert_eq!(tokens, case.answer(), "{name}, {}", case.name);
        }
    }
}

/// Of one token, so that all logits are looked at; and of seven, which end within pictures and begin there.
#[test]
fn chunked_prefill() {
    for name in FIXTURES {
        let (mut run, reference, features) = seeing(&fixture(name), 1);
        for (case, size) in reference.cases.iter().flat_map(|case| [(case, 1), (case, 7)]) {
            run.restart(0);
            run.show(0, case.media(&features));
            let mut end = 0;
            for chunk in case.prompt().chunks(size) {
                end += chunk.len();
                let sampled = run.step(&[(0, chunk)]);
                let Some(logits) = case.logits_at(end - 1) else { continue };
                let error = relative_error(&sampled[0], logits);
                assert!(error < TOLERANCE, "{name}, {}, {end} tokens by {size}: {error:.1e}", case.name);
                assert_eq!(sampled[0].token, argmax(logits), "{name}, {}, {end} tokens by {size}", case.name);
            }
        }
    }
}

/// What was found of a prefix ends within a picture, whose other tokens are computed.
#[test]
fn prefix_that_ends_within_a_picture() {
    for name in FIXTURES {
        let (mut run, reference, features) = seeing(&fixture(name), 1);
        let case = reference.case("image");
        let found = 16;
        assert!(case.spans[0].start < found && found < case.spans[0].end());
        run.show(0, case.media(&features));
        run.step(&[(0, case.prompt())]);
        run.rewind(0, found);
        let answer = run.greedy(0, &case.prompt()[found..], case.answer().len());
        let tokens: Vec<_> = answer.iter().map(|s| s.token).collect();
        assert_eq!(tokens, case.answer(), "{name}");

        // When only text is left to compute, nobody needs to look.
        run.rewind(0, case.prompt - 1);
        run.show(0, case.spans.clone());
        let answer = run.greedy(0, &case.prompt()[case.prompt - 1..], case.answer().len());
        let tokens: Vec<_> = answer.iter().map(|s| s.token).collect();
        assert_eq!(tokens, case.answer(), "{name}");
    }
}

/// All prompts in one batch, each a step later than the one before, in chunks beside decode tokens of others.
#[test]
fn pictures_beside_text() {
    for name in FIXTURES {
        let path = fixture(name);
        let count = Reference::load(&path).cases.len();
        let (mut run, Reference { cases, .. }, features) = seeing(&path, count);
        cases.iter().enumerate().for_each(|(i, case)| run.show(i, case.media(&features)));
        let mut known: Vec<Vec<u32>> = cases.iter().map(|case| case.prompt().to_vec()).collect();
        let mut done = vec![0; count];
        for step in 0.. {
            let running = (0..count.min(step + 1)).rev().filter(|&i| known[i].len() < cases[i].tokens.len());
            let plan: Vec<_> =
                running.map(|i| (i, known[i][done[i]..known[i].len().min(done[i] + 9)].to_vec())).collect();
            if plan.is_empty() {
                break;
            }
            let chunks: Vec<_> = plan.iter().map(|(i, tokens)| (*i, &tokens[..])).collect();
            for ((i, tokens), sampled) in plan.iter().zip(run.step(&chunks)) {
                done[*i] += tokens.len();
                if done[*i] == known[*i].len() {
                    known[*i].push(sampled.token);
                }
            }
        }
        for (case, known) in cases.iter().zip(known) {
            assert_eq!(known, case.tokens, "{name}, {}", case.name);
        }
    }
}
