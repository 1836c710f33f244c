//! `GET /v1/realtime`: a talk over a WebSocket, with any language model that is served.
//!
//! What the user says goes through the model that tells speech from silence ([`input`]) and the one that hears
//! ([`transcribe`]); the conversation ([`conversation`]) is answered as a request to Responses would be ([`response`]), and the
//! answer is said sentence by sentence while it is being written ([`speak`]). Events are OpenAI's, of its API that is generally
//! available, not of the beta before it.

mod answer;
mod conversation;
mod event;
mod format;
mod g711;
mod input;
mod models;
mod outbox;
mod response;
mod session;
mod settings;
mod speak;
mod transcribe;

use axum::{
    Extension,
    extract::{
        Query, State, WebSocketUpgrade,
        rejection::QueryRejection,
        ws::{Message, WebSocket},
    },
    http::HeaderMap,
    response::Response,
};
use outbox::{Outbox, WAITING};
use serde::Deserialize;
use session::Session;
use settings::Kind;
use tokio::sync::mpsc;

use super::{ApiError, App, request_id::Id};

/// Longest event: OpenAI's own limit for sound in one.
const LONGEST: usize = 15 << 20;

/// What the URL asks for.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    model: Option<String>,
    intent: Option<String>,
    call_id: Option<String>,
}

pub(super) async fn connect(
    State(app): State<App>,
    Extension(id): Extension<Id>,
    headers: HeaderMap,
    asked: Result<Query<Asked>, QueryRejection>,
    socket: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let Query(asked) = asked.map_err(|error| ApiError::invalid(None, error.body_text()))?;
    let socket = socket.map_err(|_| {
        let message = "/v1/realtime is a WebSocket: ask for an upgrade of the connection";
        ApiError::invalid(None, message).with_code("websocket_expected")
    })?;
    if headers.get("openai-beta").is_some_and(|value| value.as_bytes().starts_with(b"realtime")) {
        let message =
            "the beta of the realtime API is not served: leave out the header OpenAI-Beta and use its present events";
        return Err(ApiError::unsupported("OpenAI-Beta", message));
    }
    if asked.call_id.is_some() {
        return Err(ApiError::unsupported("call_id", "call_id: this server takes no calls over WebRTC or SIP"));
    }
    let kind = match asked.intent.as_deref() {
        None => Kind::Talk,
        Some("transcription") => Kind::Transcribe,
        Some(other) => {
            return Err(ApiError::unsupported("intent", format!("intent is {other:?}: it may be transcription")));
        }
    };
    let model = match (kind, asked.model) {
        (Kind::Talk, Some(model)) => {
            // It is loaded now if need be, not at the first word.
            app.lease(&model).await?;
            model
        }
        (Kind::Talk, None) => return Err(ApiError::field("model", "model is missing: the URL must name it (?model=)")),
        (Kind::Transcribe, model) => {
            models::transcriber(&app, model.as_deref())?;
            model.unwrap_or_default()
        }
    };
    let socket = socket.max_message_size(LONGEST).max_frame_size(LONGEST).protocols(["realtime"]);
    Ok(socket.on_upgrade(move |socket| serve(socket, app, id, headers, kind, model)))
}

/// Carries messages between the socket and its session.
async fn serve(mut socket: WebSocket, app: App, id: Id, headers: HeaderMap, kind: Kind, model: String) {
    let (sender, mut outgoing) = mpsc::channel(WAITING);
    let (incoming, receiver) = mpsc::channel(WAITING);
    let session = Session::new(app, id, headers, kind, model, Outbox::new(sender));
    let running = tokio::spawn(session.run(receiver));
    loop {
        tokio::select! {
            message = outgoing.recv() => match message {
                Some(message) => if socket.send(message).await.is_err() { break },
                None => break,
            },
            // No more is read while the session is behind.
            place = incoming.reserve() => {
                let Ok(place) = place else { break };
                tokio::select! {
                    message = outgoing.recv() => match message {
                        Some(message) => if socket.send(message).await.is_err() { break },
                        None => break,
                    },
                    message = socket.recv() => match message {
                        Some(Ok(message)) => place.send(message),
                        Some(Err(_)) | None => break,
                    },
                }
            }
        }
    }
    // What is under way for it ends with it.
    running.abort();
    let _ = socket.send(Message::Close(None)).await;
}
