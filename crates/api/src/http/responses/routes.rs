//! Responses that exist: looked at, deleted, cancelled.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{Path, State},
    http::Uri,
    response::Response,
};
use serde_json::{Value, json};

use super::store::{Entry, Owner};
use crate::http::{ApiError, App, health::json_response, request_id::Id, requests};

/// How long a response that was cancelled is waited for: its stream ends only when its client has read it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Items of a page, and the most of one.
const PAGE: usize = 20;
const MAX_PAGE: usize = 100;

/// `GET /v1/responses/{id}`.
pub(in crate::http) async fn retrieve(
    State(app): State<App>,
    Extension(asking): Extension<Id>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let entry = find(&app, &id, &asking.caller.client)?;
    let query = query(&uri);
    if query.get("stream").is_some_and(|stream| stream == "true") {
        let message = "stream is not supported here: the events of a response are sent once, as it is written";
        return Err(ApiError::unsupported("stream", message));
    }
    Ok(json_response(&entry.state().object))
}

/// `DELETE /v1/responses/{id}`. One in the background ends with it: nobody could ask for it.
pub(in crate::http) async fn remove(
    State(app): State<App>,
    Extension(asking): Extension<Id>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let entry = app.shared.responses.remove(&id, &asking.caller.client).ok_or_else(|| not_found(&id))?;
    if entry.background && entry.state().turn.is_none() {
        stop(&app, asking.clone(), &id).await?;
    }
    Ok(json_response(&json!({ "id": id, "object": "response", "deleted": true })))
}

/// `POST /v1/responses/{id}/cancel`. Not only those in the background: a stream ends, too.
pub(in crate::http) async fn cancel(
    State(app): State<App>,
    Extension(asking): Extension<Id>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let owner = asking.caller.client.clone();
    if let Some(entry) = app.shared.responses.live(&id, &owner) {
        stop(&app, asking.clone(), &id).await?;
        // What is shown after that is how far it has come.
        let _ = tokio::time::timeout(PATIENCE, entry.ended()).await;
        return Ok(json_response(&entry.state().object));
    }
    let object = find(&app, &id, &owner)?.state().object;
    match object.get("status").and_then(Value::as_str) {
        Some("cancelled") => Ok(json_response(&object)),
        status => {
            let message = format!("the response {id:?} can't be cancelled: it is {}", status.unwrap_or("over"));
            Err(ApiError::field("id", message).with_code("response_ended"))
        }
    }
}

/// `GET /v1/responses/{id}/input_items`.
pub(in crate::http) async fn input_items(
    State(app): State<App>,
    Extension(asking): Extension<Id>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let entry = find(&app, &id, &asking.caller.client)?;
    let query = query(&uri);
    let limit = match query.get("limit") {
        None => PAGE,
        Some(text) => text.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit)).ok_or_else(|| {
            ApiError::field("limit", format!("limit is {text:?}: it must be a whole number from 1 to {MAX_PAGE}"))
        })?,
    };
    let mut items: Vec<&Value> = entry.input.iter().map(|item| &**item).collect();
    match query.get("order").map(String::as_str) {
        None | Some("desc") => items.reverse(),
        Some("asc") => {}
        Some(other) => {
            return Err(ApiError::field("order", format!("order is {other:?}: it must be asc or desc")));
        }
    }
    if let Some(after) = query.get("after") {
        let Some(at) = items.iter().position(|item| id_of(item) == Some(after)) else {
            let message = format!("after is {after:?}: there is no such item in this response's input");
            return Err(ApiError::field("after", message));
        };
        items.drain(..=at);
    }
    let has_more = items.len() > limit;
    items.truncate(limit);
    Ok(json_response(&json!({
        "object": "list",
        "data": items,
        "first_id": items.first().and_then(|item| id_of(item)),
        "last_id": items.last().and_then(|item| id_of(item)),
        "has_more": has_more,
    })))
}

fn id_of(item: &Value) -> Option<&str> {
    item.get("id").and_then(Value::as_str)
}

/// Ends what the engine computes for it. That it has ended meanwhile is no error.
async fn stop(app: &App, asking: Id, id: &str) -> Result<(), ApiError> {
    match requests::cancel(State(app.clone()), Extension(asking), Path(id.to_owned())).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

fn find(app: &App, id: &str, owner: &Owner) -> Result<Arc<Entry>, ApiError> {
    app.shared.responses.get(id, owner).ok_or_else(|| not_found(id))
}

fn not_found(id: &str) -> ApiError {
    let message = format!("there is no response {id:?}: it was not stored, was deleted or has been forgotten");
    ApiError::not_found("response_not_found", message).with_param("id")
}

fn query(uri: &Uri) -> HashMap<String, String> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect()
}
