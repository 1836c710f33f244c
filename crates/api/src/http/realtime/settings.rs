//! What a session is set to: by its client's `session.update`, and for one response by `response.create`.

use std::time::Duration;

use serde_json::{Map, Value, json};
use vllm_speech::vad::TurnOptions;

use super::format::SoundFormat;
use crate::http::{ApiError, Fields};

/// What sessions have until they are told otherwise: OpenAI's own figures.
const USUAL_TURNS: Turns = Turns { threshold: 0.5, padding_ms: 300, silence_ms: 500, respond: true, interrupt: true };

/// What this server can do in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// Whether there is a model that hears.
    pub hears: bool,
    /// Whether there is one that speaks.
    pub speaks: bool,
    /// Whether there is one that tells speech from silence.
    pub detects: bool,
}

/// What a session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It talks.
    Talk,
    /// It writes down what it hears.
    Transcribe,
}

/// When the user's turn ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Turns {
    /// How probable speech must be.
    pub threshold: f32,
    /// How much is kept of what was before speech, in milliseconds.
    pub padding_ms: u32,
    /// So long a silence ends the turn, in milliseconds.
    pub silence_ms: u32,
    /// Whether a response follows.
    pub respond: bool,
    /// Whether speech ends a response that is under way.
    pub interrupt: bool,
}

impl Turns {
    /// For the detector.
    pub fn options(&self) -> TurnOptions {
        TurnOptions {
            threshold: self.threshold,
            prefix_padding: Duration::from_millis(self.padding_ms.into()),
            silence_duration: Duration::from_millis(self.silence_ms.into()),
        }
    }
}

/// How what is heard is written down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transcription {
    /// By which model; `None`: the server's.
    pub model: Option<String>,
    /// In which language; `None`: as the model hears it.
    pub language: Option<String>,
    /// Words to expect.
    pub prompt: Option<String>,
}

/// See the [module](self).
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What the session does.
    pub kind: Kind,
    /// The model that answers.
    pub model: String,
    /// Whether answers are spoken.
    pub speaks: bool,
    /// What the model is told first.
    pub instructions: Option<String>,
    /// How sound comes in.
    pub input: SoundFormat,
    /// Set: transcripts are told to the client.
    pub transcription: Option<Transcription>,
    /// `None`: the client says when the user's turn ends.
    pub turns: Option<Turns>,
    /// How sound goes out.
    pub output: SoundFormat,
    /// Whose voice answers have; `None`: the model's first.
    pub voice: Option<String>,
    /// How fast.
    pub speed: f32,
    /// As Responses have them: `tools`, `tool_choice`, `parallel_tool_calls`, `max_output_tokens`, `reasoning`, `truncation`.
    pub answer: Map<String, Value>,
}

impl Settings {
    /// Those of a new session.
    pub fn new(kind: Kind, model: String, abilities: Abilities) -> Self {
        Self {
            kind,
            model,
            speaks: abilities.speaks && kind == Kind::Talk,
            instructions: None,
            input: SoundFormat::default(),
            transcription: (kind == Kind::Transcribe).then(Transcription::default),
            turns: (abilities.detects && abilities.hears).then_some(USUAL_TURNS),
            output: SoundFormat::default(),
            voice: None,
            speed: 1.0,
            answer: Map::from_iter([("truncation".into(), json!("auto"))]),
        }
    }

    /// These settings, changed as `session.update` says.
    ///
    /// # Errors
    /// 400 naming the field at fault.
    pub fn updated(&self, mut fields: Fields, abilities: Abilities) -> Result<Self, ApiError> {
        let mut new = self.clone();
        let wanted = match self.kind {
            Kind::Talk => "realtime",
            Kind::Transcribe => "transcription",
        };
        if let Some(kind) = fields.string("type")?
            && kind != wanted
        {
            let message = format!("session.type is {kind:?}: this session's is {wanted}");
            return Err(ApiError::field("session.type", message));
        }
        if let Some(model) = fields.string("model")?
            && model != self.model
        {
            return Err(ApiError::field("session.model", "session.model can't change: begin another session"));
        }
        let refused = [
            ("include", "transcripts have no log probabilities here"),
            ("prompt", "this server has no prompt templates: use instructions"),
            ("tracing", "this server sends its traces where its operator says: leave it out"),
        ];
        for (name, why) in refused {
            let asked = fields.value(name).is_some_and(|value| value.as_array().is_none_or(|list| !list.is_empty()));
            if asked {
                let param = fields.path(name);
                return Err(ApiError::unsupported(&param, format!("{param}: {why}")));
            }
        }
        if let Some(mut audio) = fields.object("audio")? {
            if let Some(input) = audio.object("input")? {
                new.take_input(input, abilities)?;
            }
            new.take_output(&mut audio)?;
            audio.finish();
        }
        new.take_answer(&mut fields, abilities)?;
        fields.finish();
        Ok(new)
    }

    /// These settings for one response, as `response.create` says.
    ///
    /// # Errors
    /// 400 naming the field at fault.
    pub fn of_response(&self, fields: &mut Fields, abilities: Abilities) -> Result<Self, ApiError> {
        let mut new = self.clone();
        if let Some(mut audio) = fields.object("audio")? {
            new.take_output(&mut audio)?;
            audio.finish();
        }
        if fields.value("prompt").is_some() {
            let message = "response.prompt: this server has no prompt templates: use instructions";
            return Err(ApiError::unsupported("response.prompt", message));
        }
        new.take_answer(fields, abilities)?;
        Ok(new)
    }

    /// What sessions and responses both have.
    fn take_answer(&mut self, fields: &mut Fields, abilities: Abilities) -> Result<(), ApiError> {
        if let Some(instructions) = fields.string("instructions")? {
            self.instructions = Some(instructions).filter(|text| !text.is_empty());
        }
        if let Some(modalities) = fields.array("output_modalities")? {
            let param = fields.path("output_modalities");
            self.speaks = match modalities.as_slice() {
                [only] if only == "text" => false,
                [only] if only == "audio" => true,
                _ => {
                    let message =
                        format!("{param} must be [\"text\"] or [\"audio\"]: spoken answers come with a transcript");
                    return Err(ApiError::field(&param, message));
                }
            };
            if self.speaks && !abilities.speaks {
                let message = format!("{param} is audio: this server has no model that speaks (--speech-model)");
                return Err(ApiError::unsupported(&param, message));
            }
        }
        for name in ["tools", "tool_choice", "parallel_tool_calls", "reasoning", "truncation"] {
            if let Some(value) = fields.value(name) {
                self.answer.insert(name.into(), value);
            }
        }
        match fields.value("max_output_tokens") {
            None => {}
            Some(Value::String(all)) if all == "inf" => drop(self.answer.remove("max_output_tokens")),
            Some(most) => drop(self.answer.insert("max_output_tokens".into(), most)),
        }
        Ok(())
    }

    fn take_input(&mut self, mut input: Fields, abilities: Abilities) -> Result<(), ApiError> {
        if let Some(format) = SoundFormat::take(&mut input)? {
            self.input = format;
        }
        if input.value("noise_reduction").is_some() {
            let param = input.path("noise_reduction");
            return Err(ApiError::unsupported(&param, format!("{param}: this server reduces no noise: leave it out")));
        }
        if input.is_null("transcription") {
            self.transcription = None;
        } else if let Some(mut wanted) = input.object("transcription")? {
            for name in ["delay", "keywords", "languages"] {
                if wanted.value(name).is_some() {
                    let param = wanted.path(name);
                    let message = format!("{param} is not supported: use language and prompt");
                    return Err(ApiError::unsupported(&param, message));
                }
            }
            self.transcription = Some(Transcription {
                model: wanted.string("model")?,
                language: wanted.string("language")?,
                prompt: wanted.string("prompt")?,
            });
            wanted.finish();
        }
        if input.is_null("turn_detection") {
            self.turns = None;
        } else if let Some(wanted) = input.object("turn_detection")? {
            self.turns = Some(take_turns(wanted, self.turns.unwrap_or(USUAL_TURNS), abilities)?);
        }
        input.finish();
        Ok(())
    }

    fn take_output(&mut self, audio: &mut Fields) -> Result<(), ApiError> {
        let Some(mut output) = audio.object("output")? else { return Ok(()) };
        if let Some(format) = SoundFormat::take(&mut output)? {
            self.output = format;
        }
        match output.value("voice") {
            None => {}
            Some(Value::String(name)) => self.voice = Some(name),
            Some(value) => {
                let param = output.path("voice");
                let mut voice = Fields::of(value, &param)?;
                let id = voice.string("id")?;
                self.voice = Some(id.ok_or_else(|| ApiError::field(&param, format!("{param} has no id")))?);
            }
        }
        if let Some(speed) = output.number("speed")? {
            if !(0.25..=4.0).contains(&speed) {
                let param = output.path("speed");
                return Err(ApiError::field(&param, format!("{param} is {speed}: it must be from 0.25 to 4")));
            }
            self.speed = speed;
        }
        output.finish();
        Ok(())
    }

    /// As `session.created` and `session.updated` show them.
    pub fn to_json(&self, id: &str) -> Value {
        let transcription = self
            .transcription
            .as_ref()
            .map(|wanted| json!({ "model": wanted.model, "language": wanted.language, "prompt": wanted.prompt }));
        let turns = self.turns.map(|turns| {
            json!({
                "type": "server_vad",
                "threshold": turns.threshold,
                "prefix_padding_ms": turns.padding_ms,
                "silence_duration_ms": turns.silence_ms,
                "create_response": turns.respond,
                "interrupt_response": turns.interrupt,
            })
        });
        let input = json!({
            "format": self.input.to_json(),
            "noise_reduction": null,
            "transcription": transcription,
            "turn_detection": turns,
        });
        if self.kind == Kind::Transcribe {
            let audio = json!({ "input": input });
            return json!({ "id": id, "object": "realtime.session", "type": "transcription", "audio": audio });
        }
        let output = json!({ "format": self.output.to_json(), "voice": self.voice, "speed": self.speed });
        let answer = |name: &str, usual: Value| self.answer.get(name).cloned().unwrap_or(usual);
        json!({
            "id": id,
            "object": "realtime.session",
            "type": "realtime",
            "model": self.model,
            "output_modalities": [if self.speaks { "audio" } else { "text" }],
            "instructions": self.instructions.as_deref().unwrap_or_default(),
            "audio": { "input": input, "output": output },
            "tools": answer("tools", json!([])),
            "tool_choice": answer("tool_choice", json!("auto")),
            "max_output_tokens": answer("max_output_tokens", json!("inf")),
            "truncation": answer("truncation", json!("auto")),
            "include": null,
            "prompt": null,
            "tracing": null,
        })
    }
}

fn take_turns(mut wanted: Fields, usual: Turns, abilities: Abilities) -> Result<Turns, ApiError> {
    let param = wanted.path("type");
    match wanted.string("type")?.as_deref() {
        Some("server_vad") => {}
        other => {
            let message = format!("{param} is {}: this server has server_vad", other.unwrap_or("missing"));
            return Err(ApiError::unsupported(&param, message));
        }
    }
    if !abilities.detects || !abilities.hears {
        let message = format!(
            "{param} is server_vad: this server was not told of a model that tells speech from silence (--vad-model) and one \
             that hears (--transcription-model); without turn_detection, commit the buffer yourself"
        );
        return Err(ApiError::unsupported(&param, message));
    }
    if wanted.value("idle_timeout_ms").is_some() {
        let param = wanted.path("idle_timeout_ms");
        return Err(ApiError::unsupported(&param, format!("{param} is not supported: leave it out")));
    }
    let threshold = wanted.number("threshold")?.unwrap_or(usual.threshold);
    if !(0.0..=1.0).contains(&threshold) {
        let param = wanted.path("threshold");
        return Err(ApiError::field(&param, format!("{param} is {threshold}: it must be from 0 to 1")));
    }
    let mut millis = |name: &str, usual: u32| {
        Ok::<_, ApiError>(wanted.integer(name, 0..=10_000)?.map_or(usual, |ms| u32::try_from(ms).unwrap_or(usual)))
    };
    let turns = Turns {
        threshold,
        padding_ms: millis("prefix_padding_ms", usual.padding_ms)?,
        silence_ms: millis("silence_duration_ms", usual.silence_ms)?,
        respond: wanted.boolean("create_response")?.unwrap_or(usual.respond),
        interrupt: wanted.boolean("interrupt_response")?.unwrap_or(usual.interrupt),
    };
    wanted.finish();
    Ok(turns)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Abilities = Abilities { hears: true, speaks: true, detects: true };
    const NONE: Abilities = Abilities { hears: false, speaks: false, detects: false };

    fn updated(value: Value, abilities: Abilities) -> Result<Settings, ApiError> {
        let fields = Fields::of(value, "session").unwrap();
        Settings::new(Kind::Talk, "m".into(), abilities).updated(fields, abilities)
    }

    #[test]
    fn sessions_begin_with_what_the_server_has() {
        let settings = Settings::new(Kind::Talk, "m".into(), ALL);
        assert!(settings.speaks && settings.turns == Some(USUAL_TURNS));
        let settings = Settings::new(Kind::Talk, "m".into(), NONE);
        assert!(!settings.speaks && settings.turns.is_none());
        let settings = Settings::new(Kind::Transcribe, String::new(), ALL);
        assert!(!settings.speaks && settings.transcription.is_some());
    }

    #[test]
    fn settings_are_taken() {
        let session = json!({
            "type": "realtime",
            "instructions": "Be brief.",
            "output_modalities": ["text"],
            "max_output_tokens": 12,
            "audio": {
                "input": {
                    "format": { "type": "audio/pcmu" },
                    "transcription": { "language": "en" },
                    "turn_detection": { "type": "server_vad", "silence_duration_ms": 200, "create_response": false },
                },
                "output": { "voice": { "id": "af_sky" }, "speed": 1.5, "format": { "type": "audio/pcm", "rate": 24000 } },
            },
        });
        let settings = updated(session, ALL).unwrap();
        assert_eq!(settings.turns, Some(Turns { silence_ms: 200, respond: false, ..USUAL_TURNS }));
        let shown = settings.to_json("sess");
        for (pointer, wanted) in [
            ("/instructions", json!("Be brief.")),
            ("/output_modalities", json!(["text"])),
            ("/max_output_tokens", json!(12)),
            ("/audio/input/format/type", json!("audio/pcmu")),
            ("/audio/input/transcription/language", json!("en")),
            ("/audio/input/turn_detection/create_response", json!(false)),
            ("/audio/output/voice", json!("af_sky")),
            ("/audio/output/speed", json!(1.5)),
        ] {
            assert_eq!(shown.pointer(pointer), Some(&wanted), "{pointer}");
        }
        let off = json!({ "audio": { "input": { "turn_detection": null, "transcription": null } }, "max_output_tokens": "inf" });
        let settings = settings.updated(Fields::of(off, "session").unwrap(), ALL).unwrap();
        assert!(settings.turns.is_none() && settings.transcription.is_none());
        assert_eq!(settings.to_json("sess")["max_output_tokens"], "inf");
        assert_eq!(settings.instructions.as_deref(), Some("Be brief."), "what isn't said stays");
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let detection = |turns: Value| json!({ "audio": { "input": { "turn_detection": turns } } });
        for (session, abilities, param) in [
            (json!({ "type": "transcription" }), ALL, "session.type"),
            (json!({ "model": "another" }), ALL, "session.model"),
            (json!({ "tracing": "auto" }), ALL, "session.tracing"),
            (json!({ "include": ["item.input_audio_transcription.logprobs"] }), ALL, "session.include"),
            (json!({ "output_modalities": ["audio"] }), NONE, "session.output_modalities"),
            (json!({ "output_modalities": ["text", "audio"] }), ALL, "session.output_modalities"),
            (json!({ "audio": { "output": { "speed": 9 } } }), ALL, "session.audio.output.speed"),
            (json!({ "audio": { "input": { "noise_reduction": { "type": "near_field" } } } }), ALL, "noise_reduction"),
            (json!({ "audio": { "input": { "format": { "type": "audio/mp3" } } } }), ALL, "format.type"),
            (json!({ "audio": { "input": { "format": { "type": "audio/pcm", "rate": 16000 } } } }), ALL, "rate"),
            (detection(json!({ "type": "semantic_vad" })), ALL, "turn_detection.type"),
            (detection(json!({ "type": "server_vad" })), NONE, "turn_detection.type"),
            (detection(json!({ "type": "server_vad", "threshold": 2 })), ALL, "threshold"),
            (detection(json!({ "type": "server_vad", "idle_timeout_ms": 5000 })), ALL, "idle_timeout_ms"),
        ] {
            let error = updated(session.clone(), abilities).unwrap_err();
            assert!(error.message().contains(param), "{session}: {}", error.message());
        }
    }
}
