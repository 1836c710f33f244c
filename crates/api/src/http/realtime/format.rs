//! Sound as it crosses the socket: base64 of samples.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};

use super::g711::{self, Law};
use crate::http::{ApiError, Fields};

/// How samples are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SoundFormat {
    /// 16 bits, little-endian, 24,000 a second.
    #[default]
    Pcm,
    /// G.711 µ-law, 8,000 a second.
    Pcmu,
    /// G.711 A-law, 8,000 a second.
    Pcma,
}

impl SoundFormat {
    /// Takes `format`: `{"type": "audio/pcm", "rate": 24000}` and the like.
    ///
    /// # Errors
    /// 400 for formats that OpenAI doesn't have either.
    pub fn take(fields: &mut Fields) -> Result<Option<Self>, ApiError> {
        let Some(mut format) = fields.object("format")? else { return Ok(None) };
        let (kind, param) = (format.string("type")?, format.path("type"));
        let found = match kind.as_deref() {
            Some("audio/pcm") => Self::Pcm,
            Some("audio/pcmu") => Self::Pcmu,
            Some("audio/pcma") => Self::Pcma,
            other => {
                let other = other.unwrap_or("missing");
                let message = format!("{param} is {other}: it must be audio/pcm, audio/pcmu or audio/pcma");
                return Err(ApiError::field(&param, message));
            }
        };
        let rate = i64::from(found.rate());
        format.integer("rate", rate..=rate)?;
        format.finish();
        Ok(Some(found))
    }

    /// Samples a second.
    pub const fn rate(self) -> u32 {
        match self {
            Self::Pcm => 24_000,
            Self::Pcmu | Self::Pcma => 8_000,
        }
    }

    /// As a session shows it.
    pub fn to_json(self) -> Value {
        match self {
            Self::Pcm => json!({ "type": "audio/pcm", "rate": 24_000 }),
            Self::Pcmu => json!({ "type": "audio/pcmu" }),
            Self::Pcma => json!({ "type": "audio/pcma" }),
        }
    }

    /// Samples, within −1 to 1, of what a client sent as `param`.
    ///
    /// # Errors
    /// 400 if it is no base64, or breaks off within a sample.
    pub fn decode(self, param: &str, text: &str) -> Result<Vec<f32>, ApiError> {
        let bytes = BASE64.decode(text.trim());
        let bytes = bytes.map_err(|error| ApiError::field(param, format!("{param} is no base64: {error}")))?;
        match self {
            Self::Pcm => {
                let (samples, rest) = bytes.as_chunks::<2>();
                if !rest.is_empty() {
                    let message = format!("{param} has {} bytes: samples of audio/pcm have two each", bytes.len());
                    return Err(ApiError::field(param, message));
                }
                Ok(samples.iter().map(|&sample| f32::from(i16::from_le_bytes(sample)) / 32_768.0).collect())
            }
            Self::Pcmu => Ok(bytes.into_iter().map(|byte| g711::decode(Law::Mu, byte)).collect()),
            Self::Pcma => Ok(bytes.into_iter().map(|byte| g711::decode(Law::A, byte)).collect()),
        }
    }

    /// Base64 of samples, louder ones cut.
    pub fn encode(self, samples: &[f32]) -> String {
        let bytes: Vec<u8> = match self {
            Self::Pcm => samples.iter().flat_map(|&sample| g711::pcm16(sample).to_le_bytes()).collect(),
            Self::Pcmu => samples.iter().map(|&sample| g711::encode(Law::Mu, sample)).collect(),
            Self::Pcma => samples.iter().map(|&sample| g711::encode(Law::A, sample)).collect(),
        };
        BASE64.encode(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_comes_back() {
        let samples: Vec<f32> = (-100..=100).map(|i| i as f32 / 100.0).collect();
        // The steps of G.711 grow with the sample: 1/32 of it at most, and 1/256 for the smallest.
        for (format, relative) in [(SoundFormat::Pcm, 0.0), (SoundFormat::Pcmu, 0.04), (SoundFormat::Pcma, 0.04)] {
            let back = format.decode("audio", &format.encode(&samples)).unwrap();
            assert_eq!(back.len(), samples.len());
            for (sent, got) in samples.iter().zip(&back) {
                let allowed = relative * (sent.abs() + 0.03) + 6e-5;
                assert!((sent - got).abs() <= allowed, "{format:?}: {sent} came back as {got}");
            }
        }
    }

    #[test]
    fn what_is_no_sound_is_refused() {
        for (format, text, wanted) in [
            (SoundFormat::Pcm, "%%%", "is no base64"),
            (SoundFormat::Pcm, "AAAA", "has 3 bytes"),
            (SoundFormat::Pcmu, "A", "is no base64"),
        ] {
            let error = format.decode("audio", text).unwrap_err();
            assert!(error.message().contains(wanted), "{text}: {}", error.message());
        }
    }
}
