//! What a model wants to see: per family, how images and videos become patches and which text stands for them.
//!
//! [`Processor::image`] and [`Processor::video`] work from sizes alone, in microseconds; [`Part::input`] does the work, and is
//! called only for what no cache has. [`Processor::tokenize`] puts it all into a prompt.
//!
//! Everything follows the processors of transformers 5 with their default backend: the same tokens, and the same level of
//! every pixel, but for images of which CLIP keeps only the middle, where some are one level off.

mod expand;
mod gemma3;
mod idefics3;
mod llava;
mod one_size;
mod patches;
mod pixtral;
mod prepared;
mod qwen_vl;
mod recipe;
mod resample;
mod settings;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use vllm_checkpoint::Checkpoint;

use self::patches::Colours;
use self::resample::Filter;
use self::settings::Files;
use crate::{Frame, MediaError, MediaErrorKind, Picture, Sampling, Video};

pub use self::expand::ExpandError;
pub use self::prepared::{Part, PlacedSpan, Prepared, Run};

/// How closely to look at an image: OpenAI's `detail`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Detail {
    /// As the model's files say.
    #[default]
    Auto,
    /// At fewer tokens, where the family has a choice: 512 × 512 pixels (Qwen) or within such a square (Pixtral, Mistral 3),
    /// without tiles (Idefics 3, SmolVLM). Gemma 3 and LLaVA see all images in one size.
    Low,
    /// As `Auto`.
    High,
}

/// Side of the square that [`Detail::Low`] allows.
const LOW_SIDE: usize = 512;

/// Why a checkpoint has no usable processor.
#[derive(Debug, thiserror::Error)]
pub enum ProcessorError {
    /// A file can't be read.
    #[error(transparent)]
    Checkpoint(#[from] vllm_checkpoint::Error),
    /// A file says something that isn't supported, or doesn't go with another.
    #[error("{place}: {what}")]
    Settings {
        /// The file, and the object in it.
        place: String,
        /// What is the matter.
        what: String,
    },
}

/// A family's way with images and videos.
trait Family: fmt::Debug + Send + Sync {
    /// What the chat template writes for an image, then what for a video.
    fn placeholders(&self) -> Vec<Arc<str>>;

    /// The tokens that hold features' places.
    fn pads(&self) -> Vec<Arc<str>>;

    fn image(&self, picture: &Picture, detail: Detail) -> Result<Prepared, MediaError>;

    fn takes_video(&self) -> bool {
        false
    }

    /// Which frames of a video it is used to.
    fn sampling(&self) -> Sampling {
        Sampling::default()
    }

    fn video(&self, _video: &Video) -> Result<Prepared, MediaError> {
        Err(MediaError::new(
            MediaErrorKind::Unsupported,
            "this model doesn't take videos; send single frames as images",
        ))
    }
}

/// Processes images and videos for a model.
#[derive(Debug)]
pub struct Processor {
    family: Box<dyn Family>,
}

impl Processor {
    /// Reads a checkpoint's files: `config.json`, `processor_config.json`, `preprocessor_config.json`,
    /// `video_preprocessor_config.json`, `tokenizer_config.json`. `None` if the model only reads text.
    ///
    /// # Errors
    /// For families that aren't known, and settings that aren't supported or contradict each other.
    pub fn load(checkpoint: &Checkpoint) -> Result<Option<Self>, ProcessorError> {
        if !checkpoint.config()["vision_config"].is_object() {
            return Ok(None);
        }
        let files = Files::read(checkpoint)?;
        let model = files.config.text("model_type")?.unwrap_or_default();
        let vision = files.vision.text("model_type")?.unwrap_or_default();
        let family: Box<dyn Family> = match model {
            "qwen2_vl" | "qwen2_5_vl" | "qwen3_vl" | "qwen3_vl_moe" => Box::new(qwen_vl::QwenVl::read(&files, model)?),
            "gemma3" => Box::new(gemma3::Gemma3::read(&files)?),
            "idefics3" | "smolvlm" => Box::new(idefics3::Idefics3::read(&files, model == "smolvlm")?),
            "mistral3" => Box::new(pixtral::Pixtral::read(&files)?),
            "llava" if vision == "pixtral" => Box::new(pixtral::Pixtral::read(&files)?),
            "llava" => Box::new(llava::Llava::read(&files, vision)?),
            _ => {
                return Err(files.config.fault(format!(
                    "has a vision_config, but model_type {model:?} isn't one whose images are understood: qwen2_vl, \
                     qwen2_5_vl, qwen3_vl, qwen3_vl_moe, gemma3, idefics3, smolvlm, llava, mistral3"
                )));
            }
        };
        Ok(Some(Self { family }))
    }

    /// Whether [`video`](Self::video) works.
    #[must_use]
    pub fn takes_video(&self) -> bool {
        self.family.takes_video()
    }

    /// Which frames of a video the model's files want, where a request doesn't say.
    #[must_use]
    pub fn sampling(&self) -> Sampling {
        self.family.sampling()
    }

    /// What the chat template should write for an image, for callers whose template knows nothing of images.
    #[must_use]
    pub fn image_placeholder(&self) -> Arc<str> {
        self.family.placeholders().swap_remove(0)
    }

    /// The same for a video, if the model takes them.
    #[must_use]
    pub fn video_placeholder(&self) -> Option<Arc<str>> {
        self.family.placeholders().into_iter().nth(1)
    }

    /// What an image will be in the prompt. Looks at the picture's size only.
    ///
    /// # Errors
    /// For shapes that the model can't see.
    pub fn image(&self, picture: &Picture, detail: Detail) -> Result<Prepared, MediaError> {
        self.family.image(picture, detail)
    }

    /// What a video will be in the prompt. Its frames must have one size; parts depend on pairs or single frames, so that
    /// what another clip shares with it is found in the cache.
    ///
    /// # Errors
    /// [`MediaErrorKind::Unsupported`] for models without videos; for shapes that the model can't see.
    pub fn video(&self, video: &Video) -> Result<Prepared, MediaError> {
        let sizes = |frame: &Frame| (frame.picture.width(), frame.picture.height());
        let mut frames = video.frames.iter().map(sizes);
        let first = frames.next();
        if first.is_none() || frames.any(|size| Some(size) != first) {
            return Err(MediaError::new(MediaErrorKind::Invalid, "a video has frames, all of one size"));
        }
        self.family.video(video)
    }

    /// Marks the model's own placeholders in text that a user wrote, so that they stay text. To be applied to everything
    /// that doesn't come from the chat template itself before it is rendered; [`tokenize`](Self::tokenize) takes the marks
    /// off again. Text without placeholders stays as it is.
    ///
    /// The mark is a code point that Unicode keeps for use inside programs; where the text has it already, that is noted.
    #[must_use]
    pub fn guard<'t>(&self, text: &'t str) -> Cow<'t, str> {
        expand::guard(text, &self.literals())
    }

    /// Takes [`guard`](Self::guard)'s marks off, for those who want a rendered prompt as it would be without.
    #[must_use]
    pub fn unguard(text: &str) -> String {
        expand::pieces(text).concat()
    }

    /// Turns a rendered chat template into tokens, with each medium where the template has its placeholder: the first
    /// image goes to the first place for images, the first video to the first place for videos.
    ///
    /// `encode` must not add tokens of its own, such as a BOS. It gets the whole prompt at once; only where a user wrote a
    /// placeholder, the text before and after the placeholder's first character goes separately, so that the tokenizer
    /// reads it as ordinary text.
    ///
    /// # Errors
    /// If the template left a medium out or wrote one twice, if the pads aren't single tokens, if there are other pads than
    /// those of the media, or if `encode` fails.
    pub fn tokenize<E>(
        &self,
        rendered: &str,
        media: &[Prepared],
        encode: &dyn Fn(&str) -> Result<Vec<u32>, E>,
    ) -> Result<(Vec<u32>, Vec<PlacedSpan>), ExpandError<E>> {
        expand::tokenize(rendered, media, &self.family.placeholders(), &self.family.pads(), encode)
    }

    /// Puts media into a prompt that is tokens already: the tokens of the first image's placeholder give way to what stands
    /// for it, and so on. `encode` as in [`tokenize`](Self::tokenize).
    ///
    /// # Errors
    /// If there are more or fewer placeholders than media; else as [`tokenize`](Self::tokenize).
    pub fn expand_tokens<E>(
        &self,
        prompt: &[u32],
        media: &[Prepared],
        encode: &dyn Fn(&str) -> Result<Vec<u32>, E>,
    ) -> Result<(Vec<u32>, Vec<PlacedSpan>), ExpandError<E>> {
        expand::expand_tokens(prompt, media, &self.family.placeholders(), &self.family.pads(), encode)
    }

    fn literals(&self) -> Vec<Arc<str>> {
        [self.family.placeholders(), self.family.pads()].concat()
    }
}
