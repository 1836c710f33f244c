//! What requests and operators say of media.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde_json::Value;

use super::taken::Kind;
use crate::http::{ApiError, Fields, fields::show};

/// Which frames of a video are wanted; what isn't said here, whoever is asked next says.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sampling {
    /// Frames a second.
    pub fps: Option<f64>,
    /// Most frames.
    pub max_frames: Option<usize>,
}

/// More frames a second than any film has.
const MAX_FPS: f32 = 240.0;

impl Sampling {
    /// Takes them under these names.
    ///
    /// # Errors
    /// 400 for wrong types, and for what isn't above 0.
    pub fn take(fields: &mut Fields, fps: &str, max_frames: &str) -> Result<Self, ApiError> {
        let rate = fields.number(fps)?;
        if let Some(rate) = rate.filter(|rate| !(*rate > 0.0 && *rate <= MAX_FPS)) {
            let param = fields.path(fps);
            let message = format!("{param} is {rate}: it must be above 0 and at most {MAX_FPS} frames a second");
            return Err(ApiError::field(&param, message));
        }
        let most = fields.integer(max_frames, 1..=i64::from(u32::MAX))?;
        Ok(Self { fps: rate.map(f64::from), max_frames: most.and_then(|most| usize::try_from(most).ok()) })
    }

    /// These where they say, in what is usual for a model.
    #[must_use]
    pub fn over(self, usual: vllm_media::Sampling) -> vllm_media::Sampling {
        vllm_media::Sampling { fps: self.fps.or(usual.fps), max_frames: self.max_frames.or(usual.max_frames), ..usual }
    }

    /// These, and `others` where these don't say.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self { fps: self.fps.or(others.fps), max_frames: self.max_frames.or(others.max_frames) }
    }
}

/// What a request says of all of its media.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MediaOptions {
    /// Which frames of videos that don't say themselves.
    pub sampling: Sampling,
}

impl MediaOptions {
    /// Takes the original's `video_fps` and `video_max_frames`, and vLLM's `mm_processor_kwargs` and `media_io_kwargs`, as far
    /// as they say the same.
    ///
    /// # Errors
    /// 400 for wrong types, and naming what can't be had.
    pub fn take(fields: &mut Fields) -> Result<Self, ApiError> {
        let mut sampling = Sampling::take(fields, "video_fps", "video_max_frames")?;
        if let Some(mut kwargs) = fields.object("media_io_kwargs")? {
            if let Some(mut video) = kwargs.object("video")? {
                sampling = sampling.or(Sampling::take(&mut video, "fps", "num_frames")?);
                refuse_rest(video)?;
            }
            refuse_rest(kwargs)?;
        }
        if let Some(mut kwargs) = fields.object("mm_processor_kwargs")? {
            sampling = sampling.or(Sampling::take(&mut kwargs, "fps", "max_frames")?);
            if kwargs.boolean("use_audio_in_video")?.unwrap_or(false) {
                let param = "mm_processor_kwargs.use_audio_in_video";
                return Err(ApiError::unsupported(param, format!("{param}: videos are seen here, not heard")));
            }
            refuse_rest(kwargs)?;
        }
        Ok(Self { sampling })
    }
}

/// Options of a processor change what a model sees: one that isn't known is an error.
fn refuse_rest(fields: Fields) -> Result<(), ApiError> {
    let path = fields.path("");
    match fields.into_map().into_iter().find(|(_, value)| !value.is_null()) {
        Some((name, _)) => {
            let param = format!("{path}{name}");
            Err(ApiError::unsupported(&param, format!("{param} can't be set by a request")))
        }
        None => Ok(()),
    }
}

/// Most media of one prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaLimits {
    /// Most images.
    pub images: usize,
    /// Most videos.
    pub videos: usize,
}

impl Default for MediaLimits {
    fn default() -> Self {
        Self { images: 32, videos: 4 }
    }
}

impl MediaLimits {
    /// Most of a kind.
    #[must_use]
    pub fn of(self, kind: Kind) -> usize {
        match kind {
            Kind::Image => self.images,
            Kind::Video => self.videos,
        }
    }
}

/// `image=16,video=1`.
impl fmt::Display for MediaLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "image={},video={}", self.images, self.videos)
    }
}

/// `image=16,video=1`, or the same as JSON, as vLLM has it; what isn't named is as by default.
impl FromStr for MediaLimits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let counts: BTreeMap<String, usize> = if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|error| format!("must be an object of numbers: {error}"))?
        } else {
            let count = |pair: &str| {
                let (name, count) =
                    pair.split_once('=').ok_or_else(|| format!("{pair:?} has no =: use image=16,video=1"))?;
                let count = count.trim().parse().map_err(|_| format!("{count:?} is no number"))?;
                Ok((name.trim().to_owned(), count))
            };
            text.split(',').map(count).collect::<Result<_, String>>()?
        };
        let mut limits = Self::default();
        for (name, count) in counts {
            match name.as_str() {
                "image" => limits.images = count,
                "video" => limits.videos = count,
                _ => return Err(format!("unknown kind {}: use image and video", show(&Value::from(name)))),
            }
        }
        Ok(limits)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn limits_in_every_form() {
        let limits = |images, videos| MediaLimits { images, videos };
        let cases = [
            ("image=16,video=1", Ok(limits(16, 1))),
            (" video = 0 ", Ok(MediaLimits { videos: 0, ..MediaLimits::default() })),
            (r#"{"image": 3}"#, Ok(MediaLimits { images: 3, ..MediaLimits::default() })),
            ("image", Err("\"image\" has no =: use image=16,video=1")),
            ("image=many", Err("\"many\" is no number")),
            ("audio=1", Err("unknown kind \"audio\": use image and video")),
        ];
        for (text, wanted) in cases {
            assert_eq!(text.parse::<MediaLimits>(), wanted.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn options_of_requests() {
        let cases = [
            ("nothing", json!({}), Ok((None, None))),
            ("the original's", json!({"video_fps": 2, "video_max_frames": 8}), Ok((Some(2.0), Some(8)))),
            ("vLLM's processor", json!({"mm_processor_kwargs": {"fps": 0.5}}), Ok((Some(0.5), None))),
            ("vLLM's reader", json!({"media_io_kwargs": {"video": {"num_frames": 4}}}), Ok((None, Some(4)))),
            (
                "the nearest says",
                json!({"video_fps": 2, "mm_processor_kwargs": {"fps": 1, "max_frames": 3}}),
                Ok((Some(2.0), Some(3))),
            ),
            (
                "none",
                json!({"video_max_frames": 0}),
                Err("video_max_frames is 0: it must be a whole number from 1 to 4294967295"),
            ),
            (
                "backwards",
                json!({"video_fps": -1}),
                Err("video_fps is -1: it must be above 0 and at most 240 frames a second"),
            ),
            (
                "not to be had",
                json!({"mm_processor_kwargs": {"max_pixels": 9}}),
                Err("mm_processor_kwargs.max_pixels can't be set by a request"),
            ),
            (
                "heard",
                json!({"mm_processor_kwargs": {"use_audio_in_video": true}}),
                Err("mm_processor_kwargs.use_audio_in_video: videos are seen here, not heard"),
            ),
            (
                "another kind",
                json!({"media_io_kwargs": {"audio": {}}}),
                Err("media_io_kwargs.audio can't be set by a request"),
            ),
        ];
        for (name, body, wanted) in cases {
            let taken = MediaOptions::take(&mut Fields::parse(body.to_string().as_bytes()).unwrap());
            let taken = taken.map(|taken| (taken.sampling.fps, taken.sampling.max_frames));
            assert_eq!(
                taken.as_ref().map_err(ApiError::message),
                wanted.as_ref().map_err(|&message| message),
                "{name}"
            );
        }
    }
}
