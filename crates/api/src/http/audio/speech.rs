//! `POST /v1/audio/speech`: a text, spoken.

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, Uri},
    response::Response,
};

use super::{models::unsuitable, speech_request::SpeechRequest, speech_stream};
use crate::http::{
    ApiError, App, blocking,
    call::{Call, Endpoint},
    fields::read_body,
    request_id::Id,
    usage::Usage,
};

pub async fn create(
    State(app): State<App>,
    Extension(id): Extension<Id>,
    headers: HeaderMap,
    uri: Uri,
    body: Body,
) -> Result<Response, ApiError> {
    let mut call = Call::new(&app, Endpoint::AudioSpeech, id, &headers);
    app.models()?;
    let body = read_body(body, app.config.body_limit).await?;
    let request = SpeechRequest::take(&body, &uri, app.config.audio.input_chars, app.config.timeout)?;
    let SpeechRequest { model: name, input, speaking, format, events, timeout } = request;
    call.describe(&name, true);
    let cannot = ("does not speak", "--speech-model");
    let model = app.speech.speaker(&name).ok_or_else(|| unsuitable(&app, &name, cannot))?;
    let speaker = model.clone();
    let plan = blocking(move || Ok(speaker.plan(&input, &speaking)?)).await?;
    call.count(Usage { prompt_tokens: plan.symbols(), ..Usage::default() });
    let sound = model.speak(plan, call.client.clone(), timeout)?;
    call.working();
    speech_stream::respond(call, sound, format, model.sample_rate(), events, app.config.heartbeat).await
}
