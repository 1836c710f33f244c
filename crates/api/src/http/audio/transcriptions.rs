//! `POST /v1/audio/transcriptions` and `/v1/audio/translations`: what is said in a sound file.

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, Uri},
    response::Response,
};
use vllm_speech::whisper::Task;

use super::{
    models::unsuitable,
    transcript_json, transcript_stream,
    transcription_request::TranscriptionRequest,
    upload::{Upload, receive},
};
use crate::{
    http::{
        ApiError, App, blocking,
        call::{Call, Endpoint},
        request_id::Id,
        usage::Usage,
    },
    speech::{Listening, ServedTranscriber, collect, hear},
};

pub async fn transcribe(
    State(app): State<App>,
    Extension(id): Extension<Id>,
    headers: HeaderMap,
    uri: Uri,
    body: Body,
) -> Result<Response, ApiError> {
    let call = Call::new(&app, Endpoint::AudioTranscriptions, id, &headers);
    answer(&app, call, Task::Transcribe, &headers, &uri, body).await
}

pub async fn translate(
    State(app): State<App>,
    Extension(id): Extension<Id>,
    headers: HeaderMap,
    uri: Uri,
    body: Body,
) -> Result<Response, ApiError> {
    let call = Call::new(&app, Endpoint::AudioTranslations, id, &headers);
    answer(&app, call, Task::Translate, &headers, &uri, body).await
}

async fn answer(
    app: &App,
    mut call: Call,
    task: Task,
    headers: &HeaderMap,
    uri: &Uri,
    body: Body,
) -> Result<Response, ApiError> {
    // Not worth an upload as long as nobody can hear it.
    app.models()?;
    let received = receive(headers, body, app.config.audio.upload_bytes).await?;
    let request = TranscriptionRequest::take(received, uri, task, app.config.timeout)?;
    let TranscriptionRequest { model: name, upload, format, options, segments, voiced, stream, timeout } = request;
    call.describe(&name, stream);
    let cannot = ("transcribes nothing", "--transcription-model");
    let model = app.speech.transcriber(&name).ok_or_else(|| unsuitable(app, &name, cannot))?;
    model.check(&options)?;
    let finder = match voiced {
        None => None,
        Some(voiced) => {
            let message = "chunking_strategy: this server cannot find where somebody speaks: start it with --vad-model";
            let vad = app.speech.vad().ok_or_else(|| ApiError::unsupported("chunking_strategy", message))?;
            Some((vad, voiced))
        }
    };
    let (limit, client) = (app.config.audio.duration, call.client.clone());
    let (hearing, words) = (model.clone(), options.word_timestamps);
    let begun = blocking(move || {
        let Upload { file, hint, .. } = upload;
        let heard = hear(file, hint.as_deref(), limit, hearing.sample_rate())?;
        let speech = finder.map(|(vad, voiced)| vllm_speech::vad::speech(&vad, &heard.samples, &voiced));
        let duration = heard.duration;
        Ok((duration, hearing.listen(Listening { heard, speech, options }, client, timeout)?))
    });
    let (duration, mut events) = begun.await?;
    call.working();
    if stream {
        return transcript_stream::respond(call, events, duration, app.config.heartbeat).await;
    }
    let result = collect(&mut events, |_| call.first()).await;
    call.worked(result.as_ref().map(|heard| (heard.queue, heard.compute)));
    let mut heard = result?;
    call.count(Usage { completion_tokens: heard.tokens, ..Usage::default() });
    heard.transcript.duration = duration.as_secs_f64();
    complete_language(&model, &mut heard.transcript.language);
    let shown = transcript_json::Shown { task, segments, words };
    transcript_json::response(format, &heard.transcript, shown)
}

/// A model that knows one language says nothing of it.
fn complete_language(model: &ServedTranscriber, language: &mut Option<String>) {
    if language.is_none() {
        *language = model.only_language().map(Into::into);
    }
}
