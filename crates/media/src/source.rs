//! Where a picture or a video is to be had.

use std::{fmt, path::PathBuf};

use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use http::Uri;

use crate::{MediaError, MediaErrorKind, PictureFormat, video::Container};

/// Where a picture or a video is to be had.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// Here: its file.
    Bytes(Bytes),
    /// Over HTTP or HTTPS.
    Url(Uri),
    /// On this machine. Nothing says yet that it may be read.
    Path(PathBuf),
}

impl Source {
    /// Reads what a client wrote: a `data:` URI in base64, an address of `http:`, `https:` or `file:`, base64 without anything
    /// around it, or else a path. Base64 may be of either alphabet, with or without padding, and broken into lines.
    ///
    /// A path and bare base64 can look alike (a JPEG's begins with `/9j/`): it is base64 if it is the beginning of a picture or
    /// a video that we know.
    ///
    /// ```
    /// use vllm_media::Source;
    ///
    /// let gif = Source::parse("data:image/png;base64,R0lGODlhAQ")?;
    /// assert_eq!(gif, Source::parse("R0lGODlhAQ==")?);
    /// assert_eq!(gif, Source::Bytes(b"GIF89a\x01"[..].into()));
    /// assert!(matches!(Source::parse("https://example.com/a.png")?, Source::Url(_)));
    /// assert!(matches!(Source::parse("pictures/a.png")?, Source::Path(_)));
    /// # Ok::<_, vllm_media::MediaError>(())
    /// ```
    ///
    /// # Errors
    /// [`MediaErrorKind::Invalid`] for what is none of these, [`MediaErrorKind::Unsupported`] for other schemes.
    pub fn parse(text: &str) -> Result<Self, MediaError> {
        let text = text.trim();
        match scheme(text) {
            Some(("data", rest)) => data(rest),
            Some(("http" | "https", _)) => Ok(Self::Url(address(text)?)),
            Some(("file", rest)) => file(rest),
            Some((scheme, _)) => {
                let message =
                    format!("{scheme}: is not an address to read media from; http:, https:, data: and file: are");
                Err(MediaError::new(MediaErrorKind::Unsupported, message))
            }
            None if is_media(text) => Ok(Self::Bytes(base64(text)?)),
            None => path(text),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Url(url) => write!(f, "Url({url})"),
            Self::Path(path) => write!(f, "Path({})", path.display()),
        }
    }
}

/// A scheme, in lower case as it is known, and what is behind its colon. Windows' drives are none.
fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let plausible = scheme.len() > 1
        && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let known = ["data", "http", "https", "file"].into_iter().find(|known| known.eq_ignore_ascii_case(scheme));
    plausible.then_some((known.unwrap_or(scheme), rest))
}

/// What is behind `data:`.
fn data(rest: &str) -> Result<Source, MediaError> {
    let Some((head, body)) = rest.split_once(',') else {
        return Err(invalid("this data: URI has no comma before its data"));
    };
    let is_base64 = head.rsplit(';').next().is_some_and(|last| last.trim().eq_ignore_ascii_case("base64"));
    if !is_base64 {
        return Err(invalid("this data: URI is not in base64: it must read data:<type>;base64,<data>"));
    }
    base64(body).map(Source::Bytes)
}

/// What is behind `file:`.
fn file(rest: &str) -> Result<Source, MediaError> {
    let path = match rest.strip_prefix("//") {
        Some(rest) => match rest.find('/') {
            Some(0) => rest,
            Some(at) if rest[..at].eq_ignore_ascii_case("localhost") => &rest[at..],
            _ => return Err(invalid("a file: address must not name another machine: file:///path")),
        },
        None => rest,
    };
    self::path(&unescaped(path)?)
}

/// `%20` and the like as what they stand for.
fn unescaped(path: &str) -> Result<String, MediaError> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, more)) = rest.split_first() {
        rest = more;
        let digits = if byte == b'%' { more.split_first_chunk::<2>() } else { None };
        let digits = digits.map(|(digits, _)| digits).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let value = digits.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(value.unwrap_or(byte));
        if value.is_some() {
            rest = &more[2..];
        }
    }
    String::from_utf8(bytes).map_err(|_| invalid("this file: address is not of UTF-8"))
}

fn path(text: &str) -> Result<Source, MediaError> {
    // Longer than any path: what was meant to be base64.
    if text.is_empty() || text.len() > 4096 || text.contains(['\0', '\n']) {
        return Err(invalid("this is no address, no path and no base64 of a picture or video that can be read"));
    }
    Ok(Source::Path(PathBuf::from(text)))
}

/// An address of HTTP or HTTPS as it may stand in a request: what must not is escaped.
pub(crate) fn address(text: &str) -> Result<Uri, MediaError> {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.split('#').next().unwrap_or_default().bytes() {
        match byte {
            0x21..=0x7e if !b"\"<>\\^`{|}".contains(&byte) => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    let url: Uri = escaped.parse().map_err(|error| invalid(format!("this address can't be read: {error}")))?;
    if url.host().is_none_or(str::is_empty) {
        return Err(invalid("this address names no host"));
    }
    // `https:` alone is read as a host of this name.
    match url.scheme_str() {
        Some("http" | "https") => Ok(url),
        _ => Err(invalid("this is no address that begins with http:// or https://")),
    }
}

/// Whether this is base64 of the beginning of something that we read.
fn is_media(text: &str) -> bool {
    // The longest of the marks is in the first 12 bytes, but that of MPEG-TS.
    // (Whole groups of four characters, of a longer text.)
    let start: String = text.chars().filter(|c| !c.is_ascii_whitespace()).take(768).collect();
    base64(&start).is_ok_and(|bytes| PictureFormat::of(&bytes).is_some() || Container::of(&bytes).is_some())
}

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::URL_SAFE, LENIENT);

fn base64(text: &str) -> Result<Bytes, MediaError> {
    let tight: String;
    let mut text = text.trim_ascii();
    // Data URIs come escaped at times, as the addresses that they are.
    if text.contains(|c: char| c.is_ascii_whitespace() || c == '%') {
        tight = unescaped(text)?.split_ascii_whitespace().collect();
        text = &tight;
    }
    let engine = if text.contains(['-', '_']) { URL_SAFE } else { STANDARD };
    let bytes = engine.decode(text).map_err(|error| invalid(format!("this is no base64: {error}")))?;
    Ok(bytes.into())
}

fn invalid(message: impl Into<String>) -> MediaError {
    MediaError::new(MediaErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        let bytes = |bytes: &'static [u8]| Ok(Source::Bytes(Bytes::from_static(bytes)));
        let url = |url: &'static str| Ok(Source::Url(Uri::from_static(url)));
        let path = |path: &str| Ok(Source::Path(path.into()));
        let (invalid, unsupported) = (MediaErrorKind::Invalid, MediaErrorKind::Unsupported);
        let long = "A".repeat(5000);
        let jpeg: &[u8] = b"\xff\xd8\xff\xe0\x00\x10JFIF";
        let cases: [(&str, Result<Source, MediaErrorKind>); 35] = [
            ("data:image/png;base64,aGVsbG8=", bytes(b"hello")),
            ("data:image/png;base64,aGVsbG8", bytes(b"hello")),
            ("data:;base64,aGVs\n bG8=\r\n", bytes(b"hello")),
            ("data:image/png;base64,aGVsbG8%3D", bytes(b"hello")),
            ("DATA:image/png;charset=x;BASE64,aGVsbG8=", bytes(b"hello")),
            ("data:image/png;base64,-_8=", bytes(&[0xfb, 0xff])),
            ("data:image/png;base64,+/8=", bytes(&[0xfb, 0xff])),
            ("data:image/png;base64,", bytes(b"")),
            ("data:image/png;base64,a", Err(invalid)),
            ("data:image/png;base64,+_8=", Err(invalid)),
            ("data:image/png;base64,aé", Err(invalid)),
            ("data:image/png,hello", Err(invalid)),
            ("data:image/png;base64", Err(invalid)),
            ("/9j/4AAQSkZJRg==", bytes(jpeg)),
            ("_9j_4AAQSkZJRg", bytes(jpeg)),
            (" /9j/4AAQ\nSkZJRg ", bytes(jpeg)),
            ("/9j/4AAQ.jpg", path("/9j/4AAQ.jpg")),
            ("https://example.com/a?b#c", url("https://example.com/a?b")),
            ("HTTP://example.com", url("http://example.com")),
            ("https://example.com/ä b", url("https://example.com/%C3%A4%20b")),
            ("https:///a", Err(invalid)),
            ("https://exa mple.com/a", Err(invalid)),
            ("http://", Err(invalid)),
            ("https:", Err(invalid)),
            ("https:example.com", Err(invalid)),
            ("file:///tmp/a%20b.png", path("/tmp/a b.png")),
            ("file://localhost/tmp/a.png", path("/tmp/a.png")),
            ("file://elsewhere/tmp/a.png", Err(invalid)),
            ("file:/tmp/%+f%g0%", path("/tmp/%+f%g0%")),
            ("/tmp/a.png", path("/tmp/a.png")),
            ("aGVsbG8=", path("aGVsbG8=")),
            ("ftp://example.com/a", Err(unsupported)),
            ("", Err(invalid)),
            (&long, Err(invalid)),
            // Found by fuzzing: where the four characters of a group end, another one doesn't.
            ("\u{15}/lh==ots/example.com&aé", path("\u{15}/lh==ots/example.com&aé")),
        ];
        for (text, wanted) in cases {
            assert_eq!(Source::parse(text).map_err(|error| error.kind), wanted, "{text}");
        }
    }

    #[test]
    fn long_base64_is_known_by_its_beginning() {
        let mut ts = vec![0; 2000];
        (ts[0], ts[188], ts[376]) = (0x47, 0x47, 0x47);
        let text = STANDARD.encode(&ts);
        assert_eq!(Source::parse(&text), Ok(Source::Bytes(ts.into())));
    }
}
