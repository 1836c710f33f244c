//! A time limit on bodies: who sends one byte a minute holds a connection, and its place in a queue, for ever.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::App;

/// The body has not come in time.
#[derive(Debug, thiserror::Error)]
#[error("the body has not come in within {0:?}")]
pub struct TooSlow(Duration);

/// Gives a request's body its time.
pub(crate) async fn layer(State(app): State<App>, request: Request, next: Next) -> Response {
    let request = match app.config.read_timeout {
        Some(limit) if !request.body().is_end_stream() => {
            request.map(|inner| Body::new(Timed { inner, limit, alarm: Box::pin(sleep(limit)) }))
        }
        _ => request,
    };
    next.run(request).await
}

struct Timed {
    inner: Body,
    limit: Duration,
    alarm: Pin<Box<Sleep>>,
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let limit = self.limit;
        self.alarm.as_mut().poll(context).map(|()| Some(Err(TooSlow(limit).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
