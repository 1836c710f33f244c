//! Parts of messages that are images or videos, in all forms that clients send.

use std::{fmt, sync::Arc};

use serde_json::Value;

use super::{options::Sampling, taken::Kind};
use crate::http::{ApiError, Fields, fields::show};

/// An image or a video that stands in a message.
#[derive(Debug, Clone, PartialEq)]
pub struct MediaPart {
    /// Where it stands in the body: `messages[0].content[1]`.
    pub at: String,
    /// What it is.
    pub given: Given,
}

/// What a client gave.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    /// An image.
    Image {
        /// Where it is to be had.
        place: Place,
        /// How closely it is to be looked at.
        detail: Detail,
    },
    /// A file with a video, or an animated image.
    Video {
        /// Where it is to be had.
        place: Place,
        /// Which of its frames are wanted.
        sampling: Sampling,
    },
    /// A video as a list of images.
    Frames {
        /// Where they are to be had, in their order.
        places: Vec<Place>,
        /// Which of them are wanted; `fps` is how fast they follow each other.
        sampling: Sampling,
    },
}

/// How closely an image is to be looked at, as OpenAI's `detail` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Detail {
    /// As the model has it.
    #[default]
    Auto,
    /// With few tokens.
    Low,
    /// As closely as the model can.
    High,
}

impl Detail {
    /// As OpenAI has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Low => "low",
            Self::High => "high",
        }
    }

    /// Takes `detail`.
    pub fn take(fields: &mut Fields, at: &str) -> Result<Self, ApiError> {
        match fields.string("detail")?.as_deref() {
            None | Some("auto") => Ok(Self::Auto),
            Some("low") => Ok(Self::Low),
            Some("high") => Ok(Self::High),
            Some(other) => {
                let param = format!("{at}.detail");
                Err(ApiError::field(&param, format!("{param} is {other:?}: it must be auto, low or high")))
            }
        }
    }
}

/// Where something is to be had. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    /// A URL of any scheme, a path, or base64 by itself.
    Any(Arc<str>),
    /// Base64, and nothing else.
    Base64(Arc<str>),
}

/// Without the megabytes.
impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, text) = match self {
            Self::Any(text) => ("Any", text),
            Self::Base64(text) => ("Base64", text),
        };
        write!(f, "{name}({})", show(&Value::from(&**text)))
    }
}

impl Place {
    /// A place that a client names in a string.
    pub fn any(at: &str, text: String) -> Result<Self, ApiError> {
        filled(at, text).map(Self::Any)
    }

    /// The content itself.
    pub fn base64(at: &str, text: String) -> Result<Self, ApiError> {
        filled(at, text).map(Self::Base64)
    }
}

fn filled(at: &str, text: String) -> Result<Arc<str>, ApiError> {
    if text.trim().is_empty() {
        return Err(ApiError::field(at, format!("{at} is empty")));
    }
    Ok(text.into())
}

/// Fields of Qwen's and vLLM's parts for what is the same for all requests here.
const FIXED: [&str; 8] = [
    "min_pixels",
    "max_pixels",
    "total_pixels",
    "resized_height",
    "resized_width",
    "nframes",
    "video_start",
    "video_end",
];

/// Reads a part of type `name`: OpenAI's `image_url` and `input_image`, vLLM's `video_url`, and `image` and `video` as Hugging
/// Face's templates and the original have them.
///
/// # Errors
/// 400 naming the field at fault.
pub fn read(at: &str, name: &str, kind: Kind, mut fields: Fields) -> Result<MediaPart, ApiError> {
    // A name for a cache; here the content is the name.
    fields.string("uuid")?;
    fields.object("cache_control")?;
    if fields.value("file_id").is_some() {
        let param = format!("{at}.file_id");
        let message = format!("{param}: this server keeps no files: send the image itself, or its URL");
        return Err(ApiError::unsupported(&param, message));
    }
    if let Some(field) = FIXED.into_iter().find(|&field| fields.value(field).is_some()) {
        let param = format!("{at}.{field}");
        let message =
            format!("{param} can't be set for one part: use fps and max_frames for videos, detail for images");
        return Err(ApiError::unsupported(&param, message));
    }
    // The content stands under the part's own name, or that of what it is.
    let (key, content) = [name, "image_url", "video_url", kind.name(), "url", "base64", "data", "path"]
        .into_iter()
        .find_map(|key| Some((key, fields.value(key)?)))
        .ok_or_else(|| {
            ApiError::field(at, format!("{at} has no {}", if name == "input_image" { "image_url" } else { name }))
        })?;
    let inner = format!("{at}.{key}");
    let mut sampling = Sampling::take(&mut fields, "fps", "max_frames")?;
    let mut detail = if kind == Kind::Image { Detail::take(&mut fields, at)? } else { Detail::Auto };
    let place = match content {
        Value::String(text) if matches!(key, "base64" | "data") && !text.starts_with("data:") => {
            Place::base64(&inner, text)?
        }
        Value::String(text) => Place::any(&inner, text)?,
        Value::Object(map) => {
            let mut nested = Fields::within(&inner, map);
            if kind == Kind::Image {
                detail = Detail::take(&mut nested, &inner)
                    .map(|given| if given == Detail::Auto { detail } else { given })?;
            }
            sampling = Sampling::take(&mut nested, "fps", "max_frames")?.or(sampling);
            let place = read_place(&inner, &mut nested)?;
            nested.finish();
            place
        }
        Value::Array(frames) if kind == Kind::Video => {
            if frames.is_empty() {
                return Err(ApiError::field(&inner, format!("{inner} is empty: there must be a frame at least")));
            }
            let frame = |(index, frame)| read_frame(&format!("{inner}[{index}]"), frame);
            let places = frames.into_iter().enumerate().map(frame).collect::<Result<_, _>>()?;
            fields.finish();
            return Ok(MediaPart { at: at.to_owned(), given: Given::Frames { places, sampling } });
        }
        other => {
            let forms = if kind == Kind::Video {
                "a string, an object with a url, or an array of frames"
            } else {
                "a string or an object with a url"
            };
            return Err(ApiError::field(&inner, format!("{inner} is {}: it must be {forms}", show(&other))));
        }
    };
    fields.finish();
    let given = match kind {
        Kind::Image => Given::Image { place, detail },
        Kind::Video => Given::Video { place, sampling },
    };
    Ok(MediaPart { at: at.to_owned(), given })
}

/// `{"url": …}`, and other names for it.
fn read_place(at: &str, fields: &mut Fields) -> Result<Place, ApiError> {
    if let Some(url) = fields.string("url")? {
        return Place::any(&format!("{at}.url"), url);
    }
    for name in ["base64", "data"] {
        if let Some(text) = fields.string(name)? {
            return Place::base64(&format!("{at}.{name}"), text);
        }
    }
    Err(ApiError::field(at, format!("{at} has no url")))
}

/// A frame: a string, or an object as an image's.
fn read_frame(at: &str, frame: Value) -> Result<Place, ApiError> {
    match frame {
        Value::String(text) => Place::any(at, text),
        Value::Object(map) => {
            let mut fields = Fields::within(at, map);
            fields.string("type")?;
            match fields.value("image_url").or_else(|| fields.value("image")) {
                Some(inner) => read_frame(&format!("{at}.image_url"), inner),
                None => read_place(at, &mut fields),
            }
        }
        other => {
            Err(ApiError::field(at, format!("{at} is {}: it must be a string or an object with a url", show(&other))))
        }
    }
}
