//! What a session tells its client.

use axum::extract::ws::Message;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::http::ApiError;

/// Events that may wait for a slow client; more make the session wait.
pub const WAITING: usize = 256;

/// The way to the client.
#[derive(Debug, Clone)]
pub struct Outbox(mpsc::Sender<Message>);

/// The client has gone away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

impl Outbox {
    /// One that sends into the given queue.
    pub fn new(queue: mpsc::Sender<Message>) -> Self {
        Self(queue)
    }

    /// Sends an event: `fields` with its type and an id.
    pub async fn send(&self, kind: &str, mut fields: Value) -> Result<(), Gone> {
        fields["type"] = json!(kind);
        fields["event_id"] = json!(format!("event_{}", crate::random::hex_id()));
        self.0.send(Message::Text(fields.to_string().into())).await.map_err(|_| Gone)
    }

    /// Sends an error, with the id of the client's event that it is about.
    pub async fn error(&self, error: &ApiError, about: Option<&str>) -> Result<(), Gone> {
        let mut error = error.to_json();
        error["error"]["event_id"] = json!(about);
        self.send("error", error).await
    }
}
