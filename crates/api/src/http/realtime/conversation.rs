//! What was said in a session, item by item.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::http::ApiError;

/// An item, and what its client doesn't see of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Names it.
    pub id: String,
    /// As its client sees it.
    pub item: Value,
    /// Of the assistant's speech: how long each piece of its transcript takes to say.
    pub spoken: Vec<Spoken>,
    /// Parts of it whose transcripts are still to come.
    pub pending: usize,
}

/// A piece of a transcript.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spoken {
    /// Its length in bytes.
    pub bytes: usize,
    /// How long it is said.
    pub seconds: f64,
}

/// All of a session's items, in order.
#[derive(Debug, Default)]
pub struct Conversation {
    entries: Vec<Entry>,
}

impl Entry {
    /// One that is complete.
    pub fn new(id: String, item: Value) -> Self {
        Self { id, item, spoken: Vec::new(), pending: 0 }
    }

    /// Puts the transcript of a part in its place.
    pub fn heard(&mut self, part: usize, transcript: &str) {
        self.item["content"][part]["transcript"] = json!(transcript);
        self.pending = self.pending.saturating_sub(1);
    }
}

impl Conversation {
    /// Puts an item after another, `root`: before all; `None`: at the end. Returns the id of the one before it.
    ///
    /// # Errors
    /// 400 if that one isn't there, or there is one of the same id.
    pub fn insert(&mut self, previous: Option<&str>, entry: Entry) -> Result<Option<String>, ApiError> {
        if self.entries.iter().any(|other| other.id == entry.id) {
            return Err(ApiError::field(
                "item.id",
                format!("item.id is {:?}: there is such an item already", entry.id),
            ));
        }
        let at = match previous {
            None => self.entries.len(),
            Some("root") => 0,
            Some(id) => self.position("previous_item_id", id)? + 1,
        };
        let before = at.checked_sub(1).map(|before| self.entries[before].id.clone());
        self.entries.insert(at, entry);
        Ok(before)
    }

    /// Takes an item out.
    ///
    /// # Errors
    /// 400 if it isn't there; so too below.
    pub fn remove(&mut self, id: &str) -> Result<(), ApiError> {
        let at = self.position("item_id", id)?;
        self.entries.remove(at);
        Ok(())
    }

    /// An item.
    ///
    /// # Errors
    /// See [`remove`](Self::remove).
    pub fn get_mut(&mut self, id: &str) -> Result<&mut Entry, ApiError> {
        let at = self.position("item_id", id)?;
        Ok(&mut self.entries[at])
    }

    /// The last item's id.
    pub fn last_id(&self) -> Option<&str> {
        self.entries.last().map(|entry| entry.id.as_str())
    }

    /// Whether the transcript of something said is still to come.
    pub fn is_pending(&self) -> bool {
        self.entries.iter().any(|entry| entry.pending > 0)
    }

    /// Cuts the assistant's speech off where its client stopped listening: words that were not said by then are no part of the
    /// conversation.
    ///
    /// # Errors
    /// 400 if the item is no speech, or not so long.
    pub fn truncate(&mut self, id: &str, part: usize, heard_ms: u64) -> Result<(), ApiError> {
        let entry = self.get_mut(id)?;
        let total: f64 = entry.spoken.iter().map(|piece| piece.seconds).sum();
        let heard = heard_ms as f64 / 1000.0;
        let Some(Value::String(transcript)) = entry.item["content"].get_mut(part).map(|part| &mut part["transcript"])
        else {
            let message = format!("item {id:?} has no speech at content_index {part}");
            return Err(ApiError::field("content_index", message));
        };
        // A client counts samples of its own; it may be off by a frame or so.
        if heard > total + 0.1 {
            let message = format!("audio_end_ms is {heard_ms}: the item's sound has {:.0} ms", total * 1000.0);
            return Err(ApiError::field("audio_end_ms", message));
        }
        let (mut left, mut keep) = (heard, 0);
        let mut kept = Vec::new();
        for piece in &entry.spoken {
            let share = (left / piece.seconds.max(1e-9)).clamp(0.0, 1.0);
            let text = &transcript[keep..(keep + piece.bytes).min(transcript.len())];
            let bytes = if share < 1.0 { said_of(text, share) } else { text.len() };
            kept.push(Spoken { bytes, seconds: piece.seconds * share });
            keep += bytes;
            left -= piece.seconds;
            if share < 1.0 {
                break;
            }
        }
        transcript.truncate(keep);
        entry.spoken = kept;
        entry.item["status"] = json!("incomplete");
        Ok(())
    }

    /// The items as Responses have them.
    pub fn as_input(&self) -> Value {
        self.entries.iter().map(|entry| as_input(&entry.item)).collect()
    }

    fn position(&self, param: &str, id: &str) -> Result<usize, ApiError> {
        let found = self.entries.iter().position(|entry| entry.id == id);
        found.ok_or_else(|| ApiError::field(param, format!("{param} is {id:?}: there is no such item")))
    }
}

/// How much of a text, in bytes, had been said when `share` of it was: whole words.
fn said_of(text: &str, share: f64) -> usize {
    let until = (text.len() as f64 * share) as usize;
    let ends = text.char_indices().filter(|(_, char)| char.is_whitespace()).map(|(at, _)| at);
    ends.take_while(|&end| end <= until).last().unwrap_or(0)
}

/// An item as Responses have it: what was heard as text.
fn as_input(item: &Value) -> Value {
    let mut item = item.clone();
    let assistant = item["role"] == "assistant";
    if let Some(object) = item.as_object_mut() {
        // Theirs are of another form, and they are new to Responses.
        ["id", "object", "status"].iter().for_each(|name| drop(object.remove(*name)));
    }
    if let Some(parts) = item["content"].as_array_mut() {
        for part in parts {
            let text = part.get("transcript").or_else(|| part.get("text")).cloned().unwrap_or_default();
            match part["type"].as_str() {
                Some("input_audio") => *part = json!({ "type": "input_text", "text": text }),
                Some("output_audio" | "output_text" | "text" | "audio") if assistant => {
                    *part = json!({ "type": "output_text", "text": text, "annotations": [] });
                }
                _ => {}
            }
        }
    }
    item
}

/// Checks an item of a client's and fills in what it left out; also how much sound it has that is to be written down: for each such
/// part its index and base64.
///
/// # Errors
/// 400 naming the field at fault.
pub fn check_item(mut item: Value, id: impl FnOnce() -> String) -> Result<(Entry, Vec<(usize, String)>), ApiError> {
    let refused = |param: &str, message: String| Err(ApiError::field(param, format!("{param} {message}")));
    if !item.is_object() {
        return refused("item", "must be an object".into());
    }
    match item["type"].as_str().unwrap_or_default() {
        "message" | "function_call" | "function_call_output" => {}
        other => {
            return refused(
                "item.type",
                format!("is {other:?}: it must be message, function_call or function_call_output"),
            );
        }
    }
    let id = match &item["id"] {
        Value::Null => id(),
        Value::String(id) if !id.is_empty() && id.len() <= 64 => id.clone(),
        _ => return refused("item.id", "must be a string of at most 64 characters".into()),
    };
    let role = item["role"].as_str().unwrap_or_default().to_owned();
    let mut sounds = Vec::new();
    if item["type"] == "message" {
        if !matches!(role.as_str(), "system" | "user" | "assistant") {
            return refused("item.role", format!("is {role:?}: it must be system, user or assistant"));
        }
        let Some(parts) = item["content"].as_array_mut() else {
            return refused("item.content", "must be a list of parts".into());
        };
        for (index, part) in parts.iter_mut().enumerate() {
            let param = format!("item.content[{index}]");
            let kind = part["type"].as_str().unwrap_or_default().to_owned();
            let (needs, allowed) = match (kind.as_str(), role.as_str()) {
                ("input_text", "user" | "system") | ("output_text", "assistant") => ("text", true),
                ("input_image", "user") => ("image_url", true),
                ("output_audio", "assistant") => ("transcript", true),
                ("input_audio", "user") if part["transcript"].is_string() => ("transcript", true),
                ("input_audio", "user") => ("audio", true),
                _ => ("", false),
            };
            if !allowed {
                return refused(&param, format!("is of type {kind:?}, which a message of role {role} has not"));
            }
            let Some(content) = part[needs].as_str().map(str::to_owned) else {
                return refused(&param, format!("is of type {kind} and has no {needs}"));
            };
            if let Some(part) = part.as_object_mut() {
                // Sound is not given back.
                part.remove("audio");
            }
            if needs == "audio" {
                part["transcript"] = Value::Null;
                sounds.push((index, content));
            }
        }
    }
    item["id"] = json!(id);
    item["object"] = json!("realtime.item");
    item["status"] = json!("completed");
    let entry = Entry { pending: sounds.len(), ..Entry::new(id, item) };
    Ok((entry, sounds))
}

/// The item of what was said into the buffer.
pub fn spoken_item(id: &str) -> Entry {
    let content = json!([{ "type": "input_audio", "transcript": null }]);
    let item = json!({
        "id": id, "object": "realtime.item", "type": "message", "status": "completed", "role": "user", "content": content,
    });
    Entry { pending: 1, ..Entry::new(id.to_owned(), item) }
}

/// A new id.
pub fn new_item_id() -> String {
    format!("item_{}", crate::random::hex_id())
}

/// Samples shared between the session and who listens to them.
pub type Samples = Arc<[f32]>;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(id: &str, role: &str, kind: &str, text: &str) -> Entry {
        let item = json!({ "id": id, "type": "message", "role": role, "content": [{ "type": kind, "text": text }] });
        check_item(item, new_item_id).unwrap().0
    }

    fn said(transcript: &str, spoken: &[(usize, f64)]) -> Entry {
        let content = json!([{ "type": "output_audio", "transcript": transcript }]);
        let item = json!({ "id": "a", "type": "message", "role": "assistant", "content": content });
        let spoken = spoken.iter().map(|&(bytes, seconds)| Spoken { bytes, seconds }).collect();
        Entry { spoken, ..check_item(item, new_item_id).unwrap().0 }
    }

    #[test]
    fn items_have_their_places() {
        let mut talk = Conversation::default();
        let add = |talk: &mut Conversation, previous, id| talk.insert(previous, text(id, "user", "input_text", "x"));
        assert_eq!(add(&mut talk, None, "one"), Ok(None));
        assert_eq!(add(&mut talk, None, "three"), Ok(Some("one".into())));
        assert_eq!(add(&mut talk, Some("one"), "two"), Ok(Some("one".into())));
        assert_eq!(add(&mut talk, Some("root"), "zero"), Ok(None));
        assert!(add(&mut talk, None, "two").unwrap_err().message().contains("already"));
        assert!(add(&mut talk, Some("none"), "four").unwrap_err().message().contains("no such item"));
        let ids: Vec<&str> = talk.entries.iter().map(|entry| entry.id.as_str()).collect();
        assert_eq!(ids, ["zero", "one", "two", "three"]);
        talk.remove("three").unwrap();
        assert_eq!(talk.last_id(), Some("two"));
        assert!(talk.remove("three").is_err());
    }

    #[test]
    fn what_was_not_heard_was_not_said() {
        let transcript = "One two three. Four five six seven.";
        let spoken = [(15, 1.5), (20, 2.0)];
        for (heard_ms, wanted) in [
            (0, ""),
            (700, "One"),
            (1500, "One two three. "),
            (2500, "One two three. Four five"),
            (3500, transcript),
            (3550, transcript),
        ] {
            let mut talk = Conversation::default();
            talk.insert(None, said(transcript, &spoken)).unwrap();
            talk.truncate("a", 0, heard_ms).unwrap();
            let entry = talk.get_mut("a").unwrap();
            assert_eq!(entry.item["content"][0]["transcript"], wanted, "{heard_ms} ms");
            let left: f64 = entry.spoken.iter().map(|piece| piece.seconds).sum();
            assert!(
                left <= heard_ms as f64 / 1000.0 + 1e-6 || wanted == transcript,
                "{left} s are left of {heard_ms} ms"
            );
        }
        let mut talk = Conversation::default();
        talk.insert(None, said(transcript, &spoken)).unwrap();
        talk.insert(None, text("t", "assistant", "output_text", "written")).unwrap();
        for (id, part, heard_ms, wanted) in [
            ("a", 0, 4000, "3500 ms"),
            ("a", 1, 100, "no speech"),
            ("t", 0, 0, "no speech"),
            ("b", 0, 0, "no such item"),
        ] {
            let error = talk.truncate(id, part, heard_ms).unwrap_err();
            assert!(error.message().contains(wanted), "{}", error.message());
        }
    }

    #[test]
    fn models_read_what_was_heard() {
        let mut talk = Conversation::default();
        talk.insert(None, text("s", "system", "input_text", "Be brief.")).unwrap();
        talk.insert(None, spoken_item("u")).unwrap();
        talk.insert(None, said("Hello.", &[])).unwrap();
        assert!(talk.is_pending());
        talk.get_mut("u").unwrap().heard(0, "Good morning.");
        assert!(!talk.is_pending());
        let wanted = json!([
            { "type": "message", "role": "system", "content": [{ "type": "input_text", "text": "Be brief." }] },
            { "type": "message", "role": "user", "content": [{ "type": "input_text", "text": "Good morning." }] },
            { "type": "message", "role": "assistant",
              "content": [{ "type": "output_text", "text": "Hello.", "annotations": [] }] },
        ]);
        assert_eq!(talk.as_input(), wanted);
    }

    #[test]
    fn items_are_checked() {
        let message = |role: &str, part: Value| json!({ "type": "message", "role": role, "content": [part] });
        for (item, wanted) in [
            (json!("hello"), "must be an object"),
            (json!({ "type": "mcp_call" }), "mcp_call"),
            (json!({ "type": "message", "role": "tool", "content": [] }), "\"tool\""),
            (json!({ "type": "message", "role": "user", "content": "hello" }), "list of parts"),
            (message("user", json!({ "type": "output_text", "text": "x" })), "output_text"),
            (message("assistant", json!({ "type": "input_audio", "audio": "" })), "input_audio"),
            (message("user", json!({ "type": "input_text" })), "no text"),
            (json!({ "type": "message", "id": 3, "role": "user", "content": [] }), "item.id"),
        ] {
            let error = check_item(item, new_item_id).unwrap_err();
            assert!(error.message().contains(wanted), "{}", error.message());
        }
        let (entry, sounds) =
            check_item(message("user", json!({ "type": "input_audio", "audio": "AAAA" })), new_item_id).unwrap();
        assert_eq!((sounds, entry.pending), (vec![(0, "AAAA".to_owned())], 1));
        assert_eq!(entry.item["content"], json!([{ "type": "input_audio", "transcript": null }]));
    }
}
