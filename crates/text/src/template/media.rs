//! Images and videos in messages.
//!
//! A template of a vision model writes a mark for each image part; but not all do, and few do so in results of tools. Where
//! a template doesn't, the mark is put into the text.

use serde_json::{Value, json};

use super::messages::{NEEDLE, PROBE, Render, ToolCallForm};

/// What stands for an image or a video in a prompt. Empty: the model takes none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MediaMarks<'a> {
    /// For an image.
    pub image: &'a str,
    /// For a video.
    pub video: &'a str,
}

/// What a part of a message shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Image,
    Video,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Image, Self::Video];

    fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Video => "video",
        }
    }

    fn mark<'a>(self, marks: &MediaMarks<'a>) -> &'a str {
        match self {
            Self::Image => marks.image,
            Self::Video => marks.video,
        }
    }

    fn of(part: &Value) -> Option<Self> {
        let name = part.get("type")?;
        Self::ALL.into_iter().find(|kind| name == kind.name())
    }
}

/// Puts marks into the text of `content` if the template shows not all kinds of media that are in it. What has no mark stays,
/// for an error.
pub(crate) fn fit(content: &mut Value, marks: &MediaMarks<'_>, is_shown: impl Fn(Kind) -> bool) {
    let Value::Array(parts) = content else { return };
    let mut kinds = Kind::ALL.into_iter().filter(|&kind| parts.iter().any(|part| Kind::of(part) == Some(kind)));
    if kinds.all(is_shown) {
        return;
    }
    let mut texts = Vec::with_capacity(parts.len());
    for part in parts.iter() {
        let text = match Kind::of(part).map(|kind| kind.mark(marks)) {
            Some("") => return,
            Some(mark) => Some(mark),
            None => part.get("text").and_then(Value::as_str).or(part.as_str()),
        };
        let Some(text) = text else { return };
        texts.push(text);
    }
    *content = Value::String(texts.join("\n"));
}

/// Whether a template writes `marks`' mark once for a part of this kind in a message of this role, and the text beside it.
pub(crate) fn is_shown(render: Render<'_>, role: &str, kind: Kind, marks: &MediaMarks<'_>, form: ToolCallForm) -> bool {
    let mark = kind.mark(marks);
    if mark.is_empty() {
        return false;
    }
    let user = json!({"role": "user", "content": "x"});
    let mut message = json!({"role": role, "content": [{"type": "text", "text": NEEDLE}, {"type": kind.name()}]});
    let messages = match role {
        "user" => vec![message],
        "system" => vec![message, user],
        "tool" | "function" => {
            let arguments = if form.object_arguments { json!({}) } else { json!("{}") };
            let content = if form.null_content { Value::Null } else { json!("") };
            let call =
                json!({"id": "call00001", "type": "function", "function": {"name": PROBE, "arguments": arguments}});
            message["tool_call_id"] = json!("call00001");
            message["name"] = json!(PROBE);
            vec![user, json!({"role": "assistant", "content": content, "tool_calls": [call]}), message]
        }
        _ => vec![user, message],
    };
    render(&messages, None).is_some_and(|prompt| {
        let is_list = prompt.contains("'type':") || prompt.contains("\"type\":");
        prompt.contains(NEEDLE) && prompt.matches(mark).count() == 1 && !is_list
    })
}
