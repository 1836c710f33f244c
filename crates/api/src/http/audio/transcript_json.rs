//! A transcript as it is sent.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use serde_json::{Value, json};
use vllm_speech::{
    Segment, Transcript, Word, subtitles,
    whisper::{Task, language_name},
};

use super::transcription_request::TranscriptFormat;
use crate::http::{ApiError, health::json_response};

/// What of a transcript is told.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    pub task: Task,
    pub segments: bool,
    pub words: bool,
}

/// The whole of a transcript.
pub fn response(format: TranscriptFormat, transcript: &Transcript, shown: Shown) -> Result<Response, ApiError> {
    let text = |text: String, kind: &'static str| {
        let mut response = Response::new(Body::from(text));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        Ok(response)
    };
    match format {
        TranscriptFormat::Json => Ok(json_response(&json(transcript))),
        TranscriptFormat::VerboseJson => Ok(json_response(&verbose_json(transcript, shown))),
        // As OpenAI has it, and `cat` likes it.
        TranscriptFormat::Text => text(transcript.text() + "\n", "text/plain; charset=utf-8"),
        TranscriptFormat::Srt => text(subtitles::srt(transcript), "application/x-subrip; charset=utf-8"),
        TranscriptFormat::Vtt => text(subtitles::vtt(transcript), "text/vtt; charset=utf-8"),
    }
}

/// OpenAI's `usage` of a sound: seconds, whole ones, as it is reckoned there.
#[must_use]
pub fn usage(duration: Duration) -> Value {
    json!({ "type": "duration", "seconds": duration.as_secs_f64().ceil() as u64 })
}

/// OpenAI's `text` and `usage`, with the original's `language` and `duration`.
#[must_use]
pub fn json(transcript: &Transcript) -> Value {
    json!({
        "text": transcript.text(),
        "language": transcript.language,
        "duration": transcript.duration,
        "usage": usage(Duration::from_secs_f64(transcript.duration)),
    })
}

/// OpenAI's `verbose_json`; also what the command writes.
#[must_use]
pub fn verbose_json(transcript: &Transcript, shown: Shown) -> Value {
    let language = transcript.language.as_deref();
    let mut json = json!({
        "task": match shown.task { Task::Transcribe => "transcribe", Task::Translate => "translate" },
        "language": language.map(|code| language_name(code).unwrap_or(code)),
        "duration": transcript.duration,
        "text": transcript.text(),
    });
    if shown.segments {
        json["segments"] = transcript.segments.iter().map(segment).collect();
    }
    if shown.words {
        json["words"] = transcript.segments.iter().flat_map(|segment| &segment.words).map(word).collect();
    }
    json["usage"] = usage(Duration::from_secs_f64(transcript.duration));
    json
}

fn segment(segment: &Segment) -> Value {
    json!({
        "id": segment.id,
        "seek": segment.seek,
        "start": round(segment.start),
        "end": round(segment.end),
        "text": segment.text,
        "tokens": segment.tokens,
        "temperature": segment.temperature,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": segment.compression_ratio,
        "no_speech_prob": segment.no_speech_prob,
    })
}

fn word(word: &Word) -> Value {
    json!({ "word": word.text.trim(), "start": round(word.start), "end": round(word.end), "probability": word.probability })
}

/// Models tell times in hundredths of a second at best.
fn round(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}
