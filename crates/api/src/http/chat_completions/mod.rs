//! `POST /v1/chat/completions`.

mod request;
mod response;
mod rounds;
mod stream;

use axum::{Extension, body::Body, extract::State, http::HeaderMap, response::Response};
use response::Envelope;
use stream::ChatEncoder;

use super::{
    ApiError, App, Opened, blocking,
    call::{Call, Endpoint},
    chat::Rounds,
    choices::Choices,
    health::json_response,
    open,
    request_id::Id,
    sse,
};

pub(super) async fn create(
    State(app): State<App>,
    Extension(id): Extension<Id>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let mut call = Call::new(&app, Endpoint::ChatCompletions, id, &headers);
    let Opened { fields, name, model } = open(&app, body).await?;
    let (config, served, this) = (app.config, model.clone(), app.clone());
    let (request, chat) = blocking(move || {
        let request = request::Request::parse(fields, &served, &config, this.mcp())?;
        let chat = request.chat.prepare(&served, &config)?;
        Ok((request, chat))
    })
    .await?;
    call.describe(&name, request.streaming.on);
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
