//! What all call formats have in common: text, in which markers open blocks of markup.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::emitter::Emitter;
use crate::hold_back::{Found, HoldBack};
use crate::json_scan::{JsonScan, Scan};
use crate::{CallParser, OutputEvent, Tools};

/// What became of a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It belongs to the block, which goes on.
    More,
    /// It is the block's last.
    Done,
    /// It does not belong to the block: this is malformed, or simply over.
    Refused,
}

/// The markup of one or more calls behind the marker that opened it.
///
/// What a block reads is noted by the scanner and becomes text again unless the block calls [`Emitter::call`] or
/// [`Emitter::forget`]. Malformed markup is text up to the character or [tag](Emitter::begin_tag) that broke it, which is
/// read again: tags are short, so the work stays linear, and a marker inside markup that failed is data.
pub(crate) trait Block: fmt::Debug + Send {
    /// Takes the next character.
    fn push(&mut self, c: char, emitter: &mut Emitter) -> Step;

    /// The answer is over inside the block.
    fn finish(&mut self, _emitter: &mut Emitter) {}

    /// The marker that would have closed the block. If it was refused after a call, that marker is no text later on.
    fn closing(&self) -> Option<&'static str> {
        None
    }
}

/// A marker that opens a block.
#[derive(Debug, Clone)]
pub(crate) struct Opening {
    pub marker: Cow<'static, str>,
    /// Makes the block, given the tools and the marker.
    pub block: fn(&Arc<Tools>, &str) -> Box<dyn Block>,
    pub place: Place,
}

/// Where an opening opens a block. Elsewhere it is text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Anywhere.
    Anywhere,
    /// Anywhere but inside of JSON that is no call: the marker is itself JSON.
    OutsideJson,
    /// As `OutsideJson`, and only where the answer begins, white space and a chain of thought aside.
    Start,
}

impl Opening {
    pub const fn new(marker: &'static str, block: fn(&Arc<Tools>, &str) -> Box<dyn Block>) -> Self {
        Self { marker: Cow::Borrowed(marker), block, place: Place::Anywhere }
    }

    pub fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }
}

/// Ends a chain of thought that nobody took out; what follows is a beginning again.
const THOUGHT_END: &str = "</think>";

/// Finds the blocks in an answer and everything else, which is text.
#[derive(Debug)]
pub(crate) struct Scanner {
    tools: Arc<Tools>,
    openings: Vec<Opening>,
    hold: HoldBack,
    emitter: Emitter,
    state: State,
    /// Text that was read and not handed on yet.
    text: String,
    /// Whether nothing but white space came since the beginning or a chain of thought.
    fresh: bool,
    /// Markers that close blocks, numbered behind the openings.
    closings: Vec<&'static str>,
    /// What would have closed the latest block, which ended without.
    unclosed: Option<&'static str>,
}

#[derive(Debug)]
enum State {
    Text,
    Block(OpenBlock),
    /// JSON that is no call: what looks like a call inside of it is data.
    Json(JsonScan),
}

#[derive(Debug)]
struct OpenBlock {
    block: Box<dyn Block>,
    place: Place,
    /// How many calls there were before it.
    calls: usize,
}

impl Scanner {
    /// Looks for these blocks. `closings` are the markers that may stay behind when one of them breaks off.
    pub fn new(tools: Arc<Tools>, openings: Vec<Opening>, closings: &[&'static str]) -> Self {
        let markers = openings.iter().map(|opening| opening.marker.clone());
        let closings = closings.to_vec();
        let hold = HoldBack::new(
            markers.chain(closings.iter().map(|&marker| marker.into())).chain([Cow::Borrowed(THOUGHT_END)]),
        );
        Self {
            tools,
            openings,
            hold,
            emitter: Emitter::default(),
            state: State::Text,
            text: String::new(),
            fresh: true,
            closings,
            unclosed: None,
        }
    }

    /// Begins inside of a block: the prompt may already have opened one.
    pub fn inside(mut self, block: Box<dyn Block>) -> Self {
        self.emitter.begin("");
        self.state = State::Block(OpenBlock { block, place: Place::Anywhere, calls: 0 });
        self
    }

    fn step(&mut self, c: char) {
        match &mut self.state {
            State::Text => {
                if let Some(found) = self.hold.push(c, &mut self.text) {
                    self.found(found);
                }
            }
            State::Block(open) => match open.block.push(c, &mut self.emitter) {
                Step::More => self.emitter.note(c),
                Step::Done => {
                    self.emitter.note(c);
                    self.emitter.end_tag();
                    self.emitter.roll_back();
                    if self.emitter.calls() > open.calls {
                        self.unclosed = open.block.closing();
                    }
                    self.state = State::Text;
                }
                Step::Refused => self.refused(c),
            },
            State::Json(scan) => match scan.check(c) {
                Scan::More => self.text.push(c),
                Scan::Done => {
                    self.text.push(c);
                    self.state = State::Text;
                }
                Scan::Before | Scan::Invalid => {
                    self.state = State::Text;
                    self.step(c);
                }
            },
        }
    }

    fn found(&mut self, found: Found) {
        self.flush();
        let marker = found.marker;
        match self.openings.get(marker) {
            Some(opening) if opening.place != Place::Start || self.fresh => {
                self.fresh = false;
                self.emitter.begin(&opening.marker);
                let block = (opening.block)(&self.tools, &opening.marker);
                let (place, calls) = (opening.place, self.emitter.calls());
                self.state = State::Block(OpenBlock { block, place, calls });
            }
            Some(_) => self.text.push_str(self.hold.marker(marker)),
            None => match self.closings.get(marker - self.openings.len()).copied() {
                Some(closing) if self.unclosed == Some(closing) => self.unclosed = None,
                closing => {
                    self.text.push_str(self.hold.marker(marker));
                    self.flush();
                    self.fresh |= closing.is_none();
                }
            },
        }
        found.rest.chars().for_each(|c| self.step(c));
    }

    /// The block didn't want `c`.
    fn refused(&mut self, c: char) {
        let State::Block(open) = std::mem::replace(&mut self.state, State::Text) else { return };
        if let Some(noted) = self.emitter.noted() {
            if open.place != Place::Anywhere {
                self.state = inside_json(noted).map_or(State::Text, State::Json);
            }
            self.fresh &= noted.trim_start().is_empty();
        }
        let tag = self.emitter.roll_back();
        if self.emitter.calls() > open.calls {
            self.unclosed = open.block.closing();
        }
        tag.chars().for_each(|c| self.step(c));
        self.step(c);
    }

    /// Hands text on.
    fn flush(&mut self) {
        if !self.text.is_empty() {
            self.fresh &= self.text.trim_start().is_empty();
            self.emitter.text(&self.text);
            self.text.clear();
        }
    }
}

/// The state behind `text` if it is the beginning of JSON, behind its opening marker if that isn't.
fn inside_json(text: &str) -> Option<JsonScan> {
    let json = text.get(text.find(['{', '['])?..)?;
    let mut scan = JsonScan::strict();
    json.chars().all(|c| scan.check(c) == Scan::More).then_some(scan)
}

impl CallParser for Scanner {
    fn push(&mut self, text: &str, out: &mut Vec<OutputEvent>) {
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if matches!(self.state, State::Text) {
                let (plain, behind) = rest.split_at(self.hold.plain(rest));
                self.text.push_str(plain);
                rest = behind;
                if !plain.is_empty() {
                    continue;
                }
            }
            self.step(c);
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
        }
        self.flush();
        self.emitter.drain(out);
    }

    fn finish(&mut self, out: &mut Vec<OutputEvent>) {
        while let Some(found) = self.hold.finish(&mut self.text) {
            self.found(found);
        }
        self.flush();
        if let State::Block(open) = &mut self.state {
            open.block.finish(&mut self.emitter);
        }
        self.emitter.finish(out);
    }
}
