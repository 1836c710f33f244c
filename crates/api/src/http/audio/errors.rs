//! What is wrong with sounds and texts, in OpenAI's schema.

use vllm_audio::DecodeError;
use vllm_speech::phonemes::PhonemeError;

use crate::{
    http::ApiError,
    speech::{ListeningError, SpeakError},
};

impl From<DecodeError> for ApiError {
    fn from(error: DecodeError) -> Self {
        let message = format!("file: {error}");
        match error {
            DecodeError::Io(_) => Self::engine(message),
            DecodeError::TooLong { .. } => Self::field("file", message).with_code("audio_too_long"),
            DecodeError::Unsupported(_) => Self::field("file", message).with_code("unsupported_format"),
            _ => Self::field("file", message).with_code("invalid_audio"),
        }
    }
}

impl From<ListeningError> for ApiError {
    fn from(error: ListeningError) -> Self {
        let refused = Self::field(error.option(), error.to_string());
        match error {
            ListeningError::NotTaken { .. } => refused.with_code("unsupported_value"),
            ListeningError::Option(_) => refused.with_code("invalid_value"),
        }
    }
}

impl From<SpeakError> for ApiError {
    fn from(error: SpeakError) -> Self {
        let message = error.to_string();
        match error {
            SpeakError::Voice(_) | SpeakError::NoVoice(_) => Self::field("voice", message).with_code("invalid_voice"),
            SpeakError::Language(_) => Self::field("lang_code", message).with_code("invalid_value"),
            SpeakError::Phonemes(PhonemeError::NotInstalled(_)) => {
                Self::field("voice", message).with_code("unsupported_language")
            }
            SpeakError::Phonemes(PhonemeError::Espeak(_)) => Self::engine(message),
            SpeakError::Phonemes(_) => Self::field("input", format!("input: {message}")).with_code("invalid_input"),
        }
    }
}
