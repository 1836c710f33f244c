//! Calls that have no end of their own: they end when the server does, which else would wait for them.

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
use tonic::Status;

use crate::http::App;

/// How long a watcher may take to hear how the server stands, before its call is ended.
const GRACE: std::time::Duration = std::time::Duration::from_secs(1);

/// Ends the answer a moment after the server has begun to go down.
pub(super) async fn layer(State(app): State<App>, request: Request, next: Next) -> Response {
    let mut draining = app.draining();
    let end = Box::pin(async move {
        draining.begun().await;
        tokio::time::sleep(GRACE).await;
    });
    next.run(request).await.map(|inner| Body::new(Ending { inner: Some(inner), end }))
}

struct Ending {
    /// `None` after the end.
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
        let mut trailers = axum::http::HeaderMap::new();
        // Our own words always make a header.
        let _ = Status::unavailable("the server is shutting down").add_header(&mut trailers);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }
}
