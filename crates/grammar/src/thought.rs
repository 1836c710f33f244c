//! Where a chain of thought begins and ends, by the bytes of an answer's tokens.

use std::sync::Arc;

use vllm_parsers::ReasoningFormat;

use crate::error::Result;
use crate::tag::Tag;
use crate::vocabulary::Vocabulary;

/// The chain of thought of one request.
#[derive(Debug, Clone, Copy)]
pub struct Reasoning {
    /// How its model writes it.
    pub format: &'static ReasoningFormat,
    /// Whether the prompt already ended inside it.
    pub open: bool,
}

/// The tags of a format in a model's vocabulary.
#[derive(Debug, Clone)]
pub(crate) struct Tags {
    pub start: Arc<Tag>,
    pub end: Arc<Tag>,
    pub open: bool,
}

impl Tags {
    pub fn new(vocabulary: &Vocabulary, reasoning: Reasoning) -> Result<Self> {
        let Reasoning { format, open } = reasoning;
        Ok(Self { start: vocabulary.tag(format.start)?, end: vocabulary.tag(format.end)?, open })
    }
}

/// Where an answer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// At its start, behind so many bytes of the start tag.
    Before(usize),
    /// In the chain of thought.
    Inside,
    /// Behind it: it is over, or never began.
    Behind,
}

/// Follows an answer through its chain of thought. Only an answer that starts with the start tag has one: tags that
/// come later are text.
#[derive(Debug, Clone)]
pub(crate) struct Thought {
    tags: Tags,
    pub place: Place,
    /// The last bytes, as many as may be the beginning of a tag.
    tail: Vec<u8>,
    /// Whether it has begun.
    pub began: bool,
    /// Tokens inside, without those of the start tag.
    pub tokens: usize,
}

impl Thought {
    pub fn new(tags: Tags) -> Self {
        let place = if tags.open || tags.start.len() == 0 { Place::Inside } else { Place::Before(0) };
        let began = place == Place::Inside;
        Self { tags, place, tail: Vec::new(), began, tokens: 0 }
    }

    pub fn tags(&self) -> &Tags {
        &self.tags
    }

    /// What came last.
    pub fn tail(&self) -> &[u8] {
        &self.tail
    }

    /// Takes the bytes of the next token; gives those that are no longer part of the chain of thought.
    pub fn push<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        match self.place {
            Place::Before(known) => self.open(known, bytes),
            Place::Inside => {
                self.tokens += 1;
                self.inside(bytes)
            }
            Place::Behind => {
                self.keep(bytes);
                bytes
            }
        }
    }

    fn open<'a>(&mut self, known: usize, bytes: &'a [u8]) -> &'a [u8] {
        // Blanks before the tag count for nothing.
        let written = if known == 0 { bytes.trim_ascii_start() } else { bytes };
        let rest = self.tags.start.rest(known);
        if let Some(behind) = written.strip_prefix(rest) {
            self.place = Place::Inside;
            self.began = true;
            return self.inside(behind);
        }
        if rest.starts_with(written) {
            self.place = Place::Before(known + written.len());
            return bytes;
        }
        self.place = Place::Behind;
        self.keep(bytes);
        bytes
    }

    fn inside<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let before = self.tail.len();
        self.tail.extend_from_slice(bytes);
        match self.tags.end.find(&self.tail) {
            Some(end) => {
                self.place = Place::Behind;
                self.tail.clear();
                // The tag ends in this token: had it been there before, it would have been found then.
                let rest = bytes.get(end.saturating_sub(before)..).unwrap_or_default();
                self.keep(rest);
                rest
            }
            None => {
                self.shorten();
                &[]
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.shorten();
    }

    /// A tag that is complete counts once.
    fn shorten(&mut self) {
        let most = self.tags.start.len().max(self.tags.end.len()).saturating_sub(1);
        self.tail.drain(..self.tail.len().saturating_sub(most));
    }
}
