//! Animated GIF, WebP and PNG, without help from outside.

use std::{io::Cursor, time::Instant};

use image::{AnimationDecoder, ColorType, Frames, codecs::gif::GifDecoder};

use super::{Sampling, delays::Delays, sample_indices, timed_out};
use crate::{
    Frame, Limits, MediaError, MediaErrorKind, Picture, PictureFormat, Video,
    decode::{bounded, decoding, open_png, open_webp, to_rgb},
};

/// The sampled frames of an animation, each as it is seen: laid over what the frames before left, on white.
pub(super) fn decode(
    format: PictureFormat,
    bytes: &[u8],
    sampling: &Sampling,
    limits: &Limits,
) -> Result<Video, MediaError> {
    match format {
        PictureFormat::Gif => {
            let decoder = GifDecoder::new(Cursor::new(bytes)).map_err(|error| decoding("GIF", &error))?;
            let decoder = bounded("GIF", decoder, limits)?;
            choose(format, decoder.into_frames(), &Delays::of_gif(bytes)?, sampling, limits)
        }
        PictureFormat::WebP => {
            let decoder = open_webp(bytes, limits)?;
            if !decoder.has_animation() {
                return Err(still(format));
            }
            choose(format, decoder.into_frames(), &Delays::of_webp(bytes)?, sampling, limits)
        }
        PictureFormat::Png => {
            let decoder = open_png(bytes, limits)?;
            if !decoder.is_apng().map_err(|error| decoding("PNG", &error))? {
                return Err(still(format));
            }
            let frames = decoder.apng().map_err(|error| decoding("PNG", &error))?.into_frames();
            choose(format, frames, &Delays::of_png(bytes)?, sampling, limits)
        }
        PictureFormat::Jpeg | PictureFormat::Bmp | PictureFormat::Tiff => Err(still(format)),
    }
}

fn still(format: PictureFormat) -> MediaError {
    let message = format!("this {format} is a picture that doesn't move: send it as an image, not as a video");
    MediaError::new(MediaErrorKind::Invalid, message)
}

/// Decodes up to the last frame that is wanted, and keeps the wanted ones only.
fn choose(
    format: PictureFormat,
    frames: Frames<'_>,
    delays: &Delays,
    sampling: &Sampling,
    limits: &Limits,
) -> Result<Video, MediaError> {
    let wanted = sample_indices(delays.len(), delays.fps(), sampling);
    let deadline = Instant::now() + limits.decode_time;
    let mut wanted = wanted.into_iter().peekable();
    let mut kept = Vec::with_capacity(wanted.len());
    let mut budget = limits.video_pixels;
    let mut frames = frames.zip(delays.starts()).enumerate();
    while let Some(&next) = wanted.peek() {
        if Instant::now() > deadline {
            return Err(timed_out(limits));
        }
        let Some((index, (frame, at))) = frames.next() else {
            let message = format!("this {format} is truncated: frame {} of {} is missing", next + 1, delays.len());
            return Err(MediaError::new(MediaErrorKind::Invalid, message));
        };
        let frame = frame.map_err(|error| decoding(format.name(), &error))?.into_buffer();
        if index < next {
            continue;
        }
        wanted.next();
        let (width, height) = frame.dimensions();
        budget = super::spend(budget, width, height, limits)?;
        let picture = Picture::from_rgb(width, height, to_rgb(ColorType::Rgba8, frame.into_raw()));
        kept.push(Frame { picture, at });
    }
    Ok(Video { frames: kept })
}
