//! A response that is sent as it is written.

use std::ops::ControlFlow;

use bytes::BytesMut;

use super::{object::Status, writer::ResponseWriter};
use crate::http::{
    ApiError,
    sse::{Chunk, Encoder},
    usage::Usage,
};

/// Writes the events of a response.
pub struct ResponseEncoder {
    writer: ResponseWriter,
    status: Status,
}

impl ResponseEncoder {
    /// For a response that has just begun.
    pub fn new(writer: ResponseWriter) -> Self {
        Self { writer, status: Status::Completed }
    }
}

impl Encoder for ResponseEncoder {
    fn start(&mut self, out: &mut BytesMut) {
        self.writer.start(out);
    }

    fn chunk(&mut self, out: &mut BytesMut, chunk: Chunk<'_>) -> ControlFlow<()> {
        if let Some(ending) = &chunk.ending {
            self.status = Status::of(ending.reason);
        }
        self.writer.push(chunk.text, chunk.tokens, chunk.count, Some(out))
    }

    fn end(&mut self, out: &mut BytesMut, usage: Usage) {
        self.writer.end(&self.status, Some(usage), Some(out));
    }

    fn error(&mut self, out: &mut BytesMut, error: &ApiError) {
        self.writer.end(&Status::failed(error), None, Some(out));
    }

    /// The last event says that it is the last.
    fn close(&mut self, _: &mut BytesMut) {}
}
