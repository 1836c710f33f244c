//! Files to frames.

mod animation;
mod canvas;
mod container;
mod delays;
mod ffmpeg;
mod layers;
mod process;
mod sample;

pub use self::sample::{Sampling, Spread, sample_indices};
pub(crate) use self::{animation::first_of_webp, container::Container};
use crate::{
    Frame, Limits, MediaError, MediaErrorKind, Picture, PictureFormat, Video, decode::contained, limits::check_bytes,
};

/// The frames of a video that `sampling` chooses.
///
/// Animated GIF, WebP and PNG are read here. Containers (MP4, MOV, Matroska, WebM, AVI, MPEG, FLV, Ogg, ASF) are read by an
/// `ffmpeg` program, which `VLLM_FFMPEG` names or which is on the `PATH`; nothing else of what it could read is given to it.
/// What the file is decides its content. Frames are laid on white where they are transparent, and turned upright.
///
/// # Errors
/// - [`MediaErrorKind::TooLarge`] for too many bytes, pixels of a frame or of all frames, or frames asked for.
/// - [`MediaErrorKind::Unsupported`] for other files, and for containers if there is no `ffmpeg`.
/// - [`MediaErrorKind::Invalid`] for damaged ones, for a picture that doesn't move, and for a rate of 0 or less.
/// - [`MediaErrorKind::Timeout`] if decoding takes longer than [`Limits::decode_time`].
pub fn decode_video(bytes: &[u8], sampling: &Sampling, limits: &Limits) -> Result<Video, MediaError> {
    sampling.check(limits)?;
    check_bytes("video", bytes.len(), limits.video_bytes)?;
    if let Some(format) = PictureFormat::of(bytes) {
        return contained(format.name(), || animation::decode(format, bytes, sampling, limits));
    }
    if let Some(container) = Container::of(bytes) {
        return ffmpeg::decode(container, bytes, sampling, limits);
    }
    let message = "this is no video that can be read: it begins like none of MP4, MOV, Matroska, WebM, AVI, MPEG, FLV, Ogg, \
                   ASF, nor like an animated GIF, WebP or PNG";
    Err(MediaError::new(MediaErrorKind::Unsupported, message))
}

impl Video {
    /// A video of frames that come one by one, all of them, `fps` a second; 2 if not given.
    ///
    /// ```
    /// use vllm_media::{Limits, Picture, Video};
    ///
    /// let frame = |gray: u8| Picture::from_rgb(2, 1, [gray; 6]);
    /// let video = Video::from_frames(vec![frame(0), frame(100)], Some(4.0), &Limits::default())?;
    /// assert_eq!(video.frames[1].at, 0.25);
    /// # Ok::<_, vllm_media::MediaError>(())
    /// ```
    ///
    /// # Errors
    /// [`MediaErrorKind::Invalid`] for none, for frames of several sizes or a rate of 0 or less;
    /// [`MediaErrorKind::TooLarge`] for more than are allowed.
    pub fn from_frames(pictures: Vec<Picture>, fps: Option<f64>, limits: &Limits) -> Result<Self, MediaError> {
        let invalid = |message: String| Err(MediaError::new(MediaErrorKind::Invalid, message));
        let fps = fps.unwrap_or(sample::FPS);
        if !(fps.is_finite() && fps > 0.0) {
            return invalid(format!("frames don't come {fps} a second"));
        }
        check_frames(pictures.len(), limits)?;
        let Some(first) = pictures.first() else { return invalid("the list of frames is empty".to_owned()) };
        let (width, height) = (first.width(), first.height());
        let mut budget = limits.video_pixels;
        for (index, picture) in pictures.iter().enumerate() {
            if (picture.width(), picture.height()) != (width, height) {
                let (other, tall) = (picture.width(), picture.height());
                let frame = index + 1;
                return invalid(format!("frame {frame} has {other}×{tall} pixels, the first has {width}×{height}"));
            }
            budget = spend(budget, width, height, limits)?;
        }
        let frames = pictures.into_iter().enumerate();
        Ok(Self { frames: frames.map(|(index, picture)| Frame { picture, at: index as f64 / fps }).collect() })
    }
}

/// # Errors
/// [`MediaErrorKind::TooLarge`] if so many frames of a list are more than allowed.
pub(crate) fn check_frames(frames: usize, limits: &Limits) -> Result<(), MediaError> {
    if frames > limits.frames {
        let message = format!("{frames} frames of a video are too many: {} are allowed", limits.frames);
        return Err(MediaError::new(MediaErrorKind::TooLarge, message));
    }
    Ok(())
}

/// What remains of a video's pixels after a frame.
fn spend(budget: u64, width: u32, height: u32, limits: &Limits) -> Result<u64, MediaError> {
    let pixels = limits.check_size("a frame", width, height)?;
    budget.checked_sub(pixels).ok_or_else(|| {
        let message = format!(
            "the frames of {width}×{height} are too large together: {} pixels are allowed; ask for fewer",
            limits.video_pixels
        );
        MediaError::new(MediaErrorKind::TooLarge, message)
    })
}

fn timed_out(limits: &Limits) -> MediaError {
    let message = format!("decoding the video took longer than {} s", limits.decode_time.as_secs_f64());
    MediaError::new(MediaErrorKind::Timeout, message)
}
