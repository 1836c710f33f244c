//! The frames of animations as they stand in their files: parts of a picture, to be painted over each other.

use std::{io::Cursor, iter};

use gif::{ColorOutput, DecodeOptions, DisposalMethod, MemoryLimit};
use png::{BlendOp, DisposeOp, Transformations};

use super::canvas::{Dispose, Layer};
use crate::{
    Limits, MediaError, MediaErrorKind,
    decode::{png_header, webp_rgba},
};

/// Frames, as they come. After an error there are no more.
pub(super) type Layers<'a> = Box<dyn Iterator<Item = Result<Layer, MediaError>> + 'a>;

/// The canvas' width and height, and the frames.
pub(super) type Animation<'a> = (u32, u32, Layers<'a>);

fn damaged(format: &str, error: impl std::fmt::Display) -> MediaError {
    MediaError::new(MediaErrorKind::Invalid, format!("this {format} can't be read: {error}"))
}

pub(super) fn gif<'a>(bytes: &'a [u8], limits: &'a Limits) -> Result<Animation<'a>, MediaError> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::RGBA);
    // We look at each frame's size before its pixels.
    options.set_memory_limit(MemoryLimit::Unlimited);
    let mut decoder = options.read_info(Cursor::new(bytes)).map_err(|error| damaged("GIF", error))?;
    let (width, height) = (u32::from(decoder.width()), u32::from(decoder.height()));
    limits.check_size("a GIF", width, height)?;
    let mut next = move || -> Result<Option<Layer>, MediaError> {
        let Some(frame) = decoder.next_frame_info().map_err(|error| damaged("GIF", error))? else { return Ok(None) };
        let (left, top, width) = (usize::from(frame.left), usize::from(frame.top), usize::from(frame.width));
        let dispose = match frame.dispose {
            DisposalMethod::Any | DisposalMethod::Keep => Dispose::Keep,
            DisposalMethod::Background => Dispose::Clear,
            DisposalMethod::Previous => Dispose::Restore,
        };
        limits.check_size("a GIF's frame", frame.width.into(), frame.height.into())?;
        let mut rgba = vec![0; decoder.buffer_size()];
        decoder.read_into_buffer(&mut rgba).map_err(|error| damaged("GIF", error))?;
        Ok(Some(Layer { left, top, width, rgba, blend: true, dispose }))
    };
    Ok((width, height, Box::new(iter::from_fn(move || next().transpose()))))
}

/// `None` for a PNG that isn't animated.
pub(super) fn png<'a>(bytes: &'a [u8], limits: &'a Limits) -> Result<Option<Animation<'a>>, MediaError> {
    let (width, height, allowed) = png_header(bytes, limits)?;
    let allowed = png::Limits { bytes: usize::try_from(allowed).unwrap_or(usize::MAX) };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), allowed);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(Transformations::STRIP_16 | Transformations::ALPHA);
    let mut reader = decoder.read_info().map_err(|error| damaged("PNG", error))?;
    let Some(control) = reader.info().animation_control() else { return Ok(None) };
    let mut left = control.num_frames;
    // A picture for those who don't know animations.
    let mut has_still = reader.info().frame_control().is_none();
    // No frame is larger than the canvas.
    let mut buffer = vec![0; reader.output_buffer_size().unwrap_or_default()];
    let mut next = move || -> Result<Option<Layer>, MediaError> {
        if std::mem::take(&mut has_still) {
            reader.next_frame(&mut buffer).map_err(|error| damaged("PNG", error))?;
        }
        if left == 0 {
            return Ok(None);
        }
        left -= 1;
        let frame = reader.next_frame(&mut buffer).map_err(|error| damaged("PNG", error))?;
        let control =
            reader.info().frame_control().ok_or_else(|| damaged("PNG", "a frame says nothing about itself"))?;
        let pixels = frame.width as usize * frame.height as usize;
        let rgba = match frame.color_type {
            png::ColorType::GrayscaleAlpha => {
                let grays = buffer[..pixels * 2].chunks_exact(2);
                grays.flat_map(|pixel| [pixel[0], pixel[0], pixel[0], pixel[1]]).collect()
            }
            png::ColorType::Rgba => buffer[..pixels * 4].to_vec(),
            other => return Err(damaged("PNG", format_args!("its frames are {other:?}"))),
        };
        let dispose = match control.dispose_op {
            DisposeOp::None => Dispose::Keep,
            DisposeOp::Background => Dispose::Clear,
            DisposeOp::Previous => Dispose::Restore,
        };
        let (left, top) = (control.x_offset as usize, control.y_offset as usize);
        let blend = control.blend_op == BlendOp::Over;
        Ok(Some(Layer { left, top, width: frame.width as usize, rgba, blend, dispose }))
    };
    Ok(Some((width, height, Box::new(iter::from_fn(move || next().transpose())))))
}

/// `None` for a WebP that isn't animated.
pub(super) fn webp<'a>(bytes: &'a [u8], limits: &'a Limits) -> Result<Option<Animation<'a>>, MediaError> {
    // An animated file's first chunk: flags, then width and height less one.
    let Some(&[_, _, _, _, flags, _, _, _, a, b, c, d, e, f]) =
        bytes.get(12..30).and_then(|start| start.strip_prefix(b"VP8X"))
    else {
        return Ok(None);
    };
    if flags & 2 == 0 {
        return Ok(None);
    }
    let (width, height) = (less_one([a, b, c]), less_one([d, e, f]));
    limits.check_size("a WebP", width, height)?;
    let frames = chunks(&bytes[12..]).filter_map(|(name, frame)| (name == *b"ANMF").then_some(frame));
    Ok(Some((width, height, Box::new(frames.map(|frame| webp_layer(frame, limits))))))
}

/// Place, size, milliseconds and flags, and then the chunks of a file of its own.
fn webp_layer(frame: &[u8], limits: &Limits) -> Result<Layer, MediaError> {
    let short = || damaged("WebP", "a frame is too short");
    let (&[x, x1, x2, y, y1, y2, w, w1, w2, h, h1, h2, _, _, _, flags], data) =
        frame.split_first_chunk().ok_or_else(short)?;
    let [left, top] = [[x, x1, x2, 0], [y, y1, y2, 0]].map(|half| u32::from_le_bytes(half) as usize * 2);
    let (width, height) = (less_one([w, w1, w2]), less_one([h, h1, h2]));
    limits.check_size("a WebP's frame", width, height)?;
    let is_pixels = |name: &[u8; 4]| matches!(name, b"ALPH" | b"VP8 " | b"VP8L");
    let has_alpha = chunks(data).any(|(name, _)| name == *b"ALPH");
    let mut file = b"RIFF\0\0\0\0WEBP".to_vec();
    if has_alpha {
        // Only with this head a transparency of its own is looked for.
        file.extend_from_slice(&[b'V', b'P', b'8', b'X', 10, 0, 0, 0, 0x10, 0, 0, 0, w, w1, w2, h, h1, h2]);
    }
    for (name, pixels) in chunks(data).filter(|(name, _)| is_pixels(name)) {
        file.extend_from_slice(&name);
        file.extend_from_slice(&u32::try_from(pixels.len()).unwrap_or(u32::MAX).to_le_bytes());
        file.extend_from_slice(pixels);
        file.resize(file.len().next_multiple_of(2), 0);
    }
    let size = u32::try_from(file.len() - 8).unwrap_or(u32::MAX);
    file[4..8].copy_from_slice(&size.to_le_bytes());
    let (rgba, size) = webp_rgba(&file, limits)?;
    if size != (width, height) {
        return Err(damaged("WebP", "a frame is not as large as it says"));
    }
    let dispose = if flags & 1 == 1 { Dispose::Clear } else { Dispose::Keep };
    Ok(Layer { left, top, width: width as usize, rgba, blend: flags & 2 == 0, dispose })
}

fn less_one([a, b, c]: [u8; 3]) -> u32 {
    u32::from_le_bytes([a, b, c, 0]) + 1
}

/// The chunks of a WebP: name, length, data, padded to an even length. One that breaks off is the last.
pub(super) fn chunks(mut bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    iter::from_fn(move || {
        let (name, rest) = bytes.split_first_chunk::<4>()?;
        let (length, data) = rest.split_first_chunk()?;
        let length = (u32::from_le_bytes(*length) as usize).min(data.len());
        bytes = data.get(length.next_multiple_of(2)..).unwrap_or_default();
        Some((*name, &data[..length]))
    })
}
