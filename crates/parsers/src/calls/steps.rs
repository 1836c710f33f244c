//! Blocks that look ahead.

use super::emitter::Emitter;
use super::scanner::{Block, Step};
use crate::feed::Feed;

/// A block that reads text where [`Block`] takes characters.
pub(super) trait Steps: std::fmt::Debug + Send {
    /// Does what is certain next; `None` if more text is needed. [`Step::Done`] may come only when all was read.
    fn step(&mut self, feed: &mut Feed, emitter: &mut Emitter) -> Option<Step>;

    /// See [`Block::closing`].
    fn closing(&self) -> Option<&'static str> {
        None
    }

    /// The answer is over, and nothing more can be read.
    fn over(&mut self, _emitter: &mut Emitter) {}
}

/// Makes a block of it.
#[derive(Debug)]
pub(super) struct Stepped<S> {
    steps: S,
    feed: Feed,
    /// How many calls there were before it.
    calls: Option<usize>,
}

impl<S: Steps> Stepped<S> {
    pub(super) fn new(steps: S) -> Self {
        Self { steps, feed: Feed::default(), calls: None }
    }

    fn run(&mut self, emitter: &mut Emitter) -> Step {
        loop {
            match self.steps.step(&mut self.feed, emitter) {
                None => return Step::More,
                Some(Step::More) => {}
                Some(end) => return end,
            }
        }
    }
}

impl<S: Steps> Block for Stepped<S> {
    fn push(&mut self, c: char, emitter: &mut Emitter) -> Step {
        self.calls.get_or_insert(emitter.calls());
        self.feed.push(c.encode_utf8(&mut [0; 4]));
        let step = self.run(emitter);
        if step == Step::Refused && emitter.noted().is_none() {
            // Behind a call nobody notes what was read and not used.
            let unused = self.feed.rest();
            emitter.text(unused.get(..unused.len().saturating_sub(c.len_utf8())).unwrap_or_default());
        }
        step
    }

    fn finish(&mut self, emitter: &mut Emitter) {
        self.feed.end();
        if self.run(emitter) == Step::More {
            self.steps.over(emitter);
        }
        // Markup behind a call that was cut off.
        if self.calls.is_some_and(|calls| emitter.calls() > calls) {
            emitter.forget();
        }
    }

    fn closing(&self) -> Option<&'static str> {
        self.steps.closing()
    }
}
