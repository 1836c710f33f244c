//! Parts of messages that are images or videos, in all forms that clients send.

use serde_json::Value;
use vllm_media::{Detail, Source};

use super::{load::media_error, options::Sampling, taken::Kind};
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
        source: Source,
        /// How closely it is to be looked at.
        detail: Detail,
    },
    /// A file with a video, or an animated image.
    Video {
        /// Where it is to be had.
        source: Source,
        /// Which of its frames are wanted.
        sampling: Sampling,
    },
    /// A video as a list of images.
    Frames {
        /// Where they are to be had, in their order.
        sources: Vec<Source>,
        /// Which of them are wanted; `fps` is how fast they follow each other.
        sampling: Sampling,
    },
}

/// Takes `detail`.
///
/// # Errors
/// 400 for what OpenAI doesn't have either.
pub fn take_detail(fields: &mut Fields) -> Result<Option<Detail>, ApiError> {
    match fields.string("detail")?.as_deref() {
        None => Ok(None),
        Some("auto") => Ok(Some(Detail::Auto)),
        Some("low") => Ok(Some(Detail::Low)),
        Some("high") => Ok(Some(Detail::High)),
        Some(other) => {
            let param = fields.path("detail");
            Err(ApiError::field(&param, format!("{param} is {other:?}: it must be auto, low or high")))
        }
    }
}

/// Reads where something is to be had: a URL, a path, or base64 by itself. Takes time for what is there already.
///
/// # Errors
/// 400 for what is none of these.
pub fn read_source(at: &str, text: &str) -> Result<Source, ApiError> {
    if text.trim().is_empty() {
        return Err(ApiError::field(at, format!("{at} is empty")));
    }
    Source::parse(text).map_err(|error| media_error(at, &error))
}

/// The same for what is base64 and nothing else.
///
/// # Errors
/// As above.
pub fn read_base64(at: &str, text: &str) -> Result<Source, ApiError> {
    if text.trim().is_empty() {
        return Err(ApiError::field(at, format!("{at} is empty")));
    }
    Source::parse(&format!("data:;base64,{text}")).map_err(|error| media_error(at, &error))
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
    let mut detail = take_detail(&mut fields)?;
    let source = match content {
        Value::String(text) if matches!(key, "base64" | "data") && !text.starts_with("data:") => {
            read_base64(&inner, &text)?
        }
        Value::String(text) => read_source(&inner, &text)?,
        Value::Object(map) => {
            let mut nested = Fields::within(&inner, map);
            detail = take_detail(&mut nested)?.or(detail);
            sampling = Sampling::take(&mut nested, "fps", "max_frames")?.or(sampling);
            let source = read_nested(&inner, &mut nested)?;
            nested.finish();
            source
        }
        Value::Array(frames) if kind == Kind::Video => {
            if frames.is_empty() {
                return Err(ApiError::field(&inner, format!("{inner} is empty: there must be a frame at least")));
            }
            let frame = |(index, frame)| read_frame(&format!("{inner}[{index}]"), frame);
            let sources = frames.into_iter().enumerate().map(frame).collect::<Result<_, _>>()?;
            fields.finish();
            return Ok(MediaPart { at: at.to_owned(), given: Given::Frames { sources, sampling } });
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
        Kind::Image => Given::Image { source, detail: detail.unwrap_or_default() },
        Kind::Video => Given::Video { source, sampling },
    };
    Ok(MediaPart { at: at.to_owned(), given })
}

/// `{"url": …}`, and other names for it.
fn read_nested(at: &str, fields: &mut Fields) -> Result<Source, ApiError> {
    if let Some(url) = fields.string("url")? {
        return read_source(&format!("{at}.url"), &url);
    }
    for name in ["base64", "data"] {
        if let Some(text) = fields.string(name)? {
            return read_base64(&format!("{at}.{name}"), &text);
        }
    }
    Err(ApiError::field(at, format!("{at} has no url")))
}

/// A frame: a string, or an object as an image's.
fn read_frame(at: &str, frame: Value) -> Result<Source, ApiError> {
    match frame {
        Value::String(text) => read_source(at, &text),
        Value::Object(map) => {
            let mut fields = Fields::within(at, map);
            fields.string("type")?;
            match fields.value("image_url").or_else(|| fields.value("image")) {
                Some(inner) => read_frame(&format!("{at}.image_url"), inner),
                None => read_nested(at, &mut fields),
            }
        }
        other => {
            Err(ApiError::field(at, format!("{at} is {}: it must be a string or an object with a url", show(&other))))
        }
    }
}
