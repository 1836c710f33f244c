//! What a processor says about a medium before anything is computed.

use std::sync::Arc;

use vllm_platform::{ContentHash, MediaSpan, SpanGrid, VisionInput};

use super::recipe::Recipe;
use crate::Picture;

/// An image or a video, as it will stand in a prompt.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// What the chat template writes for it.
    pub placeholder: Arc<str>,
    /// What stands there instead. The text of [`pad`](Self::pad) occurs in it once for each feature.
    pub text: String,
    /// The token that holds a feature's place.
    pub pad: Arc<str>,
    /// The places, in order of the text.
    pub runs: Vec<Run>,
    /// What is encoded.
    pub parts: Vec<Part>,
}

impl Prepared {
    /// Tokens that hold a feature's place.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.runs.iter().map(|run| run.len).sum()
    }
}

/// Pads that follow each other and stand for features that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Whose features: an index into [`Prepared::parts`].
    pub part: usize,
    /// The first of them.
    pub first: usize,
    /// How many.
    pub len: usize,
    /// Where they stand for a rotary embedding of several axes.
    pub grid: Option<SpanGrid>,
    /// Whether they see each other.
    pub bidirectional: bool,
}

/// What is encoded at once and cached under one key: an image with all its tiles, or what a video shows in one step of time.
#[derive(Debug, Clone)]
pub struct Part {
    key: ContentHash,
    tokens: usize,
    pictures: Arc<[Picture]>,
    recipe: Arc<Recipe>,
}

impl Part {
    pub(super) fn new(pictures: impl Into<Arc<[Picture]>>, recipe: Arc<Recipe>, tokens: usize) -> Self {
        let pictures = pictures.into();
        Self { key: recipe.key(&pictures), tokens, pictures, recipe }
    }

    /// Names its pixels and everything that is done to them before the encoder sees them.
    #[must_use]
    pub fn key(&self) -> ContentHash {
        self.key
    }

    /// Features that the encoder gives for it.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Its patches. Takes milliseconds: pictures are resized, normalised and cut here.
    #[must_use]
    pub fn input(&self) -> VisionInput {
        self.recipe.cook(&self.pictures)
    }
}

/// A run, and where it stands in a sequence of tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacedSpan {
    /// Index of the medium.
    pub media: usize,
    /// Index into its [`Prepared::parts`].
    pub part: usize,
    /// Without features.
    pub span: MediaSpan,
}
