//! What a served model sees with, and prompts with images and videos in them.

use std::{path::Path, sync::Arc};

use serde_json::Value;
use vllm_checkpoint::Checkpoint;
use vllm_media::{Detail, MediaError, Picture, PlacedSpan, Prepared, Processor, Video};
use vllm_platform::{Error, LoadOptions, ModelSource, TokenId, VisionOptions};
use vllm_scheduler::{RequestMedia, VisionConfig, VisionEngine, VisionHandle};
use vllm_text::{MediaMarks, TextError, Tokenizer};

use crate::model::open_platform;

/// What a model sees with.
#[derive(Debug)]
pub struct Vision {
    /// Says what stands for an image in a prompt, and makes patches of it.
    pub processor: Processor,
    /// Where features come from.
    pub engine: VisionHandle,
}

/// An image or a video, decoded.
#[derive(Debug, Clone)]
pub enum Medium {
    /// An image.
    Image(Picture, Detail),
    /// A video.
    Video(Video),
}

/// A prompt as the engine takes it.
#[derive(Debug, Clone, Default)]
pub struct SeenPrompt {
    /// Its tokens.
    pub tokens: Vec<TokenId>,
    /// What of them only holds the place of pictures.
    pub media: Vec<RequestMedia>,
    /// Tokens that hold the place of videos' pictures.
    pub video_tokens: usize,
}

/// Why a prompt could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum SeeError {
    /// The model can't look at it.
    #[error("{error}")]
    Medium {
        /// Which one.
        index: usize,
        /// Why not.
        error: MediaError,
    },
    /// The template doesn't go with the processor, or the tokenizer failed.
    #[error("{0}")]
    Prompt(String),
}

impl Vision {
    /// Starts what a model sees with, beside its language model.
    ///
    /// # Errors
    /// If the encoder can't be loaded.
    pub fn start(processor: Processor, path: &Path, load: &LoadOptions, config: VisionConfig) -> anyhow::Result<Self> {
        let source = ModelSource { path: path.to_owned() };
        let options = VisionOptions {
            device: load.device,
            threads: load.threads,
            pin_threads: load.pin_threads,
            activations: load.activations,
        };
        let make = move || {
            // The language model is what takes long: its progress is the one that is shown.
            let encoder = open_platform()?.load_vision(&source, &options, &mut |_, _| {})?;
            encoder.ok_or_else(|| {
                let path = source.path.display();
                Error::Model(format!(
                    "{path}: config.json has a vision_config, but its architecture isn't one that sees"
                ))
            })
        };
        Ok(Self { processor, engine: VisionEngine::start(make, config)? })
    }

    /// Marks the model's own placeholders in all texts of `value`, so that they stay text: what a client writes must never
    /// be taken for an image.
    pub fn guard(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                let guarded = self.processor.guard(text);
                if guarded != *text {
                    *text = guarded.into_owned();
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.guard(item)),
            Value::Object(map) => map.values_mut().for_each(|item| self.guard(item)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// What a template is to write for media if it has no marks of its own.
    #[must_use]
    pub fn marks(&self) -> Marks {
        Marks { image: self.processor.image_placeholder(), video: self.processor.video_placeholder() }
    }

    /// Tokens of a rendered prompt in which `media` stand, in order of their messages. Works from sizes alone: nothing is
    /// encoded before the engine wants it.
    ///
    /// # Errors
    /// [`SeeError`].
    pub fn prompt(&self, rendered: &str, media: &[&Medium], tokenizer: &Tokenizer) -> Result<SeenPrompt, SeeError> {
        let prepared = self.prepare(media)?;
        // The template writes the special tokens out.
        let encode = |text: &str| -> Result<Vec<TokenId>, TextError> { tokenizer.encode(text, false) };
        let placed = self.processor.tokenize(rendered, &prepared, &encode);
        let (tokens, spans) = placed.map_err(|error| SeeError::Prompt(error.to_string()))?;
        Ok(self.seen(tokens, spans, &prepared, media))
    }

    /// [`prompt`](Self::prompt) where the prompt is tokens already, with one placeholder of the model's for each medium.
    ///
    /// # Errors
    /// [`SeeError`].
    pub fn prompt_of_tokens(
        &self,
        prompt: &[TokenId],
        media: &[&Medium],
        tokenizer: &Tokenizer,
    ) -> Result<SeenPrompt, SeeError> {
        let prepared = self.prepare(media)?;
        let encode = |text: &str| -> Result<Vec<TokenId>, TextError> { tokenizer.encode(text, false) };
        let placed = self.processor.expand_tokens(prompt, &prepared, &encode);
        let (tokens, spans) = placed.map_err(|error| SeeError::Prompt(error.to_string()))?;
        Ok(self.seen(tokens, spans, &prepared, media))
    }

    fn prepare(&self, media: &[&Medium]) -> Result<Vec<Prepared>, SeeError> {
        let prepare = |(index, medium): (usize, &&Medium)| {
            let prepared = match medium {
                Medium::Image(picture, detail) => self.processor.image(picture, *detail),
                Medium::Video(video) => self.processor.video(video),
            };
            prepared.map_err(|error| SeeError::Medium { index, error })
        };
        media.iter().enumerate().map(prepare).collect()
    }

    fn seen(
        &self,
        tokens: Vec<TokenId>,
        spans: Vec<PlacedSpan>,
        prepared: &[Prepared],
        media: &[&Medium],
    ) -> SeenPrompt {
        let mut seen = SeenPrompt { tokens, media: Vec::with_capacity(spans.len()), video_tokens: 0 };
        for placed in spans {
            let part = prepared[placed.media].parts[placed.part].clone();
            if matches!(media[placed.media], Medium::Video(_)) {
                seen.video_tokens += placed.span.len;
            }
            let key = self.engine.seen(part.key());
            let features = self.engine.features(part.key(), part.tokens(), move || part.input());
            seen.media.push(RequestMedia { span: placed.span, key, features });
        }
        seen
    }
}

/// [`MediaMarks`] of a model.
#[derive(Debug, Clone, Default)]
pub struct Marks {
    image: Arc<str>,
    video: Option<Arc<str>>,
}

impl Marks {
    /// For a template.
    #[must_use]
    pub fn for_template(&self) -> MediaMarks<'_> {
        MediaMarks { image: &self.image, video: self.video.as_deref().unwrap_or_default() }
    }
}

/// What may stand in prompts of a model with such eyes.
#[must_use]
pub fn modalities(processor: Option<&Processor>) -> Vec<&'static str> {
    let videos = processor.is_some_and(Processor::takes_video);
    let all = [("text", true), ("image", processor.is_some()), ("video", videos)];
    all.into_iter().filter(|(_, takes)| *takes).map(|(name, _)| name).collect()
}

/// What a checkpoint's model sees with, if it sees.
///
/// # Errors
/// If its files contradict each other.
pub fn processor(path: &Path) -> anyhow::Result<Option<Processor>> {
    Ok(Processor::load(&Checkpoint::open(path)?)?)
}
