//! Conversations in rounds, between which this server runs tools, as responses.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use bytes::BytesMut;
use futures_util::stream::unfold;
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;

use super::{
    response::{Envelope, finish_reason, message_json},
    stream::ChatEncoder,
};
use crate::http::{
    ApiError,
    chat::{Finished, RunCall, Turn},
    health::json_response,
    sse::{Encoder, event_stream, write_event},
};

/// The whole conversation.
///
/// # Errors
/// Whatever went wrong in a round.
pub async fn collect(mut turns: Receiver<Turn>, envelope: &Envelope) -> Result<Response, ApiError> {
    while let Some(turn) = turns.recv().await {
        if let Turn::End(result) = turn {
            return Ok(json_response(&complete(envelope, &(*result)?)));
        }
    }
    Err(ApiError::engine("the conversation broke off"))
}

fn complete(envelope: &Envelope, finished: &Finished) -> Value {
    let Finished { message, ending, usage, ran } = finished;
    json!({
        "id": envelope.id,
        "object": "chat.completion",
        "created": envelope.created,
        "model": envelope.model,
        "choices": [{
            "index": 0,
            "message": message_json(message),
            "logprobs": null,
            "finish_reason": finish_reason(ending, message.calls.len()),
        }],
        "usage": usage.to_json(),
        // What was done on the way, for whoever wants to know.
        "mcp_calls": ran.iter().map(RunCall::to_json).collect::<Vec<_>>(),
    })
}

/// The conversation as it goes.
pub fn respond(turns: Receiver<Turn>, encoder: ChatEncoder, heartbeat: Duration) -> Response {
    let mut first = BytesMut::new();
    encoder.writer.role(&mut first, 0);
    let frames =
        unfold((turns, encoder, first, false), move |(mut turns, mut encoder, mut out, mut over)| async move {
            if out.is_empty() {
                if over {
                    return None;
                }
                match tokio::time::timeout(heartbeat, turns.recv()).await {
                    Err(_) => out.extend_from_slice(encoder.heartbeat()),
                    Ok(turn) => over = write(&mut encoder, &mut out, turn),
                }
            }
            let frame: Bytes = out.split().freeze();
            Some((Ok::<_, Infallible>(frame), (turns, encoder, out, over)))
        });
    event_stream(Body::from_stream(frames))
}

/// Writes a turn; true if it was the last.
fn write(encoder: &mut ChatEncoder, out: &mut BytesMut, turn: Option<Turn>) -> bool {
    match turn {
        Some(Turn::Event(event)) => {
            encoder.writer.event(out, 0, &event, &[]);
            return false;
        }
        Some(Turn::Ran(call)) => {
            let mut chunk = encoder.writer.envelope.chunk(json!([]));
            chunk["mcp_calls"] = json!([call.to_json()]);
            write_event(out, &chunk);
            return false;
        }
        Some(Turn::End(end)) => match *end {
            Ok(finished) => {
                encoder.writer.finish(out, 0, finish_reason(&finished.ending, finished.message.calls.len()));
                encoder.writer.usage(out, finished.usage);
            }
            Err(error) => encoder.error(out, &error),
        },
        None => encoder.error(out, &ApiError::engine("the conversation broke off")),
    }
    encoder.close(out);
    true
}
