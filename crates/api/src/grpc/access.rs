//! What refuses a call before its service sees it, in gRPC's words.

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use tonic::{Code, Status};

use super::status::status;
use crate::http::{ApiError, App};

/// Turns the answers of the layers within, which are HTTP's, into statuses. What else they say in headers stays.
pub(super) async fn layer(State(app): State<App>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let said = response.extensions().get::<ApiError>().map(status).or_else(|| too_large(&app, &response));
    let Some(status) = said else { return response };
    let mut refused: Response<Body> = status.into_http();
    for (name, value) in response.headers() {
        if name.as_str().starts_with("x-ratelimit-") {
            refused.headers_mut().insert(name, value.clone());
        }
    }
    refused
}

/// tonic says OUT_OF_RANGE where the protocol's other servers, and their clients, have RESOURCE_EXHAUSTED.
fn too_large(app: &App, response: &Response) -> Option<Status> {
    let status = response.extensions().get::<Status>()?;
    let is_size = status.code() == Code::OutOfRange && status.message().contains("message length too large");
    let message = format!("the message is longer than {} bytes (--max-body-mb)", app.config.body_limit);
    is_size.then(|| Status::resource_exhausted(message))
}
