//! The formats that speech can be asked for in.

use std::{fmt, str::FromStr};

/// What an [`Encoder`](crate::Encoder) writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// 16-bit PCM behind a RIFF header.
    Wav,
    /// MPEG layer III, constant bit rate.
    Mp3,
    /// Lossless, 16 bits.
    Flac,
    /// Opus in Ogg.
    Opus,
    /// 16-bit PCM, little-endian, and nothing else.
    Pcm,
}

impl Format {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Wav, Self::Mp3, Self::Flac, Self::Opus, Self::Pcm];

    /// What it is called in a request: `wav`, `mp3`, `flac`, `opus`, `pcm`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Wav => "wav",
            Self::Mp3 => "mp3",
            Self::Flac => "flac",
            Self::Opus => "opus",
            Self::Pcm => "pcm",
        }
    }

    /// The media type of an answer with it. PCM's says neither the rate nor the width: who asks for it knows them.
    #[must_use]
    pub fn mime(self) -> &'static str {
        match self {
            Self::Wav => "audio/wav",
            Self::Mp3 => "audio/mpeg",
            Self::Flac => "audio/flac",
            Self::Opus => "audio/ogg; codecs=opus",
            Self::Pcm => "audio/pcm",
        }
    }

    /// How its files' names end, without the dot.
    #[must_use]
    pub fn extension(self) -> &'static str {
        self.name()
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No such format, or none that is written here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown audio format {0:?}: there are wav, mp3, flac, opus, pcm")]
pub struct UnknownFormat(pub String);

impl FromStr for Format {
    type Err = UnknownFormat;

    /// By name, in any case.
    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        let known = Self::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name));
        known.ok_or_else(|| UnknownFormat(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for format in Format::ALL {
            assert_eq!(format.name().parse(), Ok(format));
            assert_eq!(format.name().to_uppercase().parse(), Ok(format));
            assert!(UnknownFormat(String::new()).to_string().contains(format.name()), "{format} goes unmentioned");
        }
    }

    #[test]
    fn other_names_are_refused() {
        for name in ["aac", "", "ogg", "wav ", "mp4"] {
            let error = name.parse::<Format>().unwrap_err().to_string();
            assert_eq!(error, format!("unknown audio format {name:?}: there are wav, mp3, flac, opus, pcm"));
        }
    }
}
