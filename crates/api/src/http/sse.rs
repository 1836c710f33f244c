//! Answers as server-sent events.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::Response,
};
use futures_util::stream::unfold;
use serde_json::Value;

use super::choices::{Choices, check_end};
use crate::answer::{Ending, Piece};

/// Writes the events of one route.
pub trait Encoder: Send + 'static {
    /// Events for a piece of answer `index`; `ending` is set on its last piece.
    fn piece(&mut self, index: usize, piece: Piece, ending: Option<Ending>) -> Vec<Value>;

    /// Events after all answers are complete.
    fn end(&mut self, choices: &Choices) -> Vec<Value>;
}

struct Stream<E> {
    choices: Choices,
    encoder: E,
    frames: VecDeque<Bytes>,
    /// Nothing comes but what is in `frames`.
    ended: bool,
    heartbeat: Duration,
}

/// A response that streams until all answers have ended, with `[DONE]` at its end, and a comment whenever nothing
/// has come for `heartbeat`, so that neither proxies nor a silent client's death go unnoticed.
pub fn respond<E: Encoder>(choices: Choices, encoder: E, heartbeat: Duration) -> Response {
    let stream = Stream { choices, encoder, frames: VecDeque::new(), ended: false, heartbeat };
    let body = unfold(stream, |mut stream| async move {
        let frame = stream.next_frame().await?;
        Some((Ok::<_, Infallible>(frame), stream))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Tells nginx not to wait for more.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

impl<E: Encoder> Stream<E> {
    async fn next_frame(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            if self.ended {
                return None;
            }
            match tokio::time::timeout(self.heartbeat, self.choices.next()).await {
                Err(_) => return Some(Bytes::from_static(b": still here\n\n")),
                Ok(Some((index, piece))) => self.take_in(index, piece),
                Ok(None) => {
                    let events = self.encoder.end(&self.choices);
                    self.finish(events);
                }
            }
        }
    }

    fn take_in(&mut self, index: usize, mut piece: Piece) {
        match piece.end.take().map(check_end).transpose() {
            Ok(ending) => {
                let events = self.encoder.piece(index, piece, ending);
                self.frames.extend(events.iter().map(frame));
            }
            // The status is sent already: an error is an event like others, and the last one.
            Err(error) => self.finish(vec![error.to_json()]),
        }
    }

    fn finish(&mut self, events: Vec<Value>) {
        self.frames.extend(events.iter().map(frame));
        self.frames.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
        self.ended = true;
    }
}

fn frame(event: &Value) -> Bytes {
    Bytes::from(format!("data: {event}\n\n"))
}
