//! Files to pictures.

mod colour;
mod format;
mod jpeg;
mod png;
mod still;
mod upright;

use std::panic::{AssertUnwindSafe, catch_unwind};

use image::{ColorType, ImageError, metadata::Orientation};

pub use self::format::PictureFormat;
pub(crate) use self::{
    colour::to_rgb,
    png::header as png_header,
    still::{check_webp, webp_rgba},
};
use crate::{Limits, MediaError, MediaErrorKind, Picture, limits::check_bytes, video::first_of_webp};

/// Reads a picture: PNG, JPEG, WebP, GIF (its first frame), BMP or TIFF (its first page), whatever it calls itself.
///
/// The result is upright (EXIF orientation is applied), opaque and of 8 bits a channel:
/// - Transparent pixels are laid on white. Pillow's plain `convert("RGB")` drops the alpha channel instead and shows whatever
///   colour is hidden there, mostly black; the `convert_to_rgb` of transformers' processors, Qwen's and Mistral's own
///   preprocessing lay it on white as we do.
/// - Of 16 bits the upper 8 remain, as libpng has it. Pillow agrees for RGB; 16-bit grays it cuts at 255, which makes nearly
///   all of them white: we don't.
/// - CMYK is multiplied out as in Pillow; colour profiles are not applied, as nowhere in this field.
///
/// ```
/// use vllm_media::{Limits, MediaErrorKind, decode_picture};
///
/// let bmp = b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\x18\0\0\0\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x30\x20\x10\0";
/// let picture = decode_picture(bmp, &Limits::default())?;
/// assert_eq!((picture.width(), picture.height(), picture.pixels()), (1, 1, &[0x10, 0x20, 0x30][..]));
///
/// let error = decode_picture(b"%PDF-1.7", &Limits::default()).unwrap_err();
/// assert_eq!((error.kind, error.to_string()), (MediaErrorKind::Unsupported, "this is a PDF document, which can't be read \
///     as a picture; PNG, JPEG, WebP, GIF, BMP and TIFF can".to_owned()));
/// # Ok::<_, vllm_media::MediaError>(())
/// ```
///
/// # Errors
/// - [`MediaErrorKind::TooLarge`] for too many bytes or pixels; the latter are known from the header.
/// - [`MediaErrorKind::Unsupported`] for other formats, and for rare kinds of these.
/// - [`MediaErrorKind::Invalid`] for a damaged file; one that ends too early is.
pub fn decode_picture(bytes: &[u8], limits: &Limits) -> Result<Picture, MediaError> {
    check_bytes("picture", bytes.len(), limits.image_bytes)?;
    let Some(format) = PictureFormat::of(bytes) else {
        return Err(MediaError::new(
            MediaErrorKind::Unsupported,
            match format::foreign(bytes) {
                Some(what) => {
                    format!("this is {what}, which can't be read as a picture; PNG, JPEG, WebP, GIF, BMP and TIFF can")
                }
                None => "this is no picture: it begins neither as PNG, JPEG, WebP, GIF, BMP nor as TIFF".to_owned(),
            },
        ));
    };
    contained(format.name(), || {
        let raster = match format {
            PictureFormat::Jpeg => jpeg::decode(bytes, limits),
            PictureFormat::Png => png::decode(bytes, limits),
            PictureFormat::WebP => {
                check_webp(bytes)?;
                if let Some(first) = first_of_webp(bytes, limits)? {
                    return Ok(first);
                }
                still::webp(bytes, limits)
            }
            PictureFormat::Gif => still::gif(bytes, limits),
            PictureFormat::Bmp => still::bmp(bytes, limits),
            PictureFormat::Tiff => still::tiff(bytes, limits),
        }?;
        Ok(raster.into_picture())
    })
}

/// Pixels as a decoder gives them.
pub(crate) struct Raster {
    width: u32,
    height: u32,
    colour: ColorType,
    /// [height, width, channels], two bytes (of this machine's order) a channel if they have 16 bits.
    pixels: Vec<u8>,
    orientation: Orientation,
}

impl Raster {
    fn into_picture(self) -> Picture {
        let rgb = to_rgb(self.colour, self.pixels);
        upright::upright(self.width, self.height, rgb, self.orientation)
    }
}

/// Runs a decoder. That one of the libraries panics over a file is their defect, which must not become our client's.
///
/// # Errors
/// Its own, or [`MediaErrorKind::Invalid`] if it panicked.
pub(crate) fn contained<T>(what: &str, decode: impl FnOnce() -> Result<T, MediaError>) -> Result<T, MediaError> {
    // Nothing is shared with what unwinds: a decoder sees bytes, and is gone.
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| {
        Err(MediaError::new(
            MediaErrorKind::Invalid,
            format!("this {what} is damaged in a way that its decoder can't handle"),
        ))
    })
}

/// What went wrong in reading a `format`.
fn decoding(format: &str, error: &ImageError) -> MediaError {
    let kind = match error {
        ImageError::Limits(_) => MediaErrorKind::TooLarge,
        ImageError::Unsupported(_) => MediaErrorKind::Unsupported,
        _ => MediaErrorKind::Invalid,
    };
    MediaError::new(kind, format!("this {format} can't be read: {error}"))
}

fn truncated(format: &str) -> MediaError {
    MediaError::new(MediaErrorKind::Invalid, format!("this {format} is truncated: its end is missing"))
}
