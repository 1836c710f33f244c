//! `POST /v1/responses` and the routes on what came of it.
//!
//! A response is a list of items. [`output`] makes them of an answer, and [`events`] of what happens to them, for
//! whoever listens; so a stream, a whole response and one in the background are the same work. [`store`] keeps them.

mod charge;
mod events;
mod items;
mod messages;
mod object;
mod open_item;
mod output;
mod reasoning;
mod refuse;
mod request;
mod routes;
mod settings;
mod store;
mod stream;
mod tally;
mod tools;
mod truncate;
mod writer;

use axum::{Extension, body::Body, extract::State, http::HeaderMap, response::Response};
use object::{Head, Status};
use output::Output;
pub(super) use request::Request;
pub(super) use routes::{cancel, input_items, remove, retrieve};
use serde_json::Value;
use store::NewEntry;
pub use store::Store;
use stream::ResponseEncoder;
pub(super) use truncate::make_room;
use writer::ResponseWriter;

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
    let mut call = Call::new(&app, Endpoint::Responses, id, &headers);
    let Opened { fields, name, model } = open(&app, body).await?;
    let (config, served, store, owner) = (app.config, model.clone(), app.shared.responses.clone(), call.client.clone());
    let preparing = model.clone();
    let Staged { mut request, prepared: chat } = staged(
        &app,
        move || Request::parse(fields, &served, &config, &store, &owner),
        move |request| {
            if request.truncate {
                make_room(&mut request.chat, &preparing, &config);
            }
            let chat = request.chat.prepare(&preparing, &config);
            chat.map_err(|error| error.renamed("response_format", "text.format"))
        },
    )
    .await?;
    call.describe(&name, request.stream);
    call.loaded_media(&request.chat.media);
    let shown = std::mem::take(&mut request.shown);
    let head = Head { id: call.id.clone(), created: call.created, model: name, shown };
    let owner = call.client.clone();
    let choices = Choices::start(&model, call, &[chat.prompt], &chat.generation)?;
    let status = if request.background { Status::Queued } else { Status::InProgress };
    let object = head.object(&status, &[], None);
    let place = app.shared.responses.open(NewEntry {
        id: head.id.clone(),
        owner,
        kept: request.store,
        background: request.background,
        previous: request.previous,
        input: request.input.into(),
        object: object.clone(),
    });
    let output = Output::new(&chat.output, request.shape, model.clone());
    let writer = ResponseWriter { head, model, output, open: Some(place), next_event: 0 };
    if request.stream {
        return Ok(sse::respond(choices, ResponseEncoder::new(writer), app.config.pace()));
    }
    if request.background {
        tokio::spawn(write(choices, writer));
        return Ok(json_response(&object));
    }
    Ok(json_response(&write(choices, writer).await?))
}

/// Writes a whole response.
async fn write(mut choices: Choices, mut writer: ResponseWriter) -> Result<Value, ApiError> {
    let (mut status, mut begun) = (Status::Cancelled, false);
    while let Some((index, piece)) = choices.next().await {
        if !std::mem::replace(&mut begun, true) {
            writer.begin();
        }
        match piece.end.map(|end| choices.ending(end)).transpose() {
            Ok(Some(ending)) => status = Status::of(ending.reason),
            Ok(None) => {}
            Err(error) => {
                writer.end(&Status::failed(&error), None, None);
                return Err(error);
            }
        }
        let token = piece.token.as_ref();
        let tokens = token.filter(|token| token.logprobs.is_some()).map(std::slice::from_ref).unwrap_or_default();
        if writer.push(&piece.text, tokens, usize::from(token.is_some()), None).is_break() {
            choices.stop(index);
        }
    }
    Ok(writer.end(&status, Some(choices.usage()), None))
}
