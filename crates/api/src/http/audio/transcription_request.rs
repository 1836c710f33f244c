//! What a request for a transcript asks for.

use std::time::Duration;

use axum::http::Uri;
use serde_json::Value;
use vllm_speech::{
    vad::VadOptions,
    whisper::{DecodingOptions, Task},
};

use super::{
    form::Form,
    upload::{Received, Upload},
};
use crate::http::{ApiError, Fields, extras::take_timeout};

/// How a transcript is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TranscriptFormat {
    Json,
    Text,
    Srt,
    VerboseJson,
    Vtt,
}

/// A form that was understood.
#[derive(Debug)]
pub struct TranscriptionRequest {
    /// The model as the request names it.
    pub model: String,
    pub upload: Upload,
    pub format: TranscriptFormat,
    pub options: DecodingOptions,
    /// Whether segments are told of, where the format has them by themselves.
    pub segments: bool,
    /// Only where somebody speaks, found so.
    pub voiced: Option<VadOptions>,
    pub stream: bool,
    pub timeout: Option<Duration>,
}

impl TranscriptionRequest {
    /// Takes all of it.
    ///
    /// # Errors
    /// 400 for what is missing, wrong or not to be had here.
    pub fn take(received: Received, uri: &Uri, task: Task, timeout: Option<Duration>) -> Result<Self, ApiError> {
        let mut form = Form::new(received.fields, uri);
        let model = form.string("model")?;
        let model = model.ok_or_else(|| ApiError::field("model", "model is missing: it must name the model to use"))?;
        let format = TranscriptFormat::take(&mut form)?;
        let stream = form.boolean("stream")?.unwrap_or(false);
        if stream && !matches!(format, TranscriptFormat::Json | TranscriptFormat::Text) {
            let message = "stream goes with the response formats json and text only: others need the whole transcript";
            return Err(ApiError::unsupported("stream", message));
        }
        let (segments, word_timestamps) = take_granularities(&mut form, format)?;
        let mut options = DecodingOptions {
            task,
            prompt: form.string("prompt")?,
            seed: form.number("seed", "a whole number of at least 0")?.unwrap_or(0),
            word_timestamps,
            ..DecodingOptions::default()
        };
        // OpenAI's translations don't take it; it saves the model from having to find it out.
        options.language = form.string("language")?;
        if let Some(temperature) = take_temperature(&mut form)? {
            options.temperatures = vec![temperature];
        }
        let voiced = form.structure("chunking_strategy")?.map(take_chunking).transpose()?;
        refuse_unsupported(&mut form)?;
        let mut rest = Fields::parse(b"{}")?;
        if let Some(seconds) = form.number::<f64>("timeout", "a number of seconds")? {
            rest.put("timeout", seconds.into());
        }
        let timeout = take_timeout(&mut rest, timeout)?;
        form.finish()?;
        let missing = "file is missing: it must be a sound file, in a multipart form";
        let upload = received.file.ok_or_else(|| ApiError::field("file", missing))?;
        if upload.bytes == 0 {
            return Err(ApiError::field("file", "file is empty").with_code("invalid_audio"));
        }
        Ok(Self { model, upload, format, options, segments, voiced, stream, timeout })
    }
}

impl TranscriptFormat {
    fn take(form: &mut Form) -> Result<Self, ApiError> {
        match form.string("response_format")?.as_deref() {
            None | Some("json") => Ok(Self::Json),
            Some("text") => Ok(Self::Text),
            Some("srt") => Ok(Self::Srt),
            Some("verbose_json") => Ok(Self::VerboseJson),
            Some("vtt") => Ok(Self::Vtt),
            Some("diarized_json") => {
                let message = "response_format is \"diarized_json\": no model here tells speakers apart";
                Err(ApiError::unsupported("response_format", message))
            }
            Some(other) => {
                let message = format!("response_format is {other:?}: it must be json, text, srt, verbose_json or vtt");
                Err(ApiError::field("response_format", message))
            }
        }
    }
}

/// Whether segments and words are wanted.
fn take_granularities(form: &mut Form, format: TranscriptFormat) -> Result<(bool, bool), ApiError> {
    let name = "timestamp_granularities";
    let wanted = form.list(name);
    if wanted.is_empty() {
        return Ok((true, false));
    }
    if let Some(other) = wanted.iter().find(|wanted| !matches!(wanted.as_str(), "word" | "segment")) {
        return Err(ApiError::field(name, format!("{name} has {other:?}: it must have word and segment only")));
    }
    if format != TranscriptFormat::VerboseJson {
        return Err(ApiError::field(name, format!("{name} goes with the response format verbose_json only")));
    }
    let has = |wanted_one: &str| wanted.iter().any(|wanted| wanted == wanted_one);
    Ok((has("segment"), has("word")))
}

/// One above 0; at 0, as without it, the model tries higher ones where a text is poor.
fn take_temperature(form: &mut Form) -> Result<Option<f32>, ApiError> {
    match form.number::<f32>("temperature", "a number from 0 to 1")? {
        None => Ok(None),
        Some(temperature) if (0.0..=1.0).contains(&temperature) => Ok(Some(temperature).filter(|&t| t > 0.0)),
        Some(temperature) => {
            Err(ApiError::field("temperature", format!("temperature is {temperature}: it must be from 0 to 1")))
        }
    }
}

/// `auto`, or `server_vad` with its settings.
fn take_chunking(value: Value) -> Result<VadOptions, ApiError> {
    let name = "chunking_strategy";
    let wrong = || ApiError::field(name, "chunking_strategy must be \"auto\", or an object of the type server_vad");
    let mut options = VadOptions::default();
    let mut fields = match value {
        Value::String(word) if word == "auto" => return Ok(options),
        Value::Object(map) => Fields::within(name, map),
        _ => return Err(wrong()),
    };
    if fields.string("type")?.as_deref() != Some("server_vad") {
        return Err(wrong());
    }
    if let Some(threshold) = fields.number("threshold")? {
        if !(0.0..=1.0).contains(&threshold) {
            let path = fields.path("threshold");
            return Err(ApiError::field(&path, format!("{path} is {threshold}: it must be from 0 to 1")));
        }
        options.threshold = threshold;
    }
    let millis = |fields: &mut Fields, name: &str| {
        Ok::<_, ApiError>(fields.integer(name, 0..=60_000)?.map(|millis| Duration::from_millis(millis as u64)))
    };
    if let Some(padding) = millis(&mut fields, "prefix_padding_ms")? {
        options.padding = padding;
    }
    if let Some(silence) = millis(&mut fields, "silence_duration_ms")? {
        options.min_silence = silence;
    }
    fields.refuse_rest()?;
    Ok(options)
}

/// What OpenAI has, and the models here haven't.
fn refuse_unsupported(form: &mut Form) -> Result<(), ApiError> {
    let include = form.list("include");
    if let Some(what) = include.first() {
        return Err(ApiError::unsupported(
            "include",
            format!("include has {what:?}: there is nothing to include here"),
        ));
    }
    for name in ["known_speaker_names", "known_speaker_references"] {
        if !form.list(name).is_empty() {
            return Err(ApiError::unsupported(name, format!("{name}: no model here tells speakers apart")));
        }
    }
    Ok(())
}
