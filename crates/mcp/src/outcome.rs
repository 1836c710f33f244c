//! What a tool answered, as text: all that a language model takes.

use rmcp::model::{CallToolResult, ContentBlock, ResourceContents};
use serde_json::{Value, json};

/// Longest text of an answer, in bytes.
const MAX_TEXT: usize = 1 << 20;

/// A tool's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolOutcome {
    /// Its text parts, a line break between two. What isn't text is a short note in JSON.
    pub text: String,
    /// Whether the tool says that it failed; the text then says why.
    pub is_error: bool,
}

impl From<CallToolResult> for ToolOutcome {
    fn from(result: CallToolResult) -> Self {
        let mut parts: Vec<String> = result.content.into_iter().map(part).collect();
        if let (true, Some(value)) = (parts.is_empty(), &result.structured_content) {
            parts.push(value.to_string());
        }
        Self { text: shortened(parts.join("\n")), is_error: result.is_error.unwrap_or(false) }
    }
}

fn part(content: ContentBlock) -> String {
    match content {
        ContentBlock::Text(text) => text.text,
        ContentBlock::Image(image) => note("image", Some(image.mime_type), None, image.data.len()),
        ContentBlock::Audio(audio) => note("audio", Some(audio.mime_type), None, audio.data.len()),
        ContentBlock::ResourceLink(link) => {
            json!({ "type": "resource_link", "uri": link.uri, "name": link.name, "mime_type": link.mime_type })
                .to_string()
        }
        ContentBlock::Resource(resource) => match resource.resource {
            ResourceContents::TextResourceContents { text, .. } => text,
            ResourceContents::BlobResourceContents { uri, mime_type, blob, .. } => {
                note("resource", mime_type, Some(uri), blob.len())
            }
            _ => unknown(),
        },
        _ => unknown(),
    }
}

/// What stands for content that can't be shown: its kind and size.
fn note(kind: &str, mime_type: Option<String>, uri: Option<String>, base64: usize) -> String {
    let mut note = json!({ "type": kind, "mime_type": mime_type, "bytes": base64 / 4 * 3 });
    if let Some(uri) = uri {
        note["uri"] = Value::String(uri);
    }
    note.to_string()
}

fn unknown() -> String {
    json!({ "type": "unknown" }).to_string()
}

/// The text, or its beginning and how much is missing.
fn shortened(mut text: String) -> String {
    if text.len() <= MAX_TEXT {
        return text;
    }
    let whole = text.len();
    let end = text.floor_char_boundary(MAX_TEXT);
    text.truncate(end);
    text.push_str(&format!("\n[cut here: {} of {whole} bytes are missing]", whole - end));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(result: Value) -> ToolOutcome {
        serde_json::from_value::<CallToolResult>(result).unwrap().into()
    }

    #[test]
    fn content_becomes_text() {
        let text = |text: &str| json!({ "type": "text", "text": text });
        let image = json!({ "type": "image", "data": "QUJD", "mimeType": "image/png" });
        let blob = json!({ "type": "resource", "resource": { "uri": "file:///a", "blob": "QUJDQUJD" } });
        let file = json!({ "type": "resource", "resource": { "uri": "file:///a", "text": "inside" } });
        let link = json!({ "type": "resource_link", "uri": "file:///a", "name": "a" });
        let cases = [
            (json!({ "content": [] }), "", false),
            (json!({ "content": [text("one")] }), "one", false),
            (json!({ "content": [text("one"), text("two")], "isError": true }), "one\ntwo", true),
            (json!({ "content": [image] }), r#"{"type":"image","mime_type":"image/png","bytes":3}"#, false),
            (
                json!({ "content": [blob] }),
                r#"{"type":"resource","mime_type":null,"bytes":6,"uri":"file:///a"}"#,
                false,
            ),
            (json!({ "content": [file] }), "inside", false),
            (
                json!({ "content": [link] }),
                r#"{"type":"resource_link","uri":"file:///a","name":"a","mime_type":null}"#,
                false,
            ),
            (json!({ "content": [], "structuredContent": { "a": 1 } }), r#"{"a":1}"#, false),
            (json!({ "content": [text("said")], "structuredContent": { "a": 1 } }), "said", false),
        ];
        for (result, wanted, is_error) in cases {
            assert_eq!(outcome(result.clone()), ToolOutcome { text: wanted.into(), is_error }, "{result}");
        }
    }

    #[test]
    fn long_text_is_cut_and_says_so() {
        let long = "ä".repeat(MAX_TEXT);
        let cut = outcome(json!({ "content": [{ "type": "text", "text": long }] })).text;
        assert!(cut.len() < MAX_TEXT + 100 && cut.ends_with("[cut here: 1048576 of 2097152 bytes are missing]"));
    }
}
