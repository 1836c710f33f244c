//! Calls between marks, whose arguments are JSON: Kimi's and DeepSeek's.

use super::arguments::Arguments;
use super::emitter::Emitter;
use super::scanner::Step;
use super::steps::Steps;
use crate::feed::{Feed, Find, Starts};

/// The marks of a format.
#[derive(Debug)]
pub(super) struct Marks {
    pub(super) call: &'static str,
    /// Between a call's head and the rest.
    pub(super) separator: &'static str,
    pub(super) call_end: &'static str,
    /// What ends a section of calls: more than one where models aren't of one mind.
    pub(super) section_ends: &'static [&'static str],
    /// Whether a call's head is its id. Else it is the name, or a type that the name follows behind the separator.
    pub(super) ids: bool,
}

/// Reads calls.
#[derive(Debug)]
pub(super) struct JsonCalls {
    marks: &'static Marks,
    /// Whether a section holds the calls.
    section: bool,
    /// The latest call's head, or its name where that follows the head.
    head: String,
    /// Whether that call went out.
    called: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    /// In a section, before a call or the end.
    Section,
    Head,
    /// Behind the separator.
    Name,
    /// Before a fence, which says that JSON follows.
    Fence,
    /// Behind it.
    Language,
    Arguments(Arguments),
    /// Behind the arguments.
    End,
}

const FENCE: &str = "```";

/// Longest head, name and language of a fence.
const MAX_HEAD: usize = 256;

impl JsonCalls {
    /// Behind a section's opening mark.
    pub(super) fn section(marks: &'static Marks) -> Self {
        Self { marks, section: true, head: String::new(), called: false, state: State::Section }
    }

    /// Behind a call's opening mark.
    pub(super) fn call(marks: &'static Marks) -> Self {
        Self { section: false, state: State::Head, ..Self::section(marks) }
    }

    fn section_step(&mut self, feed: &mut Feed, emitter: &mut Emitter) -> Option<Step> {
        let (blank, starts) = feed.starts_after_whitespace(&[self.marks.call]);
        match starts {
            Starts::With(_) => {
                feed.take(blank + self.marks.call.len());
                self.state = State::Head;
                return Some(Step::More);
            }
            Starts::Unknown => return None,
            Starts::Not => {}
        }
        match feed.starts_at(blank, self.marks.section_ends) {
            Starts::With(_) => {
                emitter.forget();
                Some(Step::Done)
            }
            Starts::Unknown => None,
            Starts::Not => Some(Step::Refused),
        }
    }

    fn head(&mut self, feed: &mut Feed) -> Option<Step> {
        match feed.find(&[self.marks.separator]) {
            Find::At(bytes, _) if bytes <= MAX_HEAD => {
                self.head = feed.take(bytes).trim().to_owned();
                feed.take(self.marks.separator.len());
                self.called = false;
                self.state = if self.marks.ids { State::Arguments(Arguments::Start) } else { State::Name };
                Some(Step::More)
            }
            Find::NotIn(bytes) if bytes <= MAX_HEAD => None,
            _ => Some(Step::Refused),
        }
    }

    fn name(&mut self, feed: &mut Feed) -> Option<Step> {
        let (_, starts) = feed.starts_after_whitespace(&["{", FENCE, self.marks.call_end]);
        match starts {
            Starts::Unknown => return None,
            Starts::With(1) => self.state = State::Fence,
            Starts::With(_) => self.state = State::Arguments(Arguments::Start),
            // The head was a type.
            Starts::Not => match feed.find(&["\n", FENCE, self.marks.call_end]) {
                Find::At(bytes, _) if bytes <= MAX_HEAD => {
                    self.head = feed.take(bytes).trim().to_owned();
                    self.state = State::Fence;
                }
                Find::NotIn(bytes) if bytes <= MAX_HEAD => return None,
                _ => return Some(Step::Refused),
            },
        }
        Some(Step::More)
    }

    fn fence(&mut self, feed: &mut Feed) -> Option<Step> {
        let (blank, starts) = feed.starts_after_whitespace(&[FENCE, "{", self.marks.call_end]);
        match starts {
            Starts::Unknown => return None,
            Starts::Not => return Some(Step::Refused),
            Starts::With(0) => {
                feed.take(blank + FENCE.len());
                self.state = State::Language;
            }
            Starts::With(_) => self.state = State::Arguments(Arguments::Start),
        }
        Some(Step::More)
    }

    fn language(&mut self, feed: &mut Feed) -> Option<Step> {
        match feed.find(&["\n", "{", FENCE]) {
            Find::At(bytes, _) if bytes <= MAX_HEAD => {
                feed.take(bytes);
                self.state = State::Arguments(Arguments::Start);
                Some(Step::More)
            }
            Find::NotIn(bytes) if bytes <= MAX_HEAD => None,
            _ => Some(Step::Refused),
        }
    }

    /// Behind the arguments, where a fence may end, and the call and the section.
    fn end(&mut self, feed: &mut Feed, emitter: &mut Emitter) -> Option<Step> {
        let (blank, starts) = feed.starts_after_whitespace(&[self.marks.call_end, FENCE]);
        match starts {
            Starts::With(0) if self.section => {
                feed.take(blank + self.marks.call_end.len());
                emitter.forget();
                emitter.begin("");
                self.state = State::Section;
                Some(Step::More)
            }
            Starts::With(0) => {
                emitter.forget();
                Some(Step::Done)
            }
            Starts::With(_) => {
                feed.take(blank + FENCE.len());
                Some(Step::More)
            }
            Starts::Unknown => None,
            Starts::Not if self.section => self.section_step(feed, emitter),
            Starts::Not => Some(Step::Refused),
        }
    }

    /// More of the arguments, or the whole of none.
    fn arguments(&mut self, feed: &mut Feed, emitter: &mut Emitter) -> Option<Step> {
        if !self.called {
            match feed.starts_after_whitespace(&[self.marks.call_end, FENCE]).1 {
                _ if self.head.is_empty() => return Some(Step::Refused),
                Starts::With(_) => {
                    self.emit("{}", emitter);
                    return Some(Step::Done);
                }
                Starts::Unknown => return None,
                Starts::Not => {}
            }
        }
        let State::Arguments(arguments) = &mut self.state else { return Some(Step::Refused) };
        let (mut json, mut read, mut end) = (String::new(), 0, None);
        for c in feed.rest().chars() {
            read += c.len_utf8();
            match arguments.push(c, &mut json) {
                Step::More => {}
                step => {
                    end = Some(step);
                    break;
                }
            }
        }
        feed.take(read);
        if !json.is_empty() {
            self.emit(&json, emitter);
        }
        end
    }

    /// More arguments go out, the first of them behind the call.
    fn emit(&mut self, json: &str, emitter: &mut Emitter) {
        if !self.called {
            let (name, id) = if self.marks.ids { of_id(&self.head) } else { (self.head.as_str(), None) };
            emitter.call(name.to_owned(), id.map(str::to_owned));
            self.called = true;
        }
        emitter.arguments(json);
    }
}

impl Steps for JsonCalls {
    fn step(&mut self, feed: &mut Feed, emitter: &mut Emitter) -> Option<Step> {
        match &mut self.state {
            State::Section => self.section_step(feed, emitter),
            State::Head => self.head(feed),
            State::Name => self.name(feed),
            State::Fence => self.fence(feed),
            State::Language => self.language(feed),
            State::Arguments(_) => match self.arguments(feed, emitter)? {
                Step::Done => {
                    emitter.begin("");
                    self.state = State::End;
                    Some(Step::More)
                }
                other => Some(other),
            },
            State::End => self.end(feed, emitter),
        }
    }

    fn closing(&self) -> Option<&'static str> {
        Some(self.marks.call_end)
    }
}

/// The tool's name in a call's id, `functions.f:0`, and the id if it is one.
fn of_id(id: &str) -> (&str, Option<&str>) {
    let name = id.strip_prefix("functions.").unwrap_or(id);
    match name.rsplit_once(':') {
        Some((name, count)) if !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit()) => (name, Some(id)),
        _ => (name, None),
    }
}
