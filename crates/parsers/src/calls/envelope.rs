//! A call as a JSON object: `{"name": …, "arguments": {…}}`.

use std::sync::Arc;

use super::arguments::Arguments;
use super::emitter::Emitter;
use super::scanner::Step;
use crate::Tools;
use crate::json_scan::{JsonScan, Scan};

/// Longest key, name or id.
const MOST_BYTES: usize = 256;

/// Reads a call behind its opening brace.
///
/// The call goes out as soon as its name is known, and its arguments as they come. Arguments that stand before the name
/// wait for it. Known are `name`, `arguments` or `parameters`, `id`, `type`, and `function`, which holds either the name
/// or an object with name and arguments; the first of each counts.
///
/// Once the call is out it can't be taken back: if it turns out to be malformed, its arguments stay the beginning of an
/// object, so that nobody runs a tool with half of what the model wanted to say.
#[derive(Debug)]
pub(crate) struct Envelope {
    /// With tools, a bare one: nothing but its contents tells it from other JSON. So its name must be one of theirs, it
    /// must have arguments, and no other keys.
    bare: Option<Arc<Tools>>,
    tools: Arc<Tools>,
    state: State,
    /// Whether this is inside of `"function": {…}`.
    nested: bool,
    key: String,
    /// A string so far, as JSON behind its opening quote.
    string: String,
    name: Option<String>,
    id: Option<String>,
    kind: Option<String>,
    /// Arguments that have not gone out.
    arguments: String,
    has_arguments: bool,
    called: bool,
}

#[derive(Debug)]
enum State {
    /// A key; with `or_end`, the object may end instead.
    Key {
        or_end: bool,
    },
    /// In a string, key or value, and whether the last character escapes the next.
    String {
        key: bool,
        escape: bool,
    },
    Colon,
    Value,
    Arguments(Arguments),
    /// A value that means nothing here.
    Other(JsonScan),
    /// A comma or the end.
    After,
}

impl Envelope {
    /// A call of any tool, behind a marker.
    pub fn marked(tools: &Arc<Tools>) -> Self {
        Self {
            bare: None,
            tools: Arc::clone(tools),
            state: State::Key { or_end: true },
            nested: false,
            key: String::new(),
            string: String::new(),
            name: None,
            id: None,
            kind: None,
            arguments: String::new(),
            has_arguments: false,
            called: false,
        }
    }

    /// A call without a marker.
    pub fn bare(tools: &Arc<Tools>) -> Self {
        Self { bare: Some(Arc::clone(tools)), ..Self::marked(tools) }
    }

    /// Takes the next character.
    pub fn push(&mut self, c: char, emitter: &mut Emitter) -> Step {
        let space = matches!(c, ' ' | '\t' | '\n' | '\r');
        match &mut self.state {
            State::String { key, escape } => {
                let key = *key;
                match c {
                    '"' if !*escape => return self.string_ended(key, emitter),
                    _ if c < ' ' => return Step::Refused,
                    _ => *escape = c == '\\' && !*escape,
                }
                self.string.push(c);
                if self.string.len() > MOST_BYTES { Step::Refused } else { Step::More }
            }
            State::Arguments(arguments) => {
                let step = arguments.push(c, &mut self.arguments);
                self.has_arguments |= !self.arguments.is_empty();
                if !self.send(emitter) {
                    return Step::Refused;
                }
                if step == Step::Done {
                    self.state = State::After;
                    return Step::More;
                }
                step
            }
            State::Other(scan) => match scan.check(c) {
                Scan::More => Step::More,
                Scan::Invalid => Step::Refused,
                Scan::Done => self.go(State::After),
                Scan::Before => {
                    self.state = State::After;
                    self.push(c, emitter)
                }
            },
            _ if space => Step::More,
            State::Key { or_end } => match c {
                '"' => self.go(State::String { key: true, escape: false }),
                '}' if *or_end => self.object_ended(emitter),
                _ => Step::Refused,
            },
            State::Colon if c == ':' => self.go(State::Value),
            State::Colon => Step::Refused,
            State::Value => self.value(c, emitter),
            State::After => match c {
                ',' => self.go(State::Key { or_end: false }),
                '}' => self.object_ended(emitter),
                _ => Step::Refused,
            },
        }
    }

    fn go(&mut self, state: State) -> Step {
        self.state = state;
        Step::More
    }

    /// The first character of the value of `key`.
    fn value(&mut self, c: char, emitter: &mut Emitter) -> Step {
        match (self.key.as_str(), c) {
            ("name", '"') if self.name.is_none() => self.go(State::String { key: false, escape: false }),
            ("function", '"') if self.name.is_none() && !self.nested => {
                self.go(State::String { key: false, escape: false })
            }
            ("function", '{') if !self.nested => {
                self.nested = true;
                self.go(State::Key { or_end: true })
            }
            ("id" | "type", '"') => self.go(State::String { key: false, escape: false }),
            ("arguments" | "parameters", _) if !self.has_arguments => {
                self.name_from_type();
                self.state = State::Arguments(Arguments::Start);
                self.push(c, emitter)
            }
            ("name" | "arguments" | "parameters" | "id" | "type" | "function", _) => self.other(c, emitter),
            _ if self.bare.is_some() => Step::Refused,
            _ => self.other(c, emitter),
        }
    }

    fn other(&mut self, c: char, emitter: &mut Emitter) -> Step {
        self.state = State::Other(JsonScan::mending());
        self.push(c, emitter)
    }

    fn string_ended(&mut self, key: bool, emitter: &mut Emitter) -> Step {
        let json = format!("\"{}\"", std::mem::take(&mut self.string));
        let Ok(string) = serde_json::from_str::<String>(&json) else { return Step::Refused };
        if key {
            self.key = string;
            return self.go(State::Colon);
        }
        self.state = State::After;
        match self.key.as_str() {
            "id" => self.id = self.id.take().or(Some(string)),
            "type" => self.kind = self.kind.take().or(Some(string)),
            _ if string.is_empty() => return Step::Refused,
            _ => {
                self.name = Some(string);
                return if self.send(emitter) { Step::More } else { Step::Refused };
            }
        }
        Step::More
    }

    /// Some models write the tool's name as the type.
    fn name_from_type(&mut self) {
        if self.name.is_none() && self.kind.as_ref().is_some_and(|kind| self.tools.get(kind).is_some()) {
            self.name = self.kind.take();
        }
    }

    /// Sends what is certain by now. `false` if this is no call.
    fn send(&mut self, emitter: &mut Emitter) -> bool {
        let Some(name) = &self.name else { return true };
        if !self.called {
            if let Some(tools) = &self.bare {
                if tools.get(name).is_none() {
                    return false;
                }
                if !self.has_arguments {
                    return true;
                }
            }
            self.called = true;
            emitter.call(name.clone(), self.id.take());
        }
        emitter.arguments(&self.arguments);
        self.arguments.clear();
        true
    }

    fn object_ended(&mut self, emitter: &mut Emitter) -> Step {
        if self.nested {
            self.nested = false;
            return self.go(State::After);
        }
        self.name_from_type();
        if self.bare.is_none() && !self.has_arguments {
            self.has_arguments = true;
            self.arguments.push_str("{}");
        }
        if self.send(emitter) && self.called { Step::Done } else { Step::Refused }
    }
}
