//! Anthropic's error schema.

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::Response,
};
use serde_json::{Value, json};

use crate::http::{ApiError, health::json_response, request_id::Id};

/// As Anthropic's SDKs know it.
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// `{"type": "error", "error": {"type", "message"}, "request_id"}`.
pub fn error_json(error: &ApiError, request_id: Option<&str>) -> Value {
    let kind = kind(error.status());
    let error = json!({ "type": kind, "message": error.message() });
    json!({ "type": "error", "error": error, "request_id": request_id })
}

fn kind(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        408 | 504 => "timeout_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        // Its own request was cancelled by somebody else: nothing is wrong with it.
        499 => "api_error",
        503 | 529 => "overloaded_error",
        400..=498 => "invalid_request_error",
        _ => "api_error",
    }
}

/// Anthropic has a number of its own for "not now".
fn status(status: StatusCode) -> StatusCode {
    match status {
        StatusCode::SERVICE_UNAVAILABLE => StatusCode::from_u16(529).unwrap_or(status),
        status => status,
    }
}

/// Says every error under `/v1/messages` in Anthropic's schema, whoever made it: handlers, the router, other layers.
pub async fn layer(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path != "/v1/messages" && !path.starts_with("/v1/messages/") {
        return next.run(request).await;
    }
    let id = request.extensions().get::<Id>().map(|id| id.0.clone());
    let mut response = next.run(request).await;
    if response.status().is_client_error() || response.status().is_server_error() {
        response = translated(response, id.as_deref());
    }
    if let Some(id) = id.and_then(|id| HeaderValue::from_str(&id).ok()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

fn translated(response: Response, id: Option<&str>) -> Response {
    let (mut parts, _) = response.into_parts();
    let error = parts.extensions.remove::<ApiError>().unwrap_or_else(|| {
        let reason = parts.status.canonical_reason().unwrap_or("the request failed");
        ApiError::new(parts.status, "error", reason)
    });
    let mut translated = json_response(&error_json(&error, id));
    *translated.status_mut() = status(parts.status);
    // All that is not about the body: when to try again, what to authenticate with, who may read this.
    for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH] {
        parts.headers.remove(name);
    }
    translated.headers_mut().extend(parts.headers);
    translated.extensions_mut().extend(parts.extensions);
    translated
}
