//! Gemma 3, SmolVLM and Idefics3, LLaVA, Pixtral and Mistral 3 against transformers, on tiny checkpoints in the layouts there are.

mod layouts;
mod reference;
mod refusals;
#[path = "../../../models-llm/tests/support/mod.rs"]
mod sequences;

use std::{path::Path, sync::Arc};

use vllm_models_vlm as _;
use vllm_platform::{
    Activations, DeviceChoice, Features, KvDtype, KvStoreChoice, LoadOptions, ModelSource, Platform, Sampled,
    VisionEncoder, VisionOptions,
};
use vllm_platform_mlx::{MlxPlatform, MlxVision};

use reference::{Case, Reference};
use sequences::{Run, fixture, relative_error};

/// DESIGN §7: of the largest number, in f32.
const TOLERANCE: f64 = 1e-4;

const FIXTURES: [&str; 6] = ["gemma3", "llava_clip", "llava_siglip", "mistral3", "pixtral", "smolvlm"];

/// Whether tokens of a picture see each other.
fn is_bidirectional(name: &str) -> bool {
    name == "gemma3"
}

/// The vision part of a checkpoint on the CPU, its activations as they are.
fn encoder(path: &Path) -> vllm_platform::Result<Box<dyn VisionEncoder>> {
    let options = VisionOptions {
        device: DeviceChoice::Cpu,
        threads: Some(2),
        activations: Activations::F32,
        ..VisionOptions::default()
    };
    let encoder = MlxPlatform.load_vision(&ModelSource { path: path.into() }, &options, &mut |_, _| {})?;
    Ok(encoder.unwrap_or_else(|| panic!("{}: a model that sees", path.display())))
}

/// The largest difference, relative to the largest of `wanted`.
#[track_caller]
fn difference(found: &[f32], wanted: &[f32]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let largest = wanted.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    f64::from(found.iter().zip(wanted).fold(0f32, |worst, (a, b)| worst.max((a - b).abs())) / largest)
}

#[test]
fn features() {
    for name in FIXTURES {
        let reference = Reference::load(name);
        let ours = encoder(&fixture(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mlx = MlxVision::load_over_mlx(&fixture(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        for (backend, mut encoder) in [("ours", ours), ("MLX's", Box::new(mlx))] {
            let info = encoder.info();
            let known = (info.patch_len, info.levels, info.width);
            assert_eq!(known, (reference.pictures.patch_len, 1, reference.features.width()), "{name}");
            let together = encoder.encode(&reference.pictures, &mut || {}).unwrap();
            for picture in 0..2 {
                let wanted = reference.of_picture(&reference.features, picture);
                let alone = encoder.encode(&reference.picture(picture), &mut || {}).unwrap();
                for (how, found) in [("alone", alone.level(0)), ("together", reference.of_picture(&together, picture))]
                {
                    let error = difference(found, wanted);
                    assert!(error < TOLERANCE, "{name}, {backend}, picture {picture} {how}: {error:.1e}");
                }
            }
        }
    }
}

/// A fixture's language part and what its own eyes see.
struct Seeing {
    name: &'static str,
    run: Run,
    reference: Reference,
    features: Arc<Features>,
}

impl Seeing {
    fn new(name: &'static str, kv_store: KvStoreChoice, sequences: usize) -> Self {
        let reference = Reference::load(name);
        let features = encoder(&fixture(name)).unwrap().encode(&reference.pictures, &mut || {}).unwrap();
        let options = LoadOptions {
            kv_store,
            activations: Activations::F32,
            kv_cache_dtype: Some(KvDtype::F32),
            ..LoadOptions::default()
        };
        Self { name, run: Run::of(options, &fixture(name), sequences, 128), reference, features: features.into() }
    }

    /// Puts a prompt's pictures into a sequence that begins anew.
    fn begin(&mut self, sequence: usize, case: usize) {
        self.run.restart(sequence);
        let case = &self.reference.cases[case];
        self.run.show(sequence, self.reference.media(case, &self.features, is_bidirectional(self.name)));
    }
}

/// What was sampled after position `at` of a prompt and its answer is what the reference has there.
#[track_caller]
fn check(name: &str, case: &Case, at: usize, sampled: &Sampled, how: &str) {
    let error = relative_error(sampled, case.at(at).unwrap());
    assert!(error < TOLERANCE, "{name}, {}, {how}, after token {at}: {error:.1e}", case.name);
    if at + 1 >= case.prompt && at + 1 < case.tokens.len() {
        assert_eq!(sampled.token, case.tokens[at + 1], "{name}, {}, {how}, after token {at}", case.name);
    }
}

const STORES: [(KvStoreChoice, &str); 2] =
    [(KvStoreChoice::Paged, "in the paged store"), (KvStoreChoice::Contiguous, "in the contiguous store")];

#[test]
fn whole_prefill_and_decode() {
    for name in FIXTURES {
        for (store, how) in STORES {
            let mut seeing = Seeing::new(name, store, 1);
            for case in 0..3 {
                seeing.begin(0, case);
                let case = &seeing.reference.cases[case];
                for (i, sampled) in seeing.run.greedy(0, case.prompt(), case.answer().len()).iter().enumerate() {
                    check(name, case, case.prompt - 1 + i, sampled, how);
                }
            }
        }
    }
}

/// Chunks end where the reference has logits: before, after and, where tokens don't see each other, within pictures.
#[test]
fn chunked_prefill() {
    for name in FIXTURES {
        for (store, how) in STORES {
            let mut seeing = Seeing::new(name, store, 1);
            for case in 0..3 {
                seeing.begin(0, case);
                let case = &seeing.reference.cases[case];
                let mut start = 0;
                for &(at, _) in &case.logits {
                    if is_bidirectional(name) && case.is_within(at) {
                        continue;
                    }
                    let sampled = seeing.run.step(&[(0, &case.tokens[start..=at])]);
                    check(name, case, at, &sampled[0], how);
                    start = at + 1;
                }
            }
        }
    }
}

/// A prompt of text, one with a picture and one with two in one batch, prefill beside decode.
#[test]
fn pictures_beside_text() {
    for name in FIXTURES {
        for (store, how) in STORES {
            let mut seeing = Seeing::new(name, store, 3);
            (0..3).for_each(|case| seeing.begin(case, case));
            let cases = &seeing.reference.cases;
            let mut done = [0; 3];
            // Sequence i starts in step i, with its whole prompt.
            for step in 0.. {
                let next = |i: usize| {
                    let case = &cases[i];
                    let end = if done[i] == 0 { case.prompt } else { done[i] + 1 };
                    (step >= i && end <= case.tokens.len()).then(|| (i, &case.tokens[done[i]..end]))
                };
                let plan: Vec<_> = (0..3).rev().filter_map(next).collect();
                if plan.is_empty() {
                    break;
                }
                for (&(i, tokens), sampled) in plan.iter().zip(seeing.run.step(&plan)) {
                    done[i] += tokens.len();
                    check(name, &cases[i], done[i] - 1, &sampled, how);
                }
            }
            assert_eq!(done.to_vec(), cases.iter().map(|case| case.tokens.len()).collect::<Vec<_>>(), "{name}");
        }
    }
}

/// A prefix that is there already ends before a picture, within one or after it: what is computed again is the same.
#[test]
fn found_prefixes() {
    for name in FIXTURES {
        let mut seeing = Seeing::new(name, KvStoreChoice::Paged, 1);
        let case = 2;
        seeing.begin(0, case);
        let case = &seeing.reference.cases[case];
        seeing.run.greedy(0, case.prompt(), 1);
        let [first, second] = [case.spans[0], case.spans[1]];
        // From the shortest on: Gemma's local layers give blocks back as windows move.
        for prefix in [first[0] + first[1] / 2, second[0], second[0] + second[1] / 2, second[0] + second[1]] {
            seeing.run.rewind(0, prefix);
            let sampled = seeing.run.step(&[(0, &case.tokens[prefix..case.prompt])]);
            check(name, case, case.prompt - 1, &sampled[0], &format!("after a prefix of {prefix}"));
        }
    }
}
