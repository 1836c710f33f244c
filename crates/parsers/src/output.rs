//! Both parsers of an answer, one behind the other.

use crate::{CallParser, OutputEvent, ReasoningParser, Split};

/// Understands one answer as its text comes in. Without parsers all of it is text.
#[derive(Debug, Default)]
pub struct OutputParser {
    reasoning: Option<Box<dyn ReasoningParser>>,
    calls: Option<Box<dyn CallParser>>,
    splits: Vec<Split>,
}

impl OutputParser {
    /// Puts parsers together.
    #[must_use]
    pub fn new(reasoning: Option<Box<dyn ReasoningParser>>, calls: Option<Box<dyn CallParser>>) -> Self {
        Self { reasoning, calls, splits: Vec::new() }
    }

    /// Takes the next piece of text; what became certain by it goes to `out`.
    pub fn push(&mut self, text: &str, out: &mut Vec<OutputEvent>) {
        match &mut self.reasoning {
            None => self.content(text, out),
            Some(reasoning) => {
                reasoning.push(text, &mut self.splits);
                self.pass_on(out);
            }
        }
    }

    /// The answer is over: what was held back goes to `out`.
    pub fn finish(&mut self, out: &mut Vec<OutputEvent>) {
        if let Some(reasoning) = &mut self.reasoning {
            reasoning.finish(&mut self.splits);
            self.pass_on(out);
        }
        if let Some(calls) = &mut self.calls {
            calls.finish(out);
        }
    }

    fn pass_on(&mut self, out: &mut Vec<OutputEvent>) {
        for split in std::mem::take(&mut self.splits) {
            match split {
                Split::Reasoning(text) if text.is_empty() => {}
                Split::Reasoning(text) => out.push(OutputEvent::Reasoning(text)),
                Split::Content(text) => self.content(&text, out),
            }
        }
    }

    fn content(&mut self, text: &str, out: &mut Vec<OutputEvent>) {
        if text.is_empty() {
            return;
        }
        match &mut self.calls {
            Some(calls) => calls.push(text, out),
            None => out.push(OutputEvent::Text(text.to_owned())),
        }
    }
}
