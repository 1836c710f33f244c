//! JPEG, by `zune-jpeg` itself: the `image` crate's adapter copies the file, and fills up truncated ones with gray.

use image::{ColorType, metadata::Orientation};
use zune_jpeg::{
    JpegDecoder,
    errors::DecodeErrors,
    zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions},
};

use super::{Raster, truncated};
use crate::{Limits, MediaError, MediaErrorKind};

/// Scans of a progressive picture. Encoders write about ten; each costs a pass over the whole picture.
const MAX_SCANS: usize = 100;

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Raster, MediaError> {
    // Not strict: strangeness between segments, which libjpeg passes over too, is no reason to refuse a photo.
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_max_scans(MAX_SCANS)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|error| damaged(&error))?;
    let (width, height) = decoder.dimensions().unwrap_or_default();
    let [width, height] = [width, height].map(|side| u32::try_from(side).unwrap_or(u32::MAX));
    limits.check_size("a JPEG", width, height)?;
    // Whether its last byte has come is not the decoder's question: what is missing it would paint gray.
    if !has_end(bytes) {
        return Err(truncated("JPEG"));
    }
    let orientation = decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
    let mut pixels = vec![0; decoder.output_buffer_size().unwrap_or_default()];
    decoder.decode_into(&mut pixels).map_err(|error| damaged(&error))?;
    let orientation = orientation.unwrap_or(Orientation::NoTransforms);
    Ok(Raster { width, height, colour: ColorType::Rgb8, pixels, orientation })
}

fn damaged(error: &DecodeErrors) -> MediaError {
    let kind = match error {
        DecodeErrors::Unsupported(_) => MediaErrorKind::Unsupported,
        _ => MediaErrorKind::Invalid,
    };
    // What a library says about a file is long at times, and shows what it should have written for itself.
    let message = error.to_string();
    MediaError::new(kind, format!("this JPEG can't be read: {}", message.lines().next().unwrap_or_default().trim()))
}

/// Whether there is an end marker behind the first scan's beginning. (Before it, one may stand in a thumbnail.)
fn has_end(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xff, marker, ..]) = bytes.get(at..) {
        match marker {
            0xff => at += 1,
            0xda => break,
            _ => {
                let Some(&[high, low]) = bytes.get(at + 2..at + 4) else { return false };
                at += 2 + usize::from(u16::from_be_bytes([high, low]));
            }
        }
    }
    // Also where the walk ended at something strange, which the decoder may pass over. From the back: there it mostly is.
    bytes.get(at..).is_some_and(|scans| scans.windows(2).rev().any(|pair| pair == [0xff, 0xd9]))
}
