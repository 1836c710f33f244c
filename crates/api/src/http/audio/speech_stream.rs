//! Speech as it comes: bytes of a sound file, or OpenAI's events with the same bytes in them.

use std::{
    io,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::Response,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::BytesMut;
use futures_util::stream::unfold;
use serde_json::json;
use vllm_audio::{EncodeError, Encoder, Format};
use vllm_scheduler::SpeechStream;

use crate::http::{
    ApiError, blocking,
    call::Call,
    sse::{event_stream, write_event},
};

struct Stream {
    call: Call,
    sound: SpeechStream,
    /// None when all is written, and while it works.
    encoder: Option<Encoder>,
    heartbeat: Duration,
    started: Instant,
    /// What was ready before the answer's head was sent.
    first: Option<Bytes>,
    /// Whether the last event is written.
    ended: bool,
}

/// What may come next.
enum Piece {
    Bytes(Bytes),
    /// Not yet.
    Nothing,
    End,
}

/// Answers with sound as soon as there is some. What goes wrong before is an error like others; what goes wrong after it breaks the
/// connection off, so that nobody takes half a text for the whole, or is an event.
///
/// # Errors
/// What the engine says.
pub async fn respond(
    call: Call,
    sound: SpeechStream,
    format: Format,
    rate: u32,
    events: bool,
    heartbeat: Duration,
) -> Result<Response, ApiError> {
    let encoder = Some(Encoder::new(format, rate).map_err(not_encoded)?);
    let mut stream = Stream { call, sound, encoder, heartbeat, started: Instant::now(), first: None, ended: false };
    stream.start().await?;
    let response = if events {
        event_stream(Body::from_stream(unfold(stream, |mut stream| async move {
            let frame = stream.event().await?;
            Some((Ok::<_, io::Error>(frame), stream))
        })))
    } else {
        let bytes = unfold(Some(stream), |stream| async move {
            let mut stream = stream?;
            match stream.bytes().await {
                Ok(None) => None,
                Ok(Some(bytes)) => Some((Ok(bytes), Some(stream))),
                Err(error) => Some((Err(io::Error::other(error.message().to_owned())), None)),
            }
        });
        let mut response = Response::new(Body::from_stream(bytes));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(format.mime()));
        response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    };
    Ok(response)
}

impl Stream {
    /// What comes next. No bytes are empty but those of a text that has no sound.
    async fn piece(&mut self) -> Result<Piece, ApiError> {
        while let Some(encoder) = self.encoder.take() {
            let Ok(samples) = tokio::time::timeout(self.heartbeat, self.sound.next()).await else {
                self.encoder = Some(encoder);
                return Ok(Piece::Nothing);
            };
            let bytes = match samples.transpose() {
                Ok(Some(samples)) => {
                    self.call.first();
                    let (encoder, bytes) = blocking(move || push(encoder, &samples)).await?;
                    self.encoder = Some(encoder);
                    bytes
                }
                Ok(None) => {
                    self.call.worked(Ok((Duration::ZERO, self.started.elapsed())));
                    blocking(move || encoder.finish().map_err(not_encoded)).await?
                }
                Err(failure) => {
                    self.call.worked(Err(&failure));
                    return Err(failure.into());
                }
            };
            if !bytes.is_empty() {
                return Ok(Piece::Bytes(bytes.into()));
            }
        }
        Ok(Piece::End)
    }

    /// The first bytes, however long they take.
    async fn start(&mut self) -> Result<(), ApiError> {
        while self.first.is_none() && self.encoder.is_some() {
            if let Piece::Bytes(bytes) = self.piece().await? {
                self.first = Some(bytes);
            }
        }
        Ok(())
    }

    /// The next bytes of the file; none at its end.
    async fn bytes(&mut self) -> Result<Option<Bytes>, ApiError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        loop {
            match self.piece().await? {
                Piece::Bytes(bytes) => return Ok(Some(bytes)),
                Piece::Nothing => {}
                Piece::End => return Ok(None),
            }
        }
    }

    /// The next events; none after the last.
    async fn event(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let piece = match self.first.take() {
            Some(first) => Ok(Piece::Bytes(first)),
            None => self.piece().await,
        };
        let mut out = BytesMut::new();
        match piece {
            Ok(Piece::Nothing) => return Some(Bytes::from_static(b": still here\n\n")),
            Ok(Piece::Bytes(bytes)) => {
                let audio = BASE64_STANDARD.encode(bytes);
                write_event(&mut out, &json!({ "type": "speech.audio.delta", "audio": audio }));
                return Some(out.freeze());
            }
            Ok(Piece::End) => {
                // Symbols are what goes in; what comes out is counted in no tokens.
                let symbols = self.call.usage().prompt_tokens;
                let usage = json!({ "input_tokens": symbols, "output_tokens": 0, "total_tokens": symbols });
                write_event(&mut out, &json!({ "type": "speech.audio.done", "usage": usage }));
            }
            Err(error) => write_event(&mut out, &error.to_json()),
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
        self.ended = true;
        Some(out.freeze())
    }
}

/// Compressing sound takes processor time: not where async tasks run.
fn push(mut encoder: Encoder, samples: &[f32]) -> Result<(Encoder, Vec<u8>), ApiError> {
    let bytes = encoder.push(samples).map_err(not_encoded)?;
    Ok((encoder, bytes))
}

fn not_encoded(error: EncodeError) -> ApiError {
    ApiError::engine(error.to_string())
}
