//! What holds a video, by its first bytes.

/// A container that `ffmpeg` is asked to read.
///
/// It is told which, and never left to guess: among what it knows are playlists and scripts that name other files and
/// addresses, which it would open for whoever sent them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Container {
    /// MP4, QuickTime and 3GP.
    Mp4,
    /// Matroska and WebM.
    Matroska,
    Avi,
    /// MPEG program stream.
    Mpeg,
    /// MPEG transport stream.
    Ts,
    Flv,
    Ogg,
    /// Windows Media.
    Asf,
}

impl Container {
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            // Pictures come in the same boxes.
            [_, _, _, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', ..]
            | [_, _, _, _, b'f', b't', b'y', b'p', b'h', b'e', ..]
            | [_, _, _, _, b'f', b't', b'y', b'p', b'm', b'i' | b's', b'f', b'1', ..] => None,
            [_, _, _, _, a, b, c, d, ..]
                if matches!(&[*a, *b, *c, *d], b"ftyp" | b"moov" | b"mdat" | b"wide" | b"free" | b"skip") =>
            {
                Some(Self::Mp4)
            }
            [0x1a, 0x45, 0xdf, 0xa3, ..] => Some(Self::Matroska),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'A', b'V', b'I', b' ', ..] => Some(Self::Avi),
            [0, 0, 1, 0xba, ..] => Some(Self::Mpeg),
            [b'F', b'L', b'V', 1, ..] => Some(Self::Flv),
            [b'O', b'g', b'g', b'S', ..] => Some(Self::Ogg),
            [0x30, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11, ..] => Some(Self::Asf),
            // Packets of 188 bytes, which begin all alike.
            [0x47, ..] if bytes.get(188) == Some(&0x47) && bytes.get(376) == Some(&0x47) => Some(Self::Ts),
            _ => None,
        }
    }

    /// As `ffmpeg` calls its demuxer.
    pub fn demuxer(self) -> &'static str {
        match self {
            Self::Mp4 => "mov",
            Self::Matroska => "matroska",
            Self::Avi => "avi",
            Self::Mpeg => "mpeg",
            Self::Ts => "mpegts",
            Self::Flv => "flv",
            Self::Ogg => "ogg",
            Self::Asf => "asf",
        }
    }
}
