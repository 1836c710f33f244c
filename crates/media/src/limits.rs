//! How much may come from outside.

use std::time::Duration;

use crate::{MediaError, MediaErrorKind};

/// What a picture or video may cost. Everything here is checked before the memory is taken or the work is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Bytes of a picture's file.
    pub image_bytes: usize,
    /// Bytes of a video's file.
    pub video_bytes: usize,
    /// Pixels of a picture, or of a frame. While it is decoded a pixel takes up to 16 bytes.
    pub pixels: u64,
    /// Pixels of all frames that are kept of a video. Each takes 3 bytes.
    pub video_pixels: u64,
    /// Frames that may be asked of a video.
    pub frames: usize,
    /// For a fetch, from looking up the name to the last byte.
    pub fetch_time: Duration,
    /// For the frames of a video.
    pub decode_time: Duration,
    /// Files that are decoded at the same time.
    pub decodes: usize,
}

impl Default for Limits {
    /// A photo of 100 megapixels; a video of half a gigabyte, of which 64 frames are seen at 2560×1440, or 768 at 854×480.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            image_bytes: 64 << 20,
            video_bytes: 512 << 20,
            pixels: 100_000_000,
            video_pixels: 320_000_000,
            frames: 768,
            fetch_time: Duration::from_secs(30),
            decode_time: Duration::from_secs(60),
            decodes: cores.clamp(1, 4),
        }
    }
}

impl Limits {
    /// `what` of these measures, if that isn't too large; its pixels.
    ///
    /// # Errors
    /// [`MediaErrorKind::TooLarge`], or [`MediaErrorKind::Invalid`] for one without pixels.
    pub(crate) fn check_size(&self, what: &str, width: u32, height: u32) -> Result<u64, MediaError> {
        let pixels = u64::from(width) * u64::from(height);
        if pixels == 0 {
            return Err(MediaError::new(MediaErrorKind::Invalid, format!("{what} of {width}×{height} has no pixels")));
        }
        if pixels > self.pixels {
            let message =
                format!("{what} of {width}×{height} is too large: {pixels} pixels, {} are allowed", self.pixels);
            return Err(MediaError::new(MediaErrorKind::TooLarge, message));
        }
        Ok(pixels)
    }
}

/// # Errors
/// [`MediaErrorKind::TooLarge`] for a file of more than `allowed` bytes, [`MediaErrorKind::Invalid`] for one of none.
pub(crate) fn check_bytes(what: &str, bytes: usize, allowed: usize) -> Result<(), MediaError> {
    if bytes == 0 {
        return Err(MediaError::new(MediaErrorKind::Invalid, format!("the {what} is empty")));
    }
    if bytes > allowed {
        return Err(too_many_bytes(what, allowed));
    }
    Ok(())
}

pub(crate) fn too_many_bytes(what: &str, allowed: usize) -> MediaError {
    MediaError::new(MediaErrorKind::TooLarge, format!("the {what} is too large: {allowed} bytes are allowed"))
}
