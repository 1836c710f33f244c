//! The simplest formats of tool calls and reasoning: `<think>…</think>`, and `<call>name{…}</call>`.

use std::sync::Arc;

use vllm_api::model::Formats;
use vllm_parsers::{CallFormat, CallParser, OutputEvent, ReasoningFormat, ReasoningParser, Shape, Split, Tools};

/// Both.
pub fn formats() -> Formats {
    Formats { calls: Some(&CALLS), reasoning: Some(&REASONING) }
}

static CALLS: CallFormat = CallFormat {
    names: &["test"],
    markers: &[],
    stops: &[],
    native_history: true,
    parser: |_: Arc<Tools>| Box::new(Calls { held: String::new(), place: Place::Text }),
    shape: |_, _| Shape::Text { without: Vec::new() },
};

static REASONING: ReasoningFormat = ReasoningFormat {
    names: &["test"],
    markers: &[],
    start: "<think>",
    end: "</think>",
    parser: |open| Box::new(Reasoning { held: String::new(), inside: open }),
};

/// Takes from `held` what stands before `marker`, and whether the marker came; a part of it is held back.
fn upto(held: &mut String, marker: &str) -> (String, bool) {
    if let Some(at) = held.find(marker) {
        let before = held[..at].to_owned();
        held.drain(..at + marker.len());
        return (before, true);
    }
    let kept = (1..marker.len()).rev().find(|&len| held.ends_with(&marker[..len])).unwrap_or(0);
    let rest = held.split_off(held.len() - kept);
    (std::mem::replace(held, rest), false)
}

#[derive(Debug)]
struct Reasoning {
    held: String,
    inside: bool,
}

impl ReasoningParser for Reasoning {
    fn push(&mut self, text: &str, out: &mut Vec<Split>) {
        self.held.push_str(text);
        loop {
            let (before, found) = upto(&mut self.held, if self.inside { "</think>" } else { "<think>" });
            if !before.is_empty() {
                out.push(if self.inside { Split::Reasoning(before) } else { Split::Content(before) });
            }
            if !found {
                return;
            }
            self.inside = !self.inside;
        }
    }

    fn finish(&mut self, out: &mut Vec<Split>) {
        let rest = std::mem::take(&mut self.held);
        out.push(if self.inside { Split::Reasoning(rest) } else { Split::Content(rest) });
    }
}

#[derive(Debug)]
struct Calls {
    held: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Text,
    Name,
    Arguments,
}

impl CallParser for Calls {
    fn push(&mut self, text: &str, out: &mut Vec<OutputEvent>) {
        self.held.push_str(text);
        loop {
            match self.place {
                Place::Text => {
                    let (before, found) = upto(&mut self.held, "<call>");
                    if !before.is_empty() {
                        out.push(OutputEvent::Text(before));
                    }
                    if !found {
                        return;
                    }
                    self.place = Place::Name;
                }
                Place::Name => {
                    let Some(at) = self.held.find('{') else { return };
                    let name = self.held.drain(..at).collect();
                    out.push(OutputEvent::Call { name, id: None });
                    self.place = Place::Arguments;
                }
                Place::Arguments => {
                    let (before, found) = upto(&mut self.held, "</call>");
                    if !before.is_empty() {
                        out.push(OutputEvent::Arguments(before));
                    }
                    if !found {
                        return;
                    }
                    self.place = Place::Text;
                }
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<OutputEvent>) {
        let rest = std::mem::take(&mut self.held);
        match self.place {
            Place::Text if !rest.is_empty() => out.push(OutputEvent::Text(rest)),
            Place::Arguments if !rest.is_empty() => out.push(OutputEvent::Arguments(rest)),
            _ => {}
        }
    }
}
