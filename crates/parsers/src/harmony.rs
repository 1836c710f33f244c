//! The messages that an answer in the Harmony format (gpt-oss) consists of. Both the parser of its chain of thought
//! and that of its calls stand on this.
//!
//! ```text
//! <|start|>assistant to=functions.f<|channel|>commentary json<|message|>{"k":1}<|call|>
//! └───────────────────────── header ─────────────────────────┘└─ body ─┘└ end ┘
//! ```
//!
//! The prompt ends with `<|start|>assistant`, so the first header lacks that. A recipient may stand behind the role or
//! behind the channel. Text outside of messages is the body of a message without a header.

use crate::feed::{Feed, Find, Starts};
use crate::json_strings::JsonStrings;

pub(crate) const START: &str = "<|start|>";
pub(crate) const CHANNEL: &str = "<|channel|>";
pub(crate) const CONSTRAIN: &str = "<|constrain|>";
pub(crate) const MESSAGE: &str = "<|message|>";
pub(crate) const CALL: &str = "<|call|>";
const END: &str = "<|end|>";
const RETURN: &str = "<|return|>";

/// All marks of the format.
pub(crate) const MARKERS: &[&str] = &[START, CHANNEL, CONSTRAIN, MESSAGE, CALL, END, RETURN];

/// Marks that may come in a body, first those that end it.
const IN_BODY: &[&str] = &[END, RETURN, CALL, START, CHANNEL, MESSAGE, CONSTRAIN];
/// Those of them that end a message, and not just by beginning the next.
const END_MARKS: &[&str] = &[END, RETURN, CALL];

/// What a header begins with.
const HEADERS: &[&str] = &[START, CHANNEL, MESSAGE];
/// What the first header begins with: the prompt holds the mark and the role.
const FIRST_HEADERS: &[&str] = &[START, CHANNEL, MESSAGE, "to=functions.", "to=python", "to=browser"];

const CHANNELS: &[&str] = &["analysis", "commentary", "final"];
const ROLE: &str = "assistant";

/// Longest header. What goes on for longer is no header.
const MAX_HEADER: usize = 512;

/// A part of an answer.
#[derive(Debug)]
pub(crate) enum Part {
    /// A message begins.
    Header(Header),
    /// More of its body.
    Body(String),
    /// It ended with this mark. It may also end by the next header, and where the answer does.
    End(&'static str),
}

/// Whose message it is and what for.
#[derive(Debug, Default)]
pub(crate) struct Header {
    /// As it was written.
    pub(crate) text: String,
    /// Who it is for, if that isn't the user.
    pub(crate) recipient: Option<String>,
    /// Whether it is chain of thought.
    pub(crate) analysis: bool,
}

/// Splits an answer into messages.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    pub(crate) feed: Feed,
    state: State,
    /// Where strings are in the body of a call.
    strings: Option<JsonStrings>,
    /// Comes next.
    ready: Option<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// Nothing but whitespace so far.
    #[default]
    First,
    /// Between two messages.
    Between,
    Header,
    /// As [`Header`](Self::Header), where no mark ended the body before it.
    HeaderInBody,
    /// Behind a header without a body.
    CutOff,
    /// Before a body, which may turn out to be JSON.
    Call,
    Body,
}

impl Messages {
    /// Starts inside the body of a message of the chain of thought, whose header stood in the prompt.
    pub(crate) fn inside_body() -> Self {
        Self { state: State::Body, ..Self::default() }
    }

    /// The next part that is certain; `None` if more text is needed.
    pub(crate) fn next(&mut self) -> Option<Part> {
        if let Some(part) = self.ready.take() {
            return Some(part);
        }
        loop {
            match self.state {
                State::First | State::Between => match self.before_header()? {
                    Some(part) => return Some(part),
                    None => self.state = State::Header,
                },
                State::Header | State::HeaderInBody => {
                    if let Some(part) = self.header()? {
                        return Some(part);
                    }
                }
                State::CutOff => {
                    let Starts::With(which) = self.feed.starts(END_MARKS) else { return None };
                    self.feed.take(END_MARKS.get(which).map_or(0, |mark| mark.len()));
                    self.state = State::Between;
                }
                State::Call => {
                    let (_, starts) = self.feed.starts_after_whitespace(&["{"]);
                    match starts {
                        Starts::With(_) => self.strings = Some(JsonStrings::default()),
                        Starts::Not => self.strings = None,
                        Starts::Unknown => return None,
                    }
                    self.state = State::Body;
                }
                State::Body => {
                    if let Some(part) = self.body()? {
                        return Some(part);
                    }
                }
            }
        }
    }

    /// Whether a header comes (`None`), or else what.
    fn before_header(&mut self) -> Option<Option<Part>> {
        if self.state == State::Between && !self.feed.skip(char::is_whitespace) {
            return None;
        }
        if self.feed.is_empty() {
            return None;
        }
        let headers = if self.state == State::First { FIRST_HEADERS } else { HEADERS };
        let (blank, starts) = self.feed.starts_after_whitespace(headers);
        match starts {
            Starts::With(_) => Some(None),
            Starts::Unknown if blank <= MAX_HEADER => None,
            _ => {
                self.state = State::Body;
                self.strings = None;
                Some(Some(Part::Header(Header::default())))
            }
        }
    }

    /// A message's header; `Some(None)` if it is left out.
    fn header(&mut self) -> Option<Option<Part>> {
        let (bytes, complete) = match self.feed.find_in_next(MAX_HEADER + 1, &[MESSAGE, END, RETURN, CALL]) {
            Find::At(at, 0) => (at + MESSAGE.len(), true),
            Find::At(at, _) => (at, false),
            Find::NotIn(bytes) if bytes <= MAX_HEADER && !self.feed.is_over() => return None,
            Find::NotIn(bytes) => (bytes, false),
        };
        let text = self.feed.rest().get(..bytes).unwrap_or_default();
        if complete && bytes <= MAX_HEADER {
            let header = Header::parse(text);
            self.feed.take(bytes);
            self.strings = None;
            self.state = if header.recipient.is_some() { State::Call } else { State::Body };
            return Some(Some(Part::Header(header)));
        }
        // One that was cut off is left out. What only began like one is text.
        if bytes <= MAX_HEADER && Header::may_become(text) {
            self.feed.take(bytes);
            self.state = State::CutOff;
            return Some(None);
        }
        let marker = match self.feed.starts(HEADERS) {
            Starts::With(which) => HEADERS.get(which).map_or(0, |marker| marker.len()),
            _ => 0,
        };
        let text = Part::Body(self.feed.take(marker).to_owned());
        if self.state == State::HeaderInBody {
            self.state = State::Body;
            return Some(Some(text));
        }
        self.ready = Some(text);
        self.strings = None;
        self.state = State::Body;
        Some(Some(Part::Header(Header::default())))
    }

    /// A part of the body; `Some(None)` if a mark was left out.
    fn body(&mut self) -> Option<Option<Part>> {
        let (bytes, found) = self.find_in_body();
        if bytes > 0 {
            return Some(Some(Part::Body(self.feed.take(bytes).to_owned())));
        }
        let which = found?;
        let mark = IN_BODY.get(which).copied().unwrap_or_default();
        if matches!(mark, MESSAGE | CONSTRAIN) {
            self.feed.take(mark.len());
            return Some(None);
        }
        if END_MARKS.contains(&mark) {
            self.feed.take(mark.len());
            self.state = State::Between;
            return Some(Some(Part::End(mark)));
        }
        self.state = State::HeaderInBody;
        Some(None)
    }

    fn find_in_body(&mut self) -> (usize, Option<usize>) {
        let Some(strings) = &mut self.strings else {
            return match self.feed.find(IN_BODY) {
                Find::At(at, which) => (at, Some(which)),
                Find::NotIn(bytes) => (bytes, None),
            };
        };
        let rest = self.feed.rest();
        for (at, byte) in rest.bytes().enumerate() {
            if byte == b'<' && !strings.inside() {
                match self.feed.starts_at(at, IN_BODY) {
                    Starts::With(which) => return (at, Some(which)),
                    Starts::Unknown => return (at, None),
                    Starts::Not => {}
                }
            }
            strings.step(byte);
        }
        (rest.len(), None)
    }
}

impl Header {
    fn parse(text: &str) -> Self {
        let after_channel = text.split_once(CHANNEL).map_or("", |(_, after)| after);
        let channel = after_channel.trim_start().split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        let recipient = text.split_once("to=").map(|(_, after)| {
            after.split(|c: char| c.is_whitespace() || c == '<').next().unwrap_or_default().to_owned()
        });
        let recipient = recipient.filter(|name| !matches!(name.as_str(), "" | "user" | "all" | "assistant"));
        Self { text: text.to_owned(), recipient, analysis: channel == "analysis" }
    }

    /// Whether more text could make a header of this.
    fn may_become(text: &str) -> bool {
        let text = text.trim_start();
        match (text.split_once(CHANNEL), text.strip_prefix(START)) {
            (Some((_, channel)), _) => {
                let channel = channel.trim_start();
                CHANNELS.iter().any(|known| known.starts_with(channel) || channel.starts_with(known))
            }
            (None, Some(role)) => ROLE.starts_with(role) || role.starts_with(ROLE),
            (None, None) => text.starts_with("to="),
        }
    }
}
