//! `x-request-id`: the caller's, or one of ours, on every response and in the log; and the counts of all requests.

use std::time::Instant;

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};

use super::{App, client::Caller, metrics::Counted};

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id that is taken over.
const MAX_LEN: usize = 128;

/// Name of a request and who sent it, for its handler.
#[derive(Debug, Clone)]
pub(crate) struct Id {
    pub name: String,
    pub caller: Caller,
}

pub(crate) async fn layer(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let given = request.headers().get(&HEADER).and_then(|value| value.to_str().ok());
    let id = match given {
        Some(id) if !id.is_empty() && id.len() <= MAX_LEN => id.to_owned(),
        _ => format!("req-{}", crate::random::hex_id()),
    };
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    request.extensions_mut().insert(Id { name: id.clone(), caller: Caller::default() });
    // The route, not the path: a path holds ids, and there would be a series for each.
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let counted = app.shared.http.start(&method, route);
    let start = Instant::now();
    let mut response = next.run(request).await;
    let status = response.status();
    tracing::debug!(%method, path, status = status.as_u16(), id, ms = start.elapsed().as_millis() as u64);
    response = response.map(|body| Body::new(Counted::new(body, counted, status)));
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}
