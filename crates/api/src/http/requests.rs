//! `DELETE /v1/requests/{id}` and `POST /v1/requests/{id}/cancel`.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use serde_json::json;

use super::{ApiError, App, engine_says, health::json_response};

/// Ends what the engine computes for a request, at its next step.
///
/// The id is the one of the response's body, or of its `x-request-id`. The call that is cancelled gets 499
/// `request_cancelled`, or, if it streams, `finish_reason: "abort"` on the answers that were under way.
pub(super) async fn cancel(State(app): State<App>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let mut model = None;
    let mut cancelled = false;
    for entry in app.shared.registry.find(&id) {
        // First, so that whoever sees the end knows whose doing it was.
        entry.set_cancelled();
        for engine_id in &entry.engine_ids {
            cancelled |= engine_says(entry.model.engine.cancel(engine_id)).await?;
        }
        model = entry.model.names.first().cloned();
        tracing::info!(id = entry.id, cancelled, "cancelled");
    }
    if !cancelled {
        let message = format!("there is no request {id:?} under way: it has ended, or never was");
        return Err(ApiError::new(StatusCode::NOT_FOUND, "request_not_found", message).with_param("id"));
    }
    Ok(json_response(&json!({
        "object": "request.cancel",
        "id": id,
        "cancelled": true,
        "model": model,
    })))
}
