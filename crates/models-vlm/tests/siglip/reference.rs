//! What transformers computed (see `fixtures/make_siglip.py`).

use std::{fs, sync::Arc};

use safetensors::SafeTensors;
use vllm_platform::{Features, MediaSpan, VisionInput};

use crate::sequences::fixture;

pub struct Reference {
    /// Two pictures, one after the other.
    pub pictures: VisionInput,
    /// Tokens of each.
    pub counts: Vec<usize>,
    /// Theirs, one after the other, each encoded alone.
    pub features: Arc<Features>,
    pub cases: Vec<Case>,
}

/// A prompt, with pictures in it or without.
pub struct Case {
    pub name: &'static str,
    /// Prompt and greedy answer.
    pub tokens: Vec<u32>,
    /// Length of the prompt.
    pub prompt: usize,
    /// First token, tokens and picture.
    pub spans: Vec<[usize; 3]>,
    /// Positions with the logits after them.
    pub logits: Vec<(usize, Vec<f32>)>,
}

impl Reference {
    pub fn load(name: &str) -> Self {
        let bytes = fs::read(fixture(name).join("reference.safetensors")).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = metadata.metadata().clone().unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let words = |name: &str| -> Vec<[u8; 4]> {
            file.tensor(name).unwrap().data().chunks_exact(4).map(|w| w.try_into().unwrap()).collect()
        };
        let numbers = |name: &str| -> Vec<u32> { words(name).into_iter().map(u32::from_le_bytes).collect() };
        let floats = |name: &str| -> Vec<f32> { words(name).into_iter().map(f32::from_le_bytes).collect() };
        let sizes = |name: &str| numbers(name).into_iter().map(|n| n as usize).collect::<Vec<_>>();
        let patches = file.tensor("patches").unwrap();
        let width = file.tensor("features").unwrap().shape()[1];
        let case = |name: &'static str| {
            let (positions, logits) = (sizes(&format!("{name}.positions")), floats(&format!("{name}.logits")));
            let rows = logits.chunks_exact(logits.len() / positions.len()).map(Into::into);
            Case {
                name,
                tokens: numbers(&format!("{name}.tokens")),
                prompt: metadata[name].parse().unwrap(),
                spans: sizes(&format!("{name}.spans")).chunks_exact(3).map(|s| [s[0], s[1], s[2]]).collect(),
                logits: positions.into_iter().zip(rows).collect(),
            }
        };
        Self {
            pictures: VisionInput {
                patches: patches.data().iter().map(|&x| (f32::from(x) - 128.0) / 64.0).collect(),
                patch_len: patches.shape()[1],
                grids: sizes("grids").chunks_exact(2).map(|grid| [grid[0], grid[1]]).collect(),
            },
            counts: sizes("counts"),
            features: Features::new(floats("features"), 1, width).into(),
            cases: ["text", "one", "two"].map(case).into(),
        }
    }

    /// One of the pictures.
    pub fn picture(&self, index: usize) -> VisionInput {
        let VisionInput { patches, patch_len, grids } = &self.pictures;
        let first: usize = grids[..index].iter().map(|[rows, columns]| rows * columns * patch_len).sum();
        let len = grids[index][0] * grids[index][1] * patch_len;
        VisionInput { patches: patches[first..first + len].to_vec(), patch_len: *patch_len, grids: vec![grids[index]] }
    }

    /// The rows of `features` that are a picture's.
    pub fn of_picture<'a>(&self, features: &'a Features, index: usize) -> &'a [f32] {
        let first: usize = self.counts[..index].iter().sum();
        &features.level(0)[first * features.width()..(first + self.counts[index]) * features.width()]
    }

    /// The pictures of a prompt, whose tokens see each other in Gemma 3.
    pub fn media(&self, case: &Case, features: &Arc<Features>, bidirectional: bool) -> Vec<MediaSpan> {
        let span = |&[start, len, picture]: &[usize; 3]| MediaSpan {
            start,
            len,
            first: self.counts[..picture].iter().sum(),
            grid: None,
            bidirectional,
            features: Some(Arc::clone(features)),
        };
        case.spans.iter().map(span).collect()
    }
}

impl Case {
    pub fn prompt(&self) -> &[u32] {
        &self.tokens[..self.prompt]
    }

    pub fn answer(&self) -> &[u32] {
        &self.tokens[self.prompt..]
    }

    /// The logits after position `at`, if the reference has them.
    pub fn at(&self, at: usize) -> Option<&[f32]> {
        self.logits.iter().find(|(position, _)| *position == at).map(|(_, logits)| &logits[..])
    }

    /// Whether position `at` is in a picture that goes on after it.
    pub fn is_within(&self, at: usize) -> bool {
        self.spans.iter().any(|&[start, len, _]| (start..start + len - 1).contains(&at))
    }
}
