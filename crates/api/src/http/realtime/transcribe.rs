//! What was said, written down.

use std::time::Duration;

use axum::http::HeaderMap;
use serde_json::json;
use tokio::sync::mpsc;
use vllm_audio::{Sound, resample};
use vllm_scheduler::TranscriptEvent;
use vllm_speech::whisper::DecodingOptions;

use super::{conversation::Samples, input::RATE, models, outbox::Outbox, settings::Transcription};
use crate::{
    http::{
        ApiError, App, blocking,
        call::{Call, Endpoint},
        request_id::Id,
        usage::Usage,
    },
    speech::{Heard, Listening},
};

/// The transcript of a part of an item.
#[derive(Debug)]
pub struct Transcribed {
    /// The item.
    pub item: String,
    /// The part.
    pub part: usize,
    /// What was said, or why that isn't known.
    pub text: Result<String, ApiError>,
}

/// Has samples transcribed, and tells the client (`told`) and the session.
pub async fn transcribe(
    app: App,
    books: (Id, HeaderMap),
    wanted: Transcription,
    told: Option<Outbox>,
    (item, part): (String, usize),
    samples: Samples,
    session: mpsc::Sender<Transcribed>,
) {
    let seconds = samples.len() as f64 / f64::from(RATE);
    let place = json!({ "item_id": item, "content_index": part });
    let mut text = String::new();
    let result = async {
        let model = models::transcriber(&app, wanted.model.as_deref())?;
        let mut call = Call::new(&app, Endpoint::AudioTranscriptions, books.0, &books.1);
        call.describe(model.names.first().map_or("", String::as_str), true);
        let Transcription { language, prompt, .. } = wanted;
        let options = DecodingOptions { language, prompt, ..DecodingOptions::default() };
        model.check(&options)?;
        let rate = model.sample_rate();
        let heard = blocking(move || {
            let duration = Duration::from_secs_f64(seconds);
            let samples = match rate {
                RATE => samples,
                // What models hear is at that rate, nearly always.
                other => resample(Sound { samples: samples.to_vec(), rate: RATE }, other).samples.into(),
            };
            Ok(Heard { samples, duration })
        });
        let listening = Listening { heard: heard.await?, speech: None, options };
        let mut events = model.listen(listening, call.client.clone(), app.config.timeout)?;
        call.working();
        let (mut tokens, mut times) = (0, None);
        while let Some(event) = events.next().await {
            match event {
                Ok(TranscriptEvent::Language { .. }) => {}
                Ok(TranscriptEvent::Segment(segment)) => {
                    call.first();
                    text.push_str(&segment.text);
                    if let Some(out) = &told {
                        let mut fields = place.clone();
                        fields["delta"] = json!(segment.text);
                        // Whoever is gone is noticed by the session.
                        let _ = out.send("conversation.item.input_audio_transcription.delta", fields).await;
                    }
                }
                Ok(TranscriptEvent::Done { tokens: written, queue, compute, .. }) => {
                    (tokens, times) = (written, Some((queue, compute)));
                }
                Err(failure) => {
                    call.worked(Err(&failure));
                    return Err(failure.into());
                }
            }
        }
        let Some(times) = times else { return Err(ApiError::engine("the transcript broke off")) };
        call.worked(Ok(times));
        call.count(Usage { completion_tokens: tokens, ..Usage::default() });
        Ok(())
    };
    let result = result.await.map(|()| text.trim().to_owned());
    if let Some(out) = &told {
        let mut fields = place;
        let kind = match &result {
            Ok(text) => {
                fields["transcript"] = json!(text);
                fields["usage"] = json!({ "type": "duration", "seconds": seconds });
                "conversation.item.input_audio_transcription.completed"
            }
            Err(error) => {
                fields["error"] = error.to_json()["error"].take();
                "conversation.item.input_audio_transcription.failed"
            }
        };
        let _ = out.send(kind, fields).await;
    }
    let _ = session.send(Transcribed { item, part, text: result }).await;
}
