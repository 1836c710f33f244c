//! `GET /version`.

use axum::response::Response;
use serde_json::json;

use super::health::json_response;

pub(super) async fn get() -> Response {
    json_response(&json!({ "version": env!("CARGO_PKG_VERSION") }))
}
