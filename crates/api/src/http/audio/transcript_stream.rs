//! A transcript as it comes, in OpenAI's events: `transcript.text.delta` for each segment, `transcript.text.done` at the end.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use bytes::BytesMut;
use futures_util::stream::unfold;
use serde_json::json;
use vllm_scheduler::{Failure, TranscriptEvent, TranscriptStream};

use super::transcript_json::usage;
use crate::{
    http::{
        ApiError,
        call::Call,
        sse::{event_stream, write_event},
        usage::Usage,
    },
    speech::Transcribed,
};

struct Stream {
    call: Call,
    events: TranscriptStream,
    duration: Duration,
    heartbeat: Duration,
    heard: Transcribed,
    /// What came before the answer's head was sent.
    first: Option<Result<TranscriptEvent, Failure>>,
    /// Length of the text that was sent, in bytes.
    sent: usize,
    ended: bool,
}

/// Answers with events. What goes wrong before the first of them is an error like others.
///
/// # Errors
/// What the engine says.
pub async fn respond(
    mut call: Call,
    mut events: TranscriptStream,
    duration: Duration,
    heartbeat: Duration,
) -> Result<Response, ApiError> {
    // The first word can take a while: so long, proxies are kept awake by nothing but events.
    let first = tokio::time::timeout(heartbeat, events.next()).await.unwrap_or_default();
    if let Some(Err(failure)) = first {
        call.worked(Err(&failure));
        return Err(failure.into());
    }
    let heard = Transcribed::default();
    let stream = Stream { call, events, duration, heartbeat, heard, first, sent: 0, ended: false };
    let frames = unfold(stream, |mut stream| async move {
        let frame = stream.frame().await?;
        Some((Ok::<Bytes, Infallible>(frame), stream))
    });
    Ok(event_stream(Body::from_stream(frames)))
}

impl Stream {
    /// The next bytes; none at the end.
    async fn frame(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        while !self.ended && out.is_empty() {
            let event = match self.first.take() {
                Some(first) => Some(first),
                None => match tokio::time::timeout(self.heartbeat, self.events.next()).await {
                    Ok(event) => event,
                    Err(_) => return Some(Bytes::from_static(b": still here\n\n")),
                },
            };
            match event {
                Some(Ok(event)) => self.take(&mut out, event),
                Some(Err(failure)) => {
                    self.call.worked(Err(&failure));
                    write_event(&mut out, &ApiError::from(failure).to_json());
                    self.close(&mut out);
                }
                None => self.done(&mut out),
            }
        }
        (!out.is_empty()).then(|| out.freeze())
    }

    fn take(&mut self, out: &mut BytesMut, event: TranscriptEvent) {
        self.heard.take(event, |_| self.call.first());
        // All deltas together are the text, which has no space around it: what might be its end waits for the next segment.
        let text = self.heard.transcript.text();
        if let Some(delta) = text.get(self.sent..).filter(|delta| !delta.is_empty()) {
            write_event(out, &json!({ "type": "transcript.text.delta", "delta": delta }));
            self.sent = text.len();
        }
    }

    fn done(&mut self, out: &mut BytesMut) {
        let heard = &self.heard;
        self.call.worked(Ok((heard.queue, heard.compute)));
        self.call.count(Usage { completion_tokens: heard.tokens, ..Usage::default() });
        let text = heard.transcript.text();
        write_event(out, &json!({ "type": "transcript.text.done", "text": text, "usage": usage(self.duration) }));
        self.close(out);
    }

    fn close(&mut self, out: &mut BytesMut) {
        out.extend_from_slice(b"data: [DONE]\n\n");
        self.ended = true;
    }
}
