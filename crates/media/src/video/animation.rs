//! Animated GIF, WebP and PNG, without help from outside.

use std::time::Instant;

use image::ColorType;

use super::{Sampling, canvas::Canvas, delays::Delays, layers, layers::Animation, sample_indices, timed_out};
use crate::{
    Frame, Limits, MediaError, MediaErrorKind, Picture, PictureFormat, Video,
    decode::{check_webp, to_rgb},
};

/// The sampled frames of an animation, each as it is seen: laid over what the frames before left, on white.
pub(super) fn decode(
    format: PictureFormat,
    bytes: &[u8],
    sampling: &Sampling,
    limits: &Limits,
) -> Result<Video, MediaError> {
    let (animation, delays) = match format {
        PictureFormat::Gif => (Some(layers::gif(bytes, limits)?), Delays::of_gif as fn(&[u8]) -> _),
        PictureFormat::WebP => {
            check_webp(bytes)?;
            (layers::webp(bytes, limits)?, Delays::of_webp as _)
        }
        PictureFormat::Png => (layers::png(bytes, limits)?, Delays::of_png as _),
        PictureFormat::Jpeg | PictureFormat::Bmp | PictureFormat::Tiff => (None, Delays::of_png as _),
    };
    let Some(animation) = animation else {
        let message = format!("this {format} is a picture that doesn't move: send it as an image, not as a video");
        return Err(MediaError::new(MediaErrorKind::Invalid, message));
    };
    choose(format, animation, &delays(bytes)?, sampling, limits)
}

/// The first frame of an animated WebP; `None` for one that isn't.
pub(crate) fn first_of_webp(bytes: &[u8], limits: &Limits) -> Result<Option<Picture>, MediaError> {
    let Some((width, height, mut layers)) = layers::webp(bytes, limits)? else { return Ok(None) };
    let first = layers.next().ok_or_else(|| MediaError::new(MediaErrorKind::Invalid, "this WebP has no frames"))??;
    let mut canvas = Canvas::new(width, height);
    canvas.paint(&first);
    Ok(Some(Picture::from_rgb(width, height, to_rgb(ColorType::Rgba8, canvas.rgba().to_vec()))))
}

/// Decodes up to the last frame that is wanted, and keeps the wanted ones only.
fn choose(
    format: PictureFormat,
    (width, height, mut layers): Animation<'_>,
    delays: &Delays,
    sampling: &Sampling,
    limits: &Limits,
) -> Result<Video, MediaError> {
    let deadline = Instant::now() + limits.decode_time;
    let mut wanted = sample_indices(delays.len(), delays.fps(), sampling).into_iter().peekable();
    let mut kept = Vec::with_capacity(wanted.len());
    let mut budget = limits.video_pixels;
    let mut canvas = Canvas::new(width, height);
    for (index, at) in delays.starts().enumerate() {
        let Some(&next) = wanted.peek() else { break };
        if Instant::now() > deadline {
            return Err(timed_out(limits));
        }
        let Some(layer) = layers.next() else {
            let message = format!("this {format} is truncated: frame {} of {} is missing", index + 1, delays.len());
            return Err(MediaError::new(MediaErrorKind::Invalid, message));
        };
        canvas.paint(&layer?);
        if index == next {
            wanted.next();
            budget = super::spend(budget, width, height, limits)?;
            let picture = Picture::from_rgb(width, height, to_rgb(ColorType::Rgba8, canvas.rgba().to_vec()));
            kept.push(Frame { picture, at });
        }
    }
    Ok(Video { frames: kept })
}
