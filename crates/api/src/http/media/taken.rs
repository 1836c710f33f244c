//! The media of one request, as they are taken out of its messages.

use std::{fmt, time::Instant};

use serde_json::{Value, json};

use super::{
    options::{MediaLimits, MediaOptions},
    part::{self, Given, MediaPart},
};
use crate::{
    http::{ApiError, Fields, HttpConfig},
    model::ServedModel,
    vision::Medium,
};

/// What sort of media something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An image.
    Image,
    /// A video.
    Video,
}

impl Kind {
    /// As templates have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Video => "video",
        }
    }

    /// What parts of this type hold.
    #[must_use]
    pub fn of_part(name: &str) -> Option<Self> {
        match name {
            "image" | "image_url" | "input_image" => Some(Self::Image),
            "video" | "video_url" | "input_video" => Some(Self::Video),
            _ => None,
        }
    }
}

/// Which media a model takes, and how many of them a prompt may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Takes {
    /// Images.
    pub images: bool,
    /// Videos.
    pub videos: bool,
    /// Most of each.
    pub limits: MediaLimits,
}

/// What a model takes, in words.
impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.images, self.videos) {
            (false, false) => "text",
            (true, false) => "text and images",
            (false, true) => "text and videos",
            (true, true) => "text, images and videos",
        })
    }
}

/// The media of one request.
#[derive(Debug, Clone, Default)]
pub struct Media {
    takes: Takes,
    pub(super) parts: Vec<MediaPart>,
    pub(super) options: MediaOptions,
    /// Which frames of a video the model is used to.
    pub(super) frames: vllm_media::Sampling,
    /// The parts, fetched and decoded: all of them or none yet.
    pub(super) loaded: Vec<Medium>,
    /// When that was.
    pub(super) took: Option<(Instant, Instant)>,
}

/// Key by which a part of a message names what stands there, in [`Media`].
const INDEX: &str = "media";

impl Media {
    /// None yet, for this model.
    #[must_use]
    pub fn of(model: &ServedModel, config: &HttpConfig) -> Self {
        let (images, videos) = model.media();
        let media = Self::new(Takes { images, videos, limits: config.media });
        Self { frames: config.sampling.over(model.frames()), ..media }
    }

    /// None yet, for a model that takes these.
    #[must_use]
    pub fn new(takes: Takes) -> Self {
        Self { takes, ..Self::default() }
    }

    /// The same, read as the request says.
    #[must_use]
    pub fn with_options(self, options: MediaOptions) -> Self {
        Self { options, ..self }
    }

    /// Takes a part of type `name` that stands at `at`, in a message of this role. Returns what is to stand there.
    ///
    /// # Errors
    /// 400 naming the field at fault, or the part, if the model doesn't take it.
    pub fn take(&mut self, at: &str, role: &str, name: &str, part: Fields) -> Result<Value, ApiError> {
        let Some(kind) = Kind::of_part(name) else {
            return Err(ApiError::field(at, format!("{at} is of type {name:?}: it must be text")));
        };
        self.check(at, name, kind)?;
        self.check_role(at, role, kind)?;
        let part = part::read(at, name, kind, part)?;
        self.push(part)
    }

    /// Adds a part that was understood. Returns what is to stand in its place.
    ///
    /// # Errors
    /// 400 if there are too many.
    pub fn push(&mut self, part: MediaPart) -> Result<Value, ApiError> {
        let kind = part.given.kind();
        let before = self.parts.iter().filter(|part| part.given.kind() == kind).count();
        let most = self.takes.limits.of(kind);
        if before >= most {
            let (at, name) = (&part.at, kind.name());
            let message =
                format!("{at} is {name} number {}: a prompt may have {most} here (--limit-mm-per-prompt)", before + 1);
            return Err(ApiError::field(at, message).with_code("too_many_media"));
        }
        self.parts.push(part);
        Ok(json!({ "type": kind.name(), INDEX: self.parts.len() - 1 }))
    }

    /// Refuses what the model doesn't take.
    ///
    /// # Errors
    /// 400 naming the part.
    pub fn check(&self, at: &str, name: &str, kind: Kind) -> Result<(), ApiError> {
        if match kind {
            Kind::Image => self.takes.images,
            Kind::Video => self.takes.videos,
        } {
            return Ok(());
        }
        Err(ApiError::unsupported(at, format!("{at} is of type {name}: this model takes {} only", self.takes)))
    }

    /// What the model takes.
    #[must_use]
    pub fn takes(&self) -> Takes {
        self.takes
    }

    fn check_role(&self, at: &str, role: &str, kind: Kind) -> Result<(), ApiError> {
        if matches!(role, "user" | "tool" | "function") {
            return Ok(());
        }
        let message =
            format!("{at} is of type {}: it may stand in messages of the user and of tools only", kind.name());
        Err(ApiError::unsupported(at, message))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// All of them.
    #[must_use]
    pub fn parts(&self) -> &[MediaPart] {
        &self.parts
    }
}

impl Given {
    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Image { .. } => Kind::Image,
            Self::Video { .. } | Self::Frames { .. } => Kind::Video,
        }
    }
}

/// Messages as templates want them, and the media in them by their numbers, in order.
#[must_use]
pub fn place(messages: &[Value]) -> (Vec<Value>, Vec<usize>) {
    let mut order = Vec::new();
    let mut messages = messages.to_vec();
    let contents = messages.iter_mut().filter_map(|message| message.get_mut("content")?.as_array_mut());
    for part in contents.flatten().filter_map(Value::as_object_mut) {
        let index = part.remove(INDEX).and_then(|index| index.as_u64());
        order.extend(index.and_then(|index| usize::try_from(index).ok()));
    }
    (messages, order)
}
