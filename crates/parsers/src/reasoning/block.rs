//! Tool calls inside a chain of thought. Models that forget to close it write them there; they are meant as calls and
//! so belong to the content.

use super::Split;
use crate::feed::{Feed, Find, Starts};
use crate::json_strings::JsonStrings;

/// What opens a call, and what closes it; without the latter it goes on to the end.
#[derive(Debug)]
pub(super) struct CallBlock {
    pub(super) open: &'static str,
    close: Option<&'static str>,
}

/// The calls of all formats whose models reason between tags.
pub(super) const CALL_BLOCKS: &[CallBlock] = &[
    CallBlock { open: PLAIN, close: Some("</tool_call>") },
    CallBlock { open: "<minimax:tool_call>", close: Some("</minimax:tool_call>") },
    CallBlock { open: "<｜tool▁calls▁begin｜>", close: Some("<｜tool▁calls▁end｜>") },
    CallBlock { open: "<｜DSML｜tool_calls>", close: Some("</｜DSML｜tool_calls>") },
    CallBlock { open: "<｜DSML｜function_calls>", close: Some("</｜DSML｜function_calls>") },
    CallBlock { open: "<|tool_calls_section_begin|>", close: Some("<|tool_calls_section_end|>") },
    CallBlock { open: "<|tool_call>", close: Some("<tool_call|>") },
    CallBlock { open: "<TOOLCALL>", close: Some("</TOOLCALL>") },
    CallBlock { open: "[TOOL_CALLS]", close: None },
    CallBlock { open: "<|tool_call|>", close: None },
];

/// The one marker that models also just mention while they think.
const PLAIN: &str = "<tool_call>";

/// Longest whitespace between it and the call.
const MAX_BLANK: usize = 64;

/// What is found where a call may open.
pub(super) enum Opening {
    /// It does.
    Call(Inside),
    /// The marker is only mentioned.
    Mention,
    /// Can't be known yet.
    Unknown,
}

/// A position inside a call.
#[derive(Debug)]
pub(super) struct Inside {
    close: Option<&'static str>,
    json: Option<JsonStrings>,
}

/// Looks at the opening marker `which` of [`CALL_BLOCKS`], at which `feed` stands.
pub(super) fn opening(feed: &Feed, which: usize) -> Opening {
    let Some(block) = CALL_BLOCKS.get(which) else { return Opening::Mention };
    if block.open != PLAIN {
        return Opening::Call(Inside { close: block.close, json: None });
    }
    let body = feed.rest().get(PLAIN.len()..).unwrap_or_default();
    let name = body.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let blank = body.len() - body.trim_start().len();
    if blank > MAX_BLANK {
        return Opening::Mention;
    }
    match feed.starts_at(PLAIN.len() + blank, &["{", "[", "<function", "<arg_key>"]) {
        Starts::With(0 | 1) => Opening::Call(Inside { close: block.close, json: Some(JsonStrings::default()) }),
        Starts::With(_) => Opening::Call(Inside { close: block.close, json: None }),
        Starts::Not if name => Opening::Call(Inside { close: block.close, json: None }),
        Starts::Not => Opening::Mention,
        Starts::Unknown => Opening::Unknown,
    }
}

impl Inside {
    /// Hands on what is certain of the call, marks and all; true at its end.
    pub(super) fn step(&mut self, feed: &mut Feed, out: &mut Vec<Split>) -> bool {
        let (bytes, done) = match (self.close, &mut self.json) {
            (None, _) => (feed.rest().len(), false),
            (Some(close), None) => match feed.find(&[close]) {
                Find::At(at, _) => (at + close.len(), true),
                Find::NotIn(bytes) => (bytes, false),
            },
            (Some(close), Some(strings)) => json_end(feed, close, strings),
        };
        if bytes > 0 {
            out.push(Split::Content(feed.take(bytes).to_owned()));
        }
        done
    }
}

/// Bytes up to behind `close`, which doesn't count inside a JSON string, and whether it was there.
fn json_end(feed: &Feed, close: &str, strings: &mut JsonStrings) -> (usize, bool) {
    let rest = feed.rest();
    for (at, byte) in rest.bytes().enumerate() {
        if !strings.inside() && close.as_bytes().first() == Some(&byte) {
            match feed.starts_at(at, &[close]) {
                Starts::With(_) => return (at + close.len(), true),
                Starts::Unknown => return (at, false),
                Starts::Not => {}
            }
        }
        strings.step(byte);
    }
    (rest.len(), false)
}
