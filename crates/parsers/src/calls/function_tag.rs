//! A call as tags: `<function=f><parameter=k>v</parameter></function>`, or with a JSON object between the outer ones.

use std::collections::HashSet;
use std::sync::Arc;

use super::arguments::Arguments;
use super::emitter::Emitter;
use super::parameter::{CALL_END, FUNCTION_END, MOST_BYTES, Next, PARAMETER, ParameterValue};
use super::scanner::Step;
use crate::{Tools, typed_value};

/// Opens a call.
pub(crate) const FUNCTION: &str = "<function=";

/// Reads a call behind `<function=`.
///
/// The call goes out when its body begins: a tag that nothing but prose follows is text. Of parameters of the same name
/// the first counts. Missing closing tags are added, except where the answer ends inside a value: that one was cut off.
#[derive(Debug)]
pub(crate) struct FunctionTag {
    tools: Arc<Tools>,
    state: State,
    name: String,
    called: bool,
    /// Whether the arguments' closing brace is still to be written.
    open: bool,
    seen: HashSet<String>,
    /// Whether the parameter being read came before.
    repeated: bool,
    /// Arguments that have not gone out.
    arguments: String,
    /// Whether the end of the whole call was read, too.
    ended_call: bool,
}

#[derive(Debug)]
enum State {
    Name,
    /// Between tags; the tag so far, if one began.
    Body(String),
    Json(Arguments),
    /// The name of a parameter so far.
    Key(String),
    Value(ParameterValue),
}

impl FunctionTag {
    pub fn new(tools: &Arc<Tools>) -> Self {
        Self {
            tools: Arc::clone(tools),
            state: State::Name,
            name: String::new(),
            called: false,
            open: false,
            seen: HashSet::new(),
            repeated: false,
            arguments: String::new(),
            ended_call: false,
        }
    }

    /// Whether the end of the whole call was read as part of this.
    pub fn ended_call(&self) -> bool {
        self.ended_call
    }

    /// Takes the next character.
    pub fn push(&mut self, c: char, emitter: &mut Emitter) -> Step {
        let step = self.step(c, emitter);
        if step == Step::Refused && matches!(self.state, State::Body(_)) {
            self.close();
        }
        self.send(emitter);
        step
    }

    /// The answer is over.
    pub fn finish(&mut self, emitter: &mut Emitter) {
        match &mut self.state {
            State::Value(value) => {
                if value.finish(&mut self.arguments) {
                    self.value_ended(emitter);
                    self.close();
                }
            }
            State::Body(tag) if self.called && (tag.is_empty() || tag.starts_with("</")) => {
                emitter.forget();
                self.close();
            }
            State::Name | State::Body(_) | State::Json(_) | State::Key(_) => {}
        }
        if self.called {
            // What is left of a tag that was cut off is no text.
            emitter.forget();
        }
        self.send(emitter);
    }

    fn step(&mut self, c: char, emitter: &mut Emitter) -> Step {
        match &mut self.state {
            State::Name => match c {
                '>' => {
                    self.name = unquoted(&self.name).to_owned();
                    self.state = State::Body(String::new());
                    if self.name.is_empty() { Step::Refused } else { Step::More }
                }
                '<' | '\n' => Step::Refused,
                _ => limited(&mut self.name, c),
            },
            State::Body(tag) if tag.is_empty() => match c {
                _ if c.is_ascii_whitespace() => Step::More,
                '{' if !self.called => {
                    self.call(emitter);
                    let mut arguments = Arguments::Start;
                    let step = arguments.push(c, &mut self.arguments);
                    self.state = State::Json(arguments);
                    step
                }
                '<' => {
                    tag.push(c);
                    emitter.begin_tag();
                    Step::More
                }
                _ => Step::Refused,
            },
            State::Body(tag) => {
                tag.push(c);
                let tag = tag.as_str();
                if tag == PARAMETER && (self.open || !self.called) {
                    self.parameter(String::new(), emitter);
                    return Step::More;
                }
                if tag == FUNCTION_END || tag == CALL_END {
                    self.ended_call = tag == CALL_END;
                    self.begin_object(emitter);
                    self.close();
                    emitter.forget();
                    return Step::Done;
                }
                let known = [PARAMETER, FUNCTION_END, CALL_END].into_iter().any(|known| known.starts_with(tag));
                if known { Step::More } else { Step::Refused }
            }
            State::Json(arguments) => match arguments.push(c, &mut self.arguments) {
                Step::Done => {
                    self.state = State::Body(String::new());
                    Step::More
                }
                step => step,
            },
            State::Key(key) if c == '>' => {
                let key = unquoted(key).to_owned();
                self.value(key);
                Step::More
            }
            State::Key(_) if matches!(c, '<' | '\n') => Step::Refused,
            State::Key(key) => limited(key, c),
            State::Value(value) => {
                let may_follow = |key: &str| self.tools.argument(&self.name, key).is_some() && !self.seen.contains(key);
                let Some(next) = value.push(c, may_follow, &mut self.arguments) else { return Step::More };
                self.value_ended(emitter);
                match next {
                    Next::Parameter => self.parameter(String::new(), emitter),
                    Next::Named(key) => self.value(key),
                    Next::FunctionEnd | Next::CallEnd => {
                        self.ended_call = next == Next::CallEnd;
                        self.close();
                        return Step::Done;
                    }
                }
                Step::More
            }
        }
    }

    fn call(&mut self, emitter: &mut Emitter) {
        if !self.called {
            self.called = true;
            emitter.call(self.name.clone(), None);
        }
    }

    /// Arguments are tags, not JSON.
    fn begin_object(&mut self, emitter: &mut Emitter) {
        if !self.called {
            self.call(emitter);
            self.open = true;
            self.arguments.push('{');
        }
    }

    fn parameter(&mut self, key: String, emitter: &mut Emitter) {
        self.begin_object(emitter);
        emitter.forget();
        self.state = State::Key(key);
    }

    /// A parameter's value begins.
    fn value(&mut self, key: String) {
        self.repeated = self.seen.contains(&key);
        if !self.seen.is_empty() {
            self.arguments.push_str(", ");
        }
        self.arguments.push_str(&typed_value::quoted(&key));
        self.arguments.push_str(": ");
        let schema = self.tools.argument(&self.name, &key);
        self.seen.insert(key);
        let value = ParameterValue::new(schema, &mut self.arguments);
        self.state = State::Value(value);
        if self.repeated {
            self.arguments.clear();
        }
    }

    fn value_ended(&mut self, emitter: &mut Emitter) {
        self.send(emitter);
        self.repeated = false;
    }

    fn close(&mut self) {
        if std::mem::take(&mut self.open) {
            self.arguments.push('}');
        }
    }

    fn send(&mut self, emitter: &mut Emitter) {
        if self.called && !self.repeated {
            emitter.arguments(&self.arguments);
        }
        self.arguments.clear();
    }
}

/// A name as it is written, with or without quotes.
fn unquoted(name: &str) -> &str {
    let name = name.trim();
    name.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(name)
}

fn limited(name: &mut String, c: char) -> Step {
    name.push(c);
    if name.len() > MOST_BYTES { Step::Refused } else { Step::More }
}
