//! Server-sent events of a bounded size.

use std::io;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream::BoxStream};
use sse_stream::{Error, Sse, SseStream};

/// The events of a body. An event longer than `most` bytes is an error.
pub fn events<E: std::error::Error + Send + Sync + 'static>(
    body: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    most: usize,
) -> BoxStream<'static, Result<Sse, Error>> {
    let mut size = EventSize::default();
    let bounded = body.map(move |chunk| {
        let chunk = chunk.map_err(io::Error::other)?;
        if size.largest(&chunk) > most {
            return Err(io::Error::other(format!("an event of more than {most} bytes")));
        }
        Ok(chunk)
    });
    // Nothing after the first error.
    let ended = bounded.scan(false, |failed, chunk| {
        let goes_on = !std::mem::replace(failed, chunk.is_err());
        std::future::ready(goes_on.then_some(chunk))
    });
    SseStream::from_bytes_stream(ended).boxed()
}

/// Bytes since the last empty line, which ends an event.
#[derive(Debug, Default)]
struct EventSize {
    event: usize,
    line: usize,
}

impl EventSize {
    /// Counts a chunk; the largest that an event has become in it.
    fn largest(&mut self, chunk: &[u8]) -> usize {
        let mut largest = 0;
        for &byte in chunk {
            self.event += 1;
            largest = largest.max(self.event);
            match byte {
                b'\n' if self.line == 0 => self.event = 0,
                b'\n' => self.line = 0,
                b'\r' => {}
                _ => self.line += 1,
            }
        }
        largest
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn events_have_a_largest_size() {
        let cases: [(&[&str], &[Option<&str>]); 6] = [
            (&["data: one\n\ndata: two\n\n"], &[Some("one"), Some("two")]),
            (&["da", "ta: one\r\n", "\r\nda", "ta: two\r\n\r\n"], &[Some("one"), Some("two")]),
            (&["data: 12345678901\n\n"], &[Some("12345678901")]),
            (&["data: 123456789012345\n\ndata: x\n\n"], &[None]),
            (&["data: 1234567", "89012345", "data: x\n\n"], &[None]),
            (&["data: one\n\n", "data: 1\ndata: 2\ndata: 3\n\n"], &[Some("one"), None]),
        ];
        for (chunks, wanted) in cases {
            let body =
                stream::iter(chunks.iter().map(|&chunk| Ok::<_, io::Error>(Bytes::from(chunk))).collect::<Vec<_>>());
            let got: Vec<Option<String>> =
                events(body, 20).map(|event| event.ok().and_then(|event| event.data)).collect().await;
            assert_eq!(got.iter().map(Option::as_deref).collect::<Vec<_>>(), wanted, "{chunks:?}");
        }
    }
}
