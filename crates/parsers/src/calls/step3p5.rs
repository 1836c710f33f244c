//! StepFun's Step 3.5: the calls of [`qwen3_xml`], of which the model likes to write one twice.

use std::sync::Arc;

use super::{CallFormat, qwen3_xml};
use crate::{CallParser, OutputEvent, Tools};

pub(super) const STEP3P5: CallFormat = CallFormat {
    names: &["step3p5", "step"],
    stops: &["</tool_call>"],
    parser: |tools| Box::new(Once::new(tools)),
    // The stop text allows for no more than one.
    shape: |tools, _| qwen3_xml::shape(tools, Some(1)),
    ..qwen3_xml::FORMAT
};

/// Leaves out a call that repeats the one before it. As long as it may still differ it is held back.
#[derive(Debug)]
struct Once {
    parser: Box<dyn CallParser>,
    events: Vec<OutputEvent>,
    /// The latest call, its name and its arguments so far.
    last: Option<(String, String)>,
    /// A call that is the same up to here.
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    call: OutputEvent,
    arguments: String,
}

impl Once {
    fn new(tools: Arc<Tools>) -> Self {
        Self { parser: qwen3_xml::parser(tools), events: Vec::new(), last: None, held: None }
    }

    fn pass_on(&mut self, out: &mut Vec<OutputEvent>) {
        for event in std::mem::take(&mut self.events) {
            match event {
                OutputEvent::Call { name, id } => {
                    self.settle(out);
                    let same = self.last.as_ref().is_some_and(|(last, _)| *last == name);
                    let call = OutputEvent::Call { name: name.clone(), id };
                    if same {
                        self.held = Some(Held { call, arguments: String::new() });
                    } else {
                        self.last = Some((name, String::new()));
                        out.push(call);
                    }
                }
                OutputEvent::Arguments(json) => self.arguments(json, out),
                event => {
                    self.settle(out);
                    // What follows text repeats nothing.
                    self.last = None;
                    out.push(event);
                }
            }
        }
    }

    fn arguments(&mut self, json: String, out: &mut Vec<OutputEvent>) {
        let Some(held) = &mut self.held else {
            if let Some((_, arguments)) = &mut self.last {
                arguments.push_str(&json);
            }
            out.push(OutputEvent::Arguments(json));
            return;
        };
        held.arguments.push_str(&json);
        if self.last.as_ref().is_some_and(|(_, last)| !last.starts_with(&held.arguments)) {
            self.release(out);
        }
    }

    /// The call that is held back is over: it is left out if it is the same as a whole.
    fn settle(&mut self, out: &mut Vec<OutputEvent>) {
        let same = matches!((&self.held, &self.last), (Some(held), Some((_, last))) if *last == held.arguments);
        if same {
            self.held = None;
        }
        self.release(out);
    }

    /// The call that is held back goes out.
    fn release(&mut self, out: &mut Vec<OutputEvent>) {
        let Some(Held { call, arguments }) = self.held.take() else { return };
        if let Some((_, last)) = &mut self.last {
            last.clone_from(&arguments);
        }
        out.push(call);
        if !arguments.is_empty() {
            out.push(OutputEvent::Arguments(arguments));
        }
    }
}

impl CallParser for Once {
    fn push(&mut self, text: &str, out: &mut Vec<OutputEvent>) {
        self.parser.push(text, &mut self.events);
        self.pass_on(out);
    }

    fn finish(&mut self, out: &mut Vec<OutputEvent>) {
        self.parser.finish(&mut self.events);
        self.pass_on(out);
        self.settle(out);
    }
}
