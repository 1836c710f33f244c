//! What a client tells its session.

use serde_json::Value;

use crate::http::{ApiError, Fields};

/// An event with the id that its client gave it.
#[derive(Debug)]
pub struct ClientEvent {
    /// For errors about it.
    pub id: Option<String>,
    /// What it asks for.
    pub asks: Asks,
}

/// What an event asks for.
#[derive(Debug)]
pub enum Asks {
    /// `session.update`.
    Update(Fields),
    /// `input_audio_buffer.append`: base64.
    Append(String),
    /// `input_audio_buffer.commit`.
    Commit,
    /// `input_audio_buffer.clear`.
    Clear,
    /// `conversation.item.create`.
    CreateItem { previous: Option<String>, item: Value },
    /// `conversation.item.retrieve`.
    RetrieveItem(String),
    /// `conversation.item.truncate`.
    TruncateItem { id: String, part: usize, heard_ms: u64 },
    /// `conversation.item.delete`.
    DeleteItem(String),
    /// `response.create`.
    Respond(Fields),
    /// `response.cancel`.
    Cancel(Option<String>),
}

impl ClientEvent {
    /// Reads an event.
    ///
    /// # Errors
    /// 400 naming the field at fault, with the event's id as far as it is known.
    pub fn parse(text: &[u8]) -> Result<Self, (ApiError, Option<String>)> {
        let mut fields = Fields::parse(text).map_err(|error| (error, None))?;
        let id = fields.string("event_id").map_err(|error| (error, None))?;
        match asks(&mut fields) {
            Ok(asks) => {
                fields.finish();
                Ok(Self { id, asks })
            }
            Err(error) => Err((error, id)),
        }
    }
}

fn asks(fields: &mut Fields) -> Result<Asks, ApiError> {
    let missing = |name: &str| ApiError::field(name, format!("{name} is missing"));
    let kind = fields.string("type")?.ok_or_else(|| missing("type"))?;
    let mut item_id = || fields.string("item_id")?.ok_or_else(|| missing("item_id"));
    Ok(match kind.as_str() {
        "session.update" => Asks::Update(fields.object("session")?.ok_or_else(|| missing("session"))?),
        "input_audio_buffer.append" => Asks::Append(fields.string("audio")?.ok_or_else(|| missing("audio"))?),
        "input_audio_buffer.commit" => Asks::Commit,
        "input_audio_buffer.clear" => Asks::Clear,
        "conversation.item.create" => Asks::CreateItem {
            previous: fields.string("previous_item_id")?,
            item: fields.value("item").ok_or_else(|| missing("item"))?,
        },
        "conversation.item.retrieve" => Asks::RetrieveItem(item_id()?),
        "conversation.item.delete" => Asks::DeleteItem(item_id()?),
        "conversation.item.truncate" => {
            let id = item_id()?;
            let part = fields.integer("content_index", 0..=i64::MAX)?.unwrap_or(0);
            let heard = fields.integer("audio_end_ms", 0..=i64::MAX)?.ok_or_else(|| missing("audio_end_ms"))?;
            Asks::TruncateItem { id, part: part as usize, heard_ms: heard.unsigned_abs() }
        }
        "response.create" => {
            Asks::Respond(fields.object("response")?.unwrap_or_else(|| Fields::within("response", Default::default())))
        }
        "response.cancel" => Asks::Cancel(fields.string("response_id")?),
        // A browser's own connection has a buffer of its own for what is played; here it is the client's.
        "output_audio_buffer.clear" => {
            let message = "output_audio_buffer.clear is for WebRTC: here your client holds what is to be played";
            return Err(ApiError::unsupported("type", message));
        }
        other => return Err(ApiError::unsupported("type", format!("type is {other:?}: there is no such event"))),
    })
}
