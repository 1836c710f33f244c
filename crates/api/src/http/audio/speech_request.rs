//! What a request for speech asks for.

use std::time::Duration;

use axum::http::{StatusCode, Uri};
use serde_json::Value;
use vllm_audio::Format;

use super::form::put_query;
use crate::{
    http::{ApiError, Fields, extras::take_timeout, fields::show},
    speech::Speaking,
};

/// Slowest and fastest, as OpenAI has it.
const SPEEDS: std::ops::RangeInclusive<f32> = 0.25..=4.0;

/// A body that was understood.
#[derive(Debug)]
pub struct SpeechRequest {
    /// The model as the request names it.
    pub model: String,
    pub input: String,
    pub speaking: Speaking,
    pub format: Format,
    /// Whether sound comes in events.
    pub events: bool,
    pub timeout: Option<Duration>,
}

impl SpeechRequest {
    /// Takes all of it: from a JSON body, or from the query as the original vllm-mlx has it.
    ///
    /// # Errors
    /// 400 for what is missing, wrong or not to be had here; 413 for a text of more than `max_chars` characters.
    pub fn take(body: &[u8], uri: &Uri, max_chars: usize, timeout: Option<Duration>) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(if body.is_empty() { b"{}" } else { body })?;
        put_query(&mut fields, uri, &["speed", "seed", "timeout"]);
        let model = fields.string("model")?;
        let model = model.ok_or_else(|| ApiError::field("model", "model is missing: it must name the model to use"))?;
        let input = take_input(&mut fields, max_chars)?;
        let voice = take_voice(&mut fields)?;
        let format = take_format(&mut fields)?;
        let speed = fields.number("speed")?.unwrap_or(1.0);
        if !SPEEDS.contains(&speed) {
            return Err(ApiError::field("speed", format!("speed is {speed}: it must be from 0.25 to 4")));
        }
        let events = match fields.string("stream_format")?.as_deref() {
            None | Some("audio") => false,
            Some("sse") => true,
            Some(other) => {
                let message = format!("stream_format is {other:?}: it must be audio or sse");
                return Err(ApiError::field("stream_format", message));
            }
        };
        if fields.string("instructions")?.is_some_and(|text| !text.trim().is_empty()) {
            let message =
                "instructions: the models here can't be told how to speak; choose another voice, or another speed";
            return Err(ApiError::unsupported("instructions", message));
        }
        let language = fields.string("lang_code")?;
        let seed = fields.integer("seed", 0..=i64::MAX)?.unwrap_or(0) as u64;
        let timeout = take_timeout(&mut fields, timeout)?;
        fields.refuse_rest()?;
        let speaking = Speaking { voice, language, speed, seed, soon: true };
        Ok(Self { model, input, speaking, format, events, timeout })
    }
}

fn take_input(fields: &mut Fields, max_chars: usize) -> Result<String, ApiError> {
    let input = fields.string("input")?;
    let input = input.ok_or_else(|| ApiError::field("input", "input is missing: it must be the text to speak"))?;
    if input.trim().is_empty() {
        return Err(ApiError::field("input", "input is blank"));
    }
    let chars = input.chars().count();
    if chars > max_chars {
        let message = format!("input has {chars} characters, and this server speaks at most {max_chars} at once");
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "input_too_long", message).with_param("input"));
    }
    Ok(input)
}

/// A name, or an object with an `id`; none: the model's own.
fn take_voice(fields: &mut Fields) -> Result<Option<String>, ApiError> {
    match fields.value("voice") {
        None => Ok(None),
        Some(Value::String(name)) => Ok(Some(name)),
        Some(Value::Object(map)) => {
            let mut voice = Fields::within("voice", map);
            let id = voice.string("id")?;
            voice.refuse_rest()?;
            id.map(Some).ok_or_else(|| ApiError::field("voice", "voice is an object: it must have an id"))
        }
        Some(other) => Err(ApiError::field("voice", format!("voice is {}: it must be a voice's name", show(&other)))),
    }
}

fn take_format(fields: &mut Fields) -> Result<Format, ApiError> {
    let name = fields.string("response_format")?;
    let name = name.as_deref().unwrap_or("mp3");
    let known = Format::ALL.map(Format::name).join(", ");
    match name.parse() {
        Ok(format) => Ok(format),
        Err(_) if name == "aac" => {
            let message = format!("response_format is \"aac\", which this server does not write: use one of {known}");
            Err(ApiError::unsupported("response_format", message))
        }
        Err(_) => {
            let message = format!("response_format is {name:?}: it must be one of {known}");
            Err(ApiError::field("response_format", message))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn take(body: &Value, query: &str) -> Result<SpeechRequest, ApiError> {
        let uri = format!("/v1/audio/speech?{query}").parse().unwrap();
        SpeechRequest::take(if body.is_null() { String::new() } else { body.to_string() }.as_bytes(), &uri, 10, None)
    }

    #[test]
    fn bodies_and_queries() {
        let least = take(&json!({ "model": "m", "input": "hi" }), "").unwrap();
        assert_eq!((least.format, least.events, least.speaking.speed), (Format::Mp3, false, 1.0));
        let query = "model=m&input=hi%20you&voice=af_bella&speed=1.5&response_format=wav";
        let all = take(&Value::Null, query).unwrap();
        assert_eq!((all.input.as_str(), all.format, all.speaking.speed), ("hi you", Format::Wav, 1.5));
        assert_eq!(all.speaking.voice.as_deref(), Some("af_bella"));
        let both = take(&json!({ "model": "m", "input": "hi", "voice": { "id": "x" } }), "input=2").unwrap();
        assert_eq!((both.input.as_str(), both.speaking.voice.as_deref()), ("2", Some("x")));
    }

    #[test]
    fn what_is_wrong_is_named() {
        // (field and value over a good body, status, what the message says)
        let cases = [
            (json!({ "model": null }), 400, "model is missing"),
            (json!({ "input": null }), 400, "input is missing"),
            (json!({ "input": " \n" }), 400, "input is blank"),
            (json!({ "input": 3 }), 400, "input is 3"),
            (json!({ "input": "12345678901" }), 413, "input has 11 characters"),
            (json!({ "voice": 7 }), 400, "voice is 7"),
            (json!({ "voice": {} }), 400, "voice is an object"),
            (json!({ "response_format": "aac" }), 400, "does not write: use one of wav, mp3, flac, opus, pcm"),
            (json!({ "response_format": "ogg" }), 400, "response_format is \"ogg\""),
            (json!({ "speed": 0.2 }), 400, "speed is 0.2"),
            (json!({ "speed": 4.1 }), 400, "speed is 4.1"),
            (json!({ "speed": "fast" }), 400, "speed is \"fast\""),
            (json!({ "stream_format": "ws" }), 400, "stream_format is \"ws\""),
            (json!({ "instructions": "shout" }), 400, "can't be told how to speak"),
            (json!({ "pitch": 2 }), 400, "there is no field \"pitch\" here"),
        ];
        for (fields, status, wanted) in cases {
            let mut body = json!({ "model": "m", "input": "hi" });
            for (name, value) in fields.as_object().unwrap() {
                body[name] = value.clone();
            }
            let error = take(&body, "").unwrap_err();
            assert_eq!(error.status().as_u16(), status, "{fields}: {}", error.message());
            assert!(error.message().contains(wanted), "{fields}: {}", error.message());
        }
    }
}
