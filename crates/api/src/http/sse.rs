//! Answers as server-sent events.

use std::{
    convert::Infallible,
    ops::ControlFlow,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::Response,
};
use bytes::{BufMut as _, BytesMut};
use futures_util::stream::poll_fn;
use serde::Serialize;
use tokio::time::{Instant, Sleep};
use vllm_scheduler::GeneratedToken;

use super::{ApiError, choices::Choices, usage::Usage};
use crate::answer::{Ending, Piece};

/// Writes the events of one route. Most of a chunk is the same for every token, so encoders write text into `out`
/// rather than build a tree for each.
pub trait Encoder: Send + 'static {
    /// Writes the events that come before any answer.
    fn start(&mut self, out: &mut BytesMut) {
        let _ = out;
    }

    /// Writes the events for a chunk of an answer. After `Break` nothing more of that answer is wanted: the engine
    /// stops it, and its ending comes as if it had stopped by itself.
    fn chunk(&mut self, out: &mut BytesMut, chunk: Chunk<'_>) -> ControlFlow<()>;

    /// Writes the events after all answers are complete.
    fn end(&mut self, out: &mut BytesMut, usage: Usage);

    /// Writes the event that says why there won't be more.
    fn error(&mut self, out: &mut BytesMut, error: &ApiError) {
        write_event(out, &error.to_json());
    }

    /// Writes what ends the stream, whichever way it went.
    fn close(&mut self, out: &mut BytesMut) {
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    /// What breaks a silence. A comment, which no client sees, unless the API has something better.
    fn heartbeat(&self) -> &'static [u8] {
        b": still here\n\n"
    }
}

/// What came of an answer since its last chunk.
#[derive(Debug)]
pub struct Chunk<'a> {
    /// Which answer.
    pub index: usize,
    /// Its text, whole characters; may be empty.
    pub text: &'a str,
    /// Its tokens, if they have log probabilities.
    pub tokens: &'a [GeneratedToken],
    /// Number of its tokens, log probabilities or not.
    pub count: usize,
    /// Set on its last chunk.
    pub ending: Option<Ending>,
}

/// How a response streams.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Tokens of a chunk; the first has a chunk of its own.
    pub interval: usize,
    /// Longest silence: after it comes a comment.
    pub heartbeat: Duration,
}

/// Bytes that are worth a frame of their own: what is ready is sent together, up to about this much.
const FRAME_BYTES: usize = 16 << 10;

struct Stream<E> {
    choices: Choices,
    encoder: E,
    pace: Pace,
    /// By answer: what has come and was not sent yet.
    held: Vec<Held>,
    out: BytesMut,
    /// Nothing comes but what is in `out`.
    ended: bool,
    last_frame: Instant,
    alarm: Pin<Box<Sleep>>,
}

#[derive(Default)]
struct Held {
    text: String,
    tokens: Vec<GeneratedToken>,
    count: usize,
    started: bool,
}

/// A response that streams until all answers have ended, with a heartbeat whenever nothing has come for a while, so that neither proxies nor a silent client's death go unnoticed.
pub fn respond<E: Encoder>(choices: Choices, mut encoder: E, pace: Pace) -> Response {
    let mut out = BytesMut::new();
    encoder.start(&mut out);
    let mut stream = Box::new(Stream {
        held: (0..choices.count()).map(|_| Held::default()).collect(),
        choices,
        encoder,
        pace,
        out,
        ended: false,
        last_frame: Instant::now(),
        alarm: Box::pin(tokio::time::sleep(pace.heartbeat)),
    });
    let frames = poll_fn(move |context| stream.poll_frame(context).map(|frame| frame.map(Ok::<_, Infallible>)));
    event_stream(Body::from_stream(frames))
}

/// A response of server-sent events.
pub fn event_stream(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Tells nginx not to wait for more.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

impl<E: Encoder> Stream<E> {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        while !self.ended && self.out.len() < FRAME_BYTES {
            match self.choices.poll_next(context) {
                Poll::Pending => break,
                Poll::Ready(Some((index, piece))) => self.take_in(index, piece),
                Poll::Ready(None) => {
                    self.encoder.end(&mut self.out, self.choices.usage());
                    self.finish();
                }
            }
        }
        if !self.out.is_empty() {
            self.last_frame = Instant::now();
            return Poll::Ready(Some(self.out.split().freeze()));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        self.poll_heartbeat(context)
    }

    /// The alarm is set anew only when it rings: moving it for every token would cost more than the token's text.
    fn poll_heartbeat(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            ready!(self.alarm.as_mut().poll(context));
            let now = Instant::now();
            let due = now >= self.last_frame + self.pace.heartbeat;
            if due {
                self.last_frame = now;
            }
            self.alarm.as_mut().reset(self.last_frame + self.pace.heartbeat);
            if due {
                return Poll::Ready(Some(Bytes::from_static(self.encoder.heartbeat())));
            }
        }
    }

    fn take_in(&mut self, index: usize, piece: Piece) {
        let ending = match piece.end.map(|end| self.choices.ending(end)).transpose() {
            Ok(ending) => ending,
            // The status is sent already: an error is an event like others, and the last one.
            Err(error) => {
                self.encoder.error(&mut self.out, &error);
                return self.finish();
            }
        };
        let held = &mut self.held[index];
        held.text.push_str(&piece.text);
        if let Some(token) = piece.token {
            held.count += 1;
            held.tokens.extend(token.logprobs.is_some().then_some(token));
        }
        if ending.is_some() || !held.started || held.count >= self.pace.interval {
            let Held { text, tokens, count, .. } = &*held;
            let chunk = Chunk { index, text, tokens, count: *count, ending };
            if self.encoder.chunk(&mut self.out, chunk).is_break() {
                self.choices.stop(index);
            }
            held.text.clear();
            held.tokens.clear();
            (held.count, held.started) = (0, true);
        }
    }

    fn finish(&mut self) {
        self.encoder.close(&mut self.out);
        self.ended = true;
    }
}

/// Writes one event with a name.
pub fn write_named_event(out: &mut BytesMut, name: &str, event: &impl Serialize) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\n");
    write_event(out, event);
}

/// Writes one event.
pub fn write_event(out: &mut BytesMut, event: &impl Serialize) {
    out.extend_from_slice(b"data: ");
    write_json(out, event);
    out.extend_from_slice(b"\n\n");
}

/// Writes a value as JSON.
pub fn write_json(out: &mut BytesMut, value: &(impl Serialize + ?Sized)) {
    // Strings, numbers and trees of them: neither they nor memory can refuse to be written.
    let _ = serde_json::to_writer(out.writer(), value);
}
