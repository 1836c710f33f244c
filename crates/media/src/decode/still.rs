//! WebP, GIF, BMP and TIFF.

use std::io::Cursor;

use image::{
    ColorType, ImageDecoder,
    codecs::{bmp::BmpDecoder, gif::GifDecoder, tiff::TiffDecoder, webp::WebPDecoder},
    metadata::Orientation,
};

use super::{Raster, decoding, truncated};
use crate::{Limits, MediaError, MediaErrorKind};

pub(super) fn webp(bytes: &[u8], limits: &Limits) -> Result<Raster, MediaError> {
    check_webp(bytes)?;
    let decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(|error| decoding("WebP", &error))?;
    read("WebP", bounded("WebP", decoder, limits)?)
}

/// # Errors
/// If the file is shorter than it says: where a chunk is cut off the decoder gives what it has got.
pub(crate) fn check_webp(bytes: &[u8]) -> Result<(), MediaError> {
    let size = bytes[4..8].try_into().map_or(0, u32::from_le_bytes) as usize;
    if size > bytes.len() - 8 { Err(truncated("WebP")) } else { Ok(()) }
}

/// The pixels of a WebP that doesn't move, [height, width, 4], and its width and height.
pub(crate) fn webp_rgba(bytes: &[u8], limits: &Limits) -> Result<(Vec<u8>, (u32, u32)), MediaError> {
    let Raster { width, height, colour, pixels, .. } = webp(bytes, limits)?;
    let rgba = match colour {
        ColorType::Rgba8 => pixels,
        _ => pixels.chunks_exact(3).flat_map(|rgb| [rgb[0], rgb[1], rgb[2], 255]).collect(),
    };
    Ok((rgba, (width, height)))
}

pub(super) fn gif(bytes: &[u8], limits: &Limits) -> Result<Raster, MediaError> {
    let decoder = GifDecoder::new(Cursor::new(bytes)).map_err(|error| decoding("GIF", &error))?;
    read("GIF", bounded("GIF", decoder, limits)?)
}

pub(super) fn bmp(bytes: &[u8], limits: &Limits) -> Result<Raster, MediaError> {
    let decoder = BmpDecoder::new(Cursor::new(bytes)).map_err(|error| decoding("BMP", &error))?;
    read("BMP", bounded("BMP", decoder, limits)?)
}

pub(super) fn tiff(bytes: &[u8], limits: &Limits) -> Result<Raster, MediaError> {
    let decoder = TiffDecoder::new(Cursor::new(bytes)).map_err(|error| decoding("TIFF", &error))?;
    if matches!(decoder.color_type(), ColorType::Rgb32F | ColorType::Rgba32F) {
        let message = "this TIFF can't be read: its channels are floats, and nothing says which of them is white";
        return Err(MediaError::new(MediaErrorKind::Unsupported, message));
    }
    read("TIFF", bounded("TIFF", decoder, limits)?)
}

/// A decoder whose picture is of an allowed size, and which takes no more memory than that gives reason for.
fn bounded<D: ImageDecoder>(format: &str, mut decoder: D, limits: &Limits) -> Result<D, MediaError> {
    let (width, height) = decoder.dimensions();
    let pixels = limits.check_size(&format!("a {format}"), width, height)?;
    let mut allowed = image::Limits::default();
    allowed.max_alloc = Some(pixels * 16 + (4 << 20));
    decoder.set_limits(allowed).map_err(|error| decoding(format, &error))?;
    Ok(decoder)
}

/// All of a picture.
pub(super) fn read<D: ImageDecoder>(format: &str, mut decoder: D) -> Result<Raster, MediaError> {
    let (width, height) = decoder.dimensions();
    let colour = decoder.color_type();
    // Metadata that can't be read is no reason to refuse the pixels.
    let orientation = orientation(&mut decoder);
    let mut pixels = vec![0; usize::try_from(decoder.total_bytes()).unwrap_or(usize::MAX)];
    decoder.read_image(&mut pixels).map_err(|error| decoding(format, &error))?;
    Ok(Raster { width, height, colour, pixels, orientation })
}

fn orientation<D: ImageDecoder>(decoder: &mut D) -> Orientation {
    // Some writers put JPEG's prefix before the EXIF data of a WebP.
    let prefixed = match decoder.exif_metadata() {
        Ok(Some(exif)) => exif.strip_prefix(b"Exif\0\0").and_then(Orientation::from_exif_chunk),
        _ => None,
    };
    prefixed.or_else(|| decoder.orientation().ok()).unwrap_or(Orientation::NoTransforms)
}
