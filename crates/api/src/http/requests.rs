//! `DELETE /v1/requests/{id}` and `POST /v1/requests/{id}/cancel`.

use axum::{
    Extension,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use serde_json::json;

use super::{ApiError, App, engine_says, health::json_response, request_id::Id};

/// Ends what the engine computes for a request, at its next step.
///
/// The id is the one of the response's body, or of its `x-request-id`. The call that is cancelled gets 499
/// `request_cancelled`, or, if it streams, `finish_reason: "abort"` on the answers that were under way. Where keys are
/// wanted, nobody sees or ends the requests of another key's owner.
pub(super) async fn cancel(
    State(app): State<App>,
    Extension(asking): Extension<Id>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let Some(model) = end(&app, &asking, &id).await? else {
        let message = format!("there is no request {id:?} under way: it has ended, or never was");
        return Err(ApiError::new(StatusCode::NOT_FOUND, "request_not_found", message).with_param("id"));
    };
    Ok(json_response(&json!({
        "object": "request.cancel",
        "id": id,
        "cancelled": true,
        "model": model,
    })))
}

/// Ends the requests of that name which are the asking one's own to end, and says which model they were for; `None` if there
/// were none.
///
/// # Errors
/// If the engine is too busy to say.
pub(crate) async fn end(app: &App, asking: &Id, id: &str) -> Result<Option<String>, ApiError> {
    let open = app.shared.access.rules().keys.is_empty();
    let mut model = None;
    let mut found = app.shared.registry.find(id);
    found.retain(|entry| open || entry.client == asking.caller.client);
    for entry in found {
        // First, so that whoever sees the end knows whose doing it was.
        entry.set_cancelled();
        let mut cancelled = false;
        for engine_id in &entry.engine_ids {
            cancelled |= engine_says(entry.model.engine.cancel(engine_id)).await?;
        }
        if cancelled {
            model = Some(entry.model.names.first().cloned().unwrap_or_default());
        }
        tracing::info!(id = entry.id, cancelled, "cancelled");
    }
    Ok(model)
}
