//! PNG.

use std::io::Cursor;

use image::codecs::png::PngDecoder;

use super::{Raster, decoding};
use crate::{Limits, MediaError, MediaErrorKind};

/// What the decoder may take beside the pixels: a row or two, metadata.
const SLACK: u64 = 4 << 20;

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Raster, MediaError> {
    let (_, _, memory) = header(bytes, limits)?;
    let mut allowed = image::Limits::default();
    allowed.max_alloc = Some(memory);
    let decoder = PngDecoder::with_limits(Cursor::new(bytes), allowed).map_err(|error| decoding("PNG", &error))?;
    super::still::read("PNG", decoder)
}

/// Width and height, if they are allowed, and the bytes of memory that they give reason for: a decoder wants to know before
/// it has read them.
pub(crate) fn header(bytes: &[u8], limits: &Limits) -> Result<(u32, u32, u64), MediaError> {
    let (width, height) = size(bytes)
        .ok_or_else(|| MediaError::new(MediaErrorKind::Invalid, "this PNG can't be read: it has no header"))?;
    let pixels = limits.check_size("a PNG", width, height)?;
    Ok((width, height, pixels * 16 + SLACK))
}

/// Width and height, which stand at a fixed place.
fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    let header = bytes.get(8..24)?.strip_prefix(b"\0\0\0\x0dIHDR")?;
    let (width, height) = header.split_first_chunk()?;
    Some((u32::from_be_bytes(*width), u32::from_be_bytes(height.try_into().ok()?)))
}
