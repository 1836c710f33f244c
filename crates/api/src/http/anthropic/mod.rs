//! Anthropic's Messages API: `POST /v1/messages`, `POST /v1/messages/count_tokens`, and errors in its schema.
//!
//! `anthropic-version` and `anthropic-beta` may say what they like: what a body asks for is what it gets.

mod blocks;
mod count_tokens;
mod error;
mod messages;
mod request;
mod response;
mod stream;
mod thinking;
mod tools;

use axum::{Extension, body::Body, extract::State, http::HeaderMap, response::Response};
pub(super) use count_tokens::create as count_tokens;
pub(super) use error::layer;
use request::{CONTEXT_LENGTH, Prepared, Request, too_long};
use response::Envelope;
use stream::MessageEncoder;

use super::{
    ApiError, App, Opened, Staged,
    call::{Call, Endpoint},
    choices::Choices,
    health::json_response,
    open,
    request_id::Id,
    sse, staged,
};

pub(super) async fn create(
    State(app): State<App>,
    Extension(id): Extension<Id>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let mut call = Call::new(&app, Endpoint::AnthropicMessages, id.clone(), &headers);
    let Opened { fields, name, model } = open(&app, body).await?;
    let (config, served, preparing) = (app.config, model.clone(), model.clone());
    let Staged { request, prepared: Prepared { chat, is_cut } } = staged(
        &app,
        move || Request::parse(fields, &served, &config),
        move |request| request.prepare(&preparing, &config),
    )
    .await?;
    call.describe(&name, request.stream);
    call.loaded_media(&request.chat.media);
    let envelope = Envelope {
        id: call.id.clone(),
        model: name,
        stop: request.chat.stop,
        is_cut,
        omit_thinking: request.omit_thinking,
    };
    let tokens = chat.prompt.tokens.len();
    let choices =
        Choices::start(&model, call, &[chat.prompt], &chat.generation).map_err(|error| match error.code() {
            Some(CONTEXT_LENGTH) => too_long(tokens, &model),
            _ => error,
        })?;
    if request.stream {
        let encoder = MessageEncoder::new(envelope, id.name, tokens, &chat.output);
        return Ok(sse::respond(choices, encoder, app.config.pace()));
    }
    let collected = choices.collect(&chat.output).await?;
    match collected.answers.first() {
        Some(answer) => Ok(json_response(&envelope.complete(answer, collected.usage))),
        None => Err(ApiError::engine("there is no answer")),
    }
}
