//! An answer's text, understood piece by piece.

use std::{ops::ControlFlow, sync::Arc};

use vllm_parsers::{CallFormat, OutputEvent, OutputParser, ReasoningFormat, Tools};
use vllm_platform::TokenId;
use vllm_text::Tokenizer;

/// How the answers to a request are to be understood.
#[derive(Debug, Clone, Default)]
pub struct OutputPlan {
    /// The model's format of reasoning, and whether the prompt ends inside a chain of thought.
    pub reasoning: Option<(&'static ReasoningFormat, bool)>,
    /// The model's format of tool calls, if it was offered tools.
    pub calls: Option<(&'static CallFormat, Arc<Tools>)>,
    /// Most calls of an answer.
    pub most_calls: Option<usize>,
    /// Whether the chain of thought is left out.
    pub hide_reasoning: bool,
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChatEvent {
    /// More of the chain of thought.
    Reasoning(String),
    /// More of the text for the user.
    Text(String),
    /// A tool call begins.
    Call {
        /// Its number in the answer.
        index: usize,
        /// Names it in the conversation.
        id: String,
        /// The tool.
        name: String,
    },
    /// More of a call's arguments.
    Arguments {
        /// The call.
        index: usize,
        /// JSON text.
        text: String,
    },
}

impl OutputPlan {
    /// Whether text is just text.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.reasoning.is_none() && self.calls.is_none()
    }

    /// The special tokens that parsers must see as text.
    #[must_use]
    pub fn kept_tokens(&self, tokenizer: &Tokenizer) -> Vec<TokenId> {
        let reasoning = self.reasoning.iter().flat_map(|(format, _)| format.markers);
        let calls = self.calls.iter().flat_map(|(format, _)| format.markers);
        let tokens = reasoning.chain(calls).filter_map(|marker| tokenizer.token_to_id(marker));
        let mut tokens: Vec<TokenId> = tokens.filter(|&token| tokenizer.is_special(token)).collect();
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    }

    /// A parser for one answer.
    #[must_use]
    pub fn parser(&self) -> AnswerParser {
        AnswerParser {
            parser: OutputParser::new(
                self.reasoning.map(|(format, open)| (format.parser)(open)),
                self.calls.as_ref().map(|(format, tools)| (format.parser)(Arc::clone(tools))),
            ),
            short_ids: self.calls.as_ref().is_some_and(|(format, _)| format.names.contains(&"mistral")),
            most_calls: self.most_calls.unwrap_or(usize::MAX),
            hide_reasoning: self.hide_reasoning,
            calls: 0,
            out: Vec::new(),
        }
    }
}

/// Understands one answer as its text comes in.
#[derive(Debug)]
pub struct AnswerParser {
    parser: OutputParser,
    /// Mistral's templates take ids of nine letters and digits only.
    short_ids: bool,
    most_calls: usize,
    hide_reasoning: bool,
    calls: usize,
    out: Vec<OutputEvent>,
}

impl AnswerParser {
    /// Takes more text. After `Break`, there is one call too many: the answer is over, and nothing is pushed any more.
    pub fn push(&mut self, text: &str, sink: impl FnMut(ChatEvent)) -> ControlFlow<()> {
        self.parser.push(text, &mut self.out);
        self.pass_on(sink)
    }

    /// The text is over.
    pub fn finish(&mut self, sink: impl FnMut(ChatEvent)) {
        self.parser.finish(&mut self.out);
        // What it says of too many calls is of no use now.
        let _ = self.pass_on(sink);
    }

    /// Calls so far.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls
    }

    fn pass_on(&mut self, mut sink: impl FnMut(ChatEvent)) -> ControlFlow<()> {
        for event in self.out.drain(..) {
            match event {
                OutputEvent::Reasoning(_) if self.hide_reasoning => {}
                OutputEvent::Reasoning(text) => sink(ChatEvent::Reasoning(text)),
                OutputEvent::Text(text) => sink(ChatEvent::Text(text)),
                OutputEvent::Call { .. } if self.calls >= self.most_calls => return ControlFlow::Break(()),
                OutputEvent::Call { name, id } => {
                    let id = id.unwrap_or_else(|| new_id(self.short_ids));
                    sink(ChatEvent::Call { index: self.calls, id, name });
                    self.calls += 1;
                }
                OutputEvent::Arguments(text) => {
                    sink(ChatEvent::Arguments { index: self.calls.saturating_sub(1), text });
                }
            }
        }
        ControlFlow::Continue(())
    }
}

fn new_id(short: bool) -> String {
    let id = crate::random::hex_id();
    if short { id.chars().take(9).collect() } else { format!("call_{id}") }
}
