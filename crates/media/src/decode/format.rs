//! What a file is, by its first bytes. Names and declared types are not asked: they are often wrong, and what they say
//! must not decide which code reads a stranger's bytes.

use std::fmt;

/// A format of pictures that we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PictureFormat {
    /// JPEG: baseline, progressive; gray, YCbCr, RGB, CMYK, YCCK.
    Jpeg,
    /// PNG, animated ones (APNG) too.
    Png,
    /// GIF.
    Gif,
    /// WebP: lossy, lossless, animated.
    WebP,
    /// Windows bitmap.
    Bmp,
    /// TIFF, its first page.
    Tiff,
}

impl PictureFormat {
    /// The format that a file begins like.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Self::Png),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::WebP),
            // The four reserved bytes keep texts that begin with "BM" out.
            [b'B', b'M', _, _, _, _, 0, 0, 0, 0, ..] => Some(Self::Bmp),
            [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Some(Self::Tiff),
            _ => None,
        }
    }

    /// As people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Gif => "GIF",
            Self::WebP => "WebP",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
        }
    }
}

impl fmt::Display for PictureFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A known thing that isn't read as a picture, for the error.
pub(super) fn foreign(bytes: &[u8]) -> Option<&'static str> {
    let text = || {
        let start = bytes.trim_ascii_start();
        let start = &start[..start.len().min(256)];
        start.starts_with(b"<") && !start.contains(&0)
    };
    match bytes {
        [_, _, _, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', b'f' | b's', ..] => Some("an AVIF picture"),
        [_, _, _, _, b'f', b't', b'y', b'p', b'h', b'e', ..] => Some("a HEIC picture"),
        [_, _, _, _, b'f', b't', b'y', b'p', b'm', b'i' | b's', b'f', b'1', ..] => Some("a HEIF picture"),
        [0xff, 0x0a, ..] | [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..] => Some("a JPEG XL picture"),
        [0, 0, 0, 12, b'j', b'P', b' ', b' ', ..] | [0xff, 0x4f, 0xff, 0x51, ..] => Some("a JPEG 2000 picture"),
        [b'%', b'P', b'D', b'F', ..] => Some("a PDF document"),
        _ if crate::video::Container::of(bytes).is_some() => Some("a video"),
        _ if text() => Some("markup, perhaps an error page or an SVG"),
        _ => None,
    }
}
