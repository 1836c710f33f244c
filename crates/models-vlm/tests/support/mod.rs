//! What the tests share: fixtures, encoders, and sequences with pictures driven as the engine drives them.
#![allow(dead_code, reason = "each test file uses a part")]

#[path = "../../../models-llm/tests/support/mod.rs"]
pub mod sequences;

use std::{fs, path::Path, sync::Arc};

use safetensors::SafeTensors;
use vllm_models_vlm as _;
use vllm_platform::{
    Activations, DeviceChoice, Features, MediaSpan, ModelSource, Platform, SpanGrid, VisionEncoder, VisionInput,
    VisionOptions,
};
use vllm_platform_mlx::MlxPlatform;

/// What a reference implementation computed (see `fixtures/make_qwen.py`).
pub struct Reference {
    /// All pictures.
    pub pictures: VisionInput,
    pub features: Features,
    pub cases: Vec<Case>,
}

/// A prompt, with pictures in it or without.
pub struct Case {
    pub name: String,
    /// Prompt and greedy answer.
    pub tokens: Vec<u32>,
    /// Length of the prompt.
    pub prompt: usize,
    /// Without features.
    pub spans: Vec<MediaSpan>,
    /// Positions of the prompt, the last among them, with the logits after them.
    pub logits: Vec<(usize, Vec<f32>)>,
}

impl Case {
    pub fn prompt(&self) -> &[u32] {
        &self.tokens[..self.prompt]
    }

    /// The logits after position `at` of the prompt, if the reference has them.
    pub fn logits_at(&self, at: usize) -> Option<&[f32]> {
        self.logits.iter().find(|(position, _)| *position == at).map(|(_, logits)| &logits[..])
    }

    pub fn answer(&self) -> &[u32] {
        &self.tokens[self.prompt..]
    }

    /// Its pictures, seen.
    pub fn media(&self, features: &Arc<Features>) -> Vec<MediaSpan> {
        let seen = |span: &MediaSpan| MediaSpan { features: Some(Arc::clone(features)), ..span.clone() };
        self.spans.iter().map(seen).collect()
    }
}

impl Reference {
    pub fn load(fixture: &Path) -> Self {
        let bytes = fs::read(fixture.join("reference.safetensors")).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = metadata.metadata().clone().unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let words = |name: &str| -> Vec<[u8; 4]> {
            file.tensor(name).unwrap().data().chunks_exact(4).map(|w| w.try_into().unwrap()).collect()
        };
        let counts = |name: &str| words(name).into_iter().map(|w| u32::from_le_bytes(w) as usize).collect::<Vec<_>>();
        let floats = |name: &str| words(name).into_iter().map(f32::from_le_bytes).collect::<Vec<_>>();
        let shape = |name: &str| file.tensor(name).unwrap().shape().to_vec();

        let patches = file.tensor("patches").unwrap();
        let pictures = VisionInput {
            patches: patches.data().iter().map(|&x| (f32::from(x) - 128.0) / 64.0).collect(),
            patch_len: patches.shape()[1],
            grids: counts("grids").chunks_exact(2).map(|grid| [grid[0], grid[1]]).collect(),
        };
        let &[levels, _, width] = &shape("features")[..] else { panic!("three axes") };
        let mut names: Vec<_> = metadata.keys().filter_map(|key| key.strip_suffix(".prompt")).collect();
        names.sort_unstable();
        let case = |name: &str| {
            let prompt: usize = metadata[&format!("{name}.prompt")].parse().unwrap();
            let logits = format!("{name}.logits");
            let (numbers, vocab) = (floats(&logits), shape(&logits)[1]);
            let positions = (0..prompt - 1).step_by(3).chain([prompt - 1]);
            Case {
                name: name.into(),
                tokens: words(&format!("{name}.tokens")).into_iter().map(u32::from_le_bytes).collect(),
                prompt,
                spans: counts(&format!("{name}.spans")).chunks_exact(7).map(span).collect(),
                logits: positions.zip(numbers.chunks_exact(vocab).map(<[f32]>::to_vec)).collect(),
            }
        };
        Self {
            pictures,
            features: Features::new(floats("features"), levels, width),
            cases: names.into_iter().map(case).collect(),
        }
    }

    pub fn case(&self, name: &str) -> &Case {
        self.cases.iter().find(|case| case.name == name).unwrap_or_else(|| panic!("no case {name}"))
    }
}

fn span(numbers: &[usize]) -> MediaSpan {
    let &[start, len, first, columns, time, continues, _] = numbers else { panic!("seven numbers") };
    let grid = Some(SpanGrid { columns, time, continues: continues == 1 });
    MediaSpan { start, len, first, grid, bidirectional: false, features: None }
}

/// Some of the pictures of an input.
pub fn pictures(all: &VisionInput, which: std::ops::Range<usize>) -> VisionInput {
    let numbers = |pictures: &[[usize; 2]]| pictures.iter().map(|[r, c]| r * c * all.patch_len).sum::<usize>();
    let (first, end) = (numbers(&all.grids[..which.start]), numbers(&all.grids[..which.end]));
    VisionInput { patches: all.patches[first..end].to_vec(), grids: all.grids[which].to_vec(), ..*all }
}

/// The vision part of a fixture on the CPU, its activations as they are.
pub fn encoder(path: &Path) -> vllm_platform::Result<Box<dyn VisionEncoder>> {
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
pub fn difference(found: &[f32], wanted: &[f32]) -> f32 {
    assert_eq!(found.len(), wanted.len());
    let largest = wanted.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    found.iter().zip(wanted).fold(0f32, |worst, (a, b)| worst.max((a - b).abs())) / largest
}
