//! Calls whose clients may go on asking for as long as they like: they end when the server does, which else would wait for them.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http_body::Frame;

use crate::http::App;

/// Lets a request end when the server has begun to go down: as if its client had no more to ask, to which the service answers
/// with the end of its own side.
pub(super) async fn layer(State(app): State<App>, request: Request, next: Next) -> Response {
    let mut draining = app.draining();
    let end = Box::pin(async move { draining.begun().await });
    next.run(request.map(|inner| Body::new(Ending { inner: Some(inner), end }))).await
}

struct Ending {
    /// `None` after the end: the connection must not wait for what nobody reads.
    inner: Option<Body>,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl HttpBody for Ending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(inner).poll_frame(context) {
            return Poll::Ready(frame);
        }
        if self.end.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.inner = None;
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }
}
