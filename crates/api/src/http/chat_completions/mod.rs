//! `POST /v1/chat/completions`.

mod request;
mod response;
mod rounds;
mod stream;

use axum::{Extension, body::Body, extract::State, http::HeaderMap, response::Response};
use response::Envelope;
use stream::ChatEncoder;

use super::{
    ApiError, App, Opened, Staged,
    call::{Call, Endpoint},
    chat::Rounds,
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
    let mut call = Call::new(&app, Endpoint::ChatCompletions, id, &headers);
    let Opened { fields, name, model } = open(&app, body).await?;
    let (config, served, preparing, this) = (app.config, model.clone(), model.clone(), app.clone());
    let Staged { request, prepared: chat } = staged(
        &app,
        move || request::Request::parse(fields, &served, &config, this.mcp()),
        move |request| request.chat.prepare(&preparing, &config),
    )
    .await?;
    call.describe(&name, request.streaming.on);
    call.loaded_media(&request.chat.media);
    let envelope = Envelope { id: call.id.clone(), created: call.created, model: name };
    if let Some(tools) = request.server_tools {
        call.in_rounds();
        let output = chat.output.clone();
        let rounds = Rounds { model: model.clone(), config, chat: request.chat, first: Some(chat), tools, call };
        let turns = rounds.start();
        if request.streaming.on {
            let encoder = ChatEncoder::new(envelope, model, &output, 1, request.streaming.include_usage);
            return Ok(rounds::respond(turns, encoder, config.heartbeat));
        }
        return rounds::collect(turns, &envelope).await;
    }
    let choices = Choices::start(&model, call, &[chat.prompt], &chat.generation)?;
    if request.streaming.on {
        let encoder = ChatEncoder::new(envelope, model, &chat.output, choices.count(), request.streaming.include_usage);
        return Ok(sse::respond(choices, encoder, app.config.pace()));
    }
    let collected = choices.collect(&chat.output).await?;
    Ok(json_response(&envelope.complete(&model, collected, request.logprobs)))
}
