//! PNG.

use std::io::Cursor;

use image::{ImageDecoder as _, codecs::png::PngDecoder};

use super::{Raster, decoding};
use crate::{Limits, MediaError, MediaErrorKind};

/// What the decoder may take beside the pixels: a row or two, metadata.
const SLACK: u64 = 4 << 20;

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Raster, MediaError> {
    super::still::read("PNG", open(bytes, limits)?)
}

/// A decoder that takes no more memory than the picture's size gives reason for.
pub(crate) fn open<'a>(bytes: &'a [u8], limits: &Limits) -> Result<PngDecoder<Cursor<&'a [u8]>>, MediaError> {
    // The decoder wants its limits before it has read the header.
    let (width, height) = size(bytes)
        .ok_or_else(|| MediaError::new(MediaErrorKind::Invalid, "this PNG can't be read: it has no header"))?;
    let pixels = limits.check_size("a PNG", width, height)?;
    let mut allowed = image::Limits::default();
    allowed.max_alloc = Some(pixels * 16 + SLACK);
    let decoder = PngDecoder::with_limits(Cursor::new(bytes), allowed).map_err(|error| decoding("PNG", &error))?;
    debug_assert_eq!(decoder.dimensions(), (width, height));
    Ok(decoder)
}

/// Width and height, which stand at a fixed place.
fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    let header = bytes.get(8..24)?.strip_prefix(b"\0\0\0\x0dIHDR")?;
    let (width, height) = header.split_first_chunk()?;
    Some((u32::from_be_bytes(*width), u32::from_be_bytes(height.try_into().ok()?)))
}
