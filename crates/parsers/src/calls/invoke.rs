//! `<invoke name="f"><parameter name="k">v</parameter></invoke>`, with the tags of a format: MiniMax's and DeepSeek's.

use std::sync::Arc;

use serde_json::Value;

use super::emitter::Emitter;
use super::parameters::{self, Parameters, TypedBy};
use super::scanner::Step;
use super::shapes::literal;
use super::steps::Steps;
use crate::feed::{Feed, Find, Starts};
use crate::{Shape, Tool, Tools};

/// The tags of a format.
#[derive(Debug)]
pub(super) struct Tags {
    pub(super) block_end: &'static str,
    /// Up to the name's opening quote.
    pub(super) invoke: &'static str,
    pub(super) invoke_end: &'static str,
    /// Up to the name's opening quote.
    pub(super) parameter: &'static str,
    pub(super) parameter_end: &'static str,
}

/// Reads calls.
#[derive(Debug)]
pub(super) struct Invokes {
    tags: &'static Tags,
    tools: Arc<Tools>,
    /// Whether there is a block around the calls.
    block: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    /// In a block, before a call or the end.
    Block,
    Head,
    /// A call without a block: one with a parameter, or else it is only mentioned.
    Bare(String),
    Body(Parameters),
    ParameterHead(Parameters),
    Value(Parameters),
}

/// Longest name with what stands around it.
const MAX_HEAD: usize = 512;

impl Invokes {
    /// Behind a block's opening tag.
    pub(super) fn block(tags: &'static Tags, tools: &Arc<Tools>) -> Self {
        Self { tags, tools: Arc::clone(tools), block: true, state: State::Block }
    }

    /// Behind a call's opening tag, up to the quote.
    pub(super) fn bare(tags: &'static Tags, tools: &Arc<Tools>) -> Self {
        Self { block: false, state: State::Head, ..Self::block(tags, tools) }
    }

    fn block_step(&mut self, feed: &mut Feed, emitter: &mut Emitter) -> Option<Step> {
        let (blank, starts) = feed.starts_after_whitespace(&[self.tags.invoke, self.tags.block_end]);
        match starts {
            Starts::With(0) => {
                feed.take(blank + self.tags.invoke.len());
                self.state = State::Head;
                Some(Step::More)
            }
            Starts::With(_) => {
                emitter.forget();
                Some(Step::Done)
            }
            Starts::Unknown => None,
            Starts::Not => Some(Step::Refused),
        }
    }

    fn head(&mut self, feed: &mut Feed, emitter: &mut Emitter) -> Option<Step> {
        match feed.find(&["\">", "\n"]) {
            Find::At(bytes, 0) if (1..=MAX_HEAD).contains(&bytes) => {
                let name = feed.take(bytes).to_owned();
                feed.take(2);
                self.state = if self.block {
                    State::Body(Parameters::begin(&name, &self.tools, emitter))
                } else {
                    State::Bare(name)
                };
                Some(Step::More)
            }
            Find::NotIn(bytes) if bytes <= MAX_HEAD => None,
            _ => Some(Step::Refused),
        }
    }
}

impl Steps for Invokes {
    fn step(&mut self, feed: &mut Feed, emitter: &mut Emitter) -> Option<Step> {
        let tags = self.tags;
        // States that own the parameters give them on; those that wait put themselves back.
        match std::mem::replace(&mut self.state, State::Block) {
            State::Block => return self.block_step(feed, emitter),
            State::Head => {
                self.state = State::Head;
                return self.head(feed, emitter);
            }
            State::Bare(name) => match feed.starts_after_whitespace(&[tags.parameter]).1 {
                Starts::With(_) => self.state = State::Body(Parameters::begin(&name, &self.tools, emitter)),
                Starts::Not => return Some(Step::Refused),
                Starts::Unknown => {
                    self.state = State::Bare(name);
                    return None;
                }
            },
            State::Body(mut parameters) => {
                let ends = [tags.parameter, tags.invoke_end, tags.block_end, tags.invoke];
                let (blank, starts) = feed.starts_after_whitespace(&ends);
                let which = match starts {
                    Starts::With(which) => which,
                    Starts::Unknown => {
                        self.state = State::Body(parameters);
                        return None;
                    }
                    Starts::Not => {
                        parameters.end(emitter);
                        return Some(Step::Refused);
                    }
                };
                feed.take(blank + ends.get(which).map_or(0, |tag| tag.len()));
                if which == 0 {
                    self.state = State::ParameterHead(parameters);
                    return Some(Step::More);
                }
                parameters.end(emitter);
                if which == 2 || (which == 1 && !self.block) {
                    return Some(Step::Done);
                }
                emitter.begin("");
                self.state = if which == 3 { State::Head } else { State::Block };
            }
            State::ParameterHead(mut parameters) => match feed.find(&[">"]) {
                Find::At(bytes, _) if bytes <= MAX_HEAD => {
                    let head = feed.take(bytes).to_owned();
                    feed.take(1);
                    let (key, attributes) = head.split_once('"').unwrap_or((&head, ""));
                    let typed_by = match () {
                        () if attributes.contains("string=\"true\"") => TypedBy::Text,
                        () if attributes.contains("string=\"false\"") => TypedBy::Json,
                        () => TypedBy::Schema,
                    };
                    parameters.open(key, typed_by, emitter);
                    self.state = State::Value(parameters);
                }
                Find::NotIn(bytes) if bytes <= MAX_HEAD => {
                    self.state = State::ParameterHead(parameters);
                    return None;
                }
                _ => {
                    parameters.end(emitter);
                    return Some(Step::Refused);
                }
            },
            State::Value(mut parameters) => {
                let found = feed.find(&[tags.parameter_end]);
                let (Find::At(bytes, _) | Find::NotIn(bytes)) = found;
                parameters.push(feed.take(bytes), emitter);
                if let Find::NotIn(_) = found {
                    self.state = State::Value(parameters);
                    return None;
                }
                // A value may hold tags itself: one counts if what follows is markup, too.
                let ends = [tags.parameter, tags.invoke_end, tags.block_end];
                match feed.followed_by(tags.parameter_end.len(), &ends) {
                    None => {
                        self.state = State::Value(parameters);
                        return None;
                    }
                    Some(false) => {
                        parameters.push(feed.take(tags.parameter_end.len()), emitter);
                        self.state = State::Value(parameters);
                    }
                    Some(true) => {
                        feed.take(tags.parameter_end.len());
                        parameters.close(emitter);
                        self.state = State::Body(parameters);
                    }
                }
            }
        }
        Some(Step::More)
    }

    fn closing(&self) -> Option<&'static str> {
        Some(if self.block { self.tags.block_end } else { self.tags.invoke_end })
    }

    fn over(&mut self, emitter: &mut Emitter) {
        // Cut off between two parameters: what was written is a call.
        if let State::Body(parameters) | State::ParameterHead(parameters) = &mut self.state {
            parameters.end(emitter);
        }
    }
}

/// A call of `tool`; `attributes` gives what stands behind the name of a parameter of this schema.
pub(super) fn shape(tags: &Tags, tool: &Tool, attributes: fn(&Value) -> &'static str) -> Shape {
    let parameter = |tool: &Tool, key: &str, schema: &Value| {
        Shape::Sequence(vec![
            literal(format!("{}{key}\"{}>", tags.parameter, attributes(schema))),
            parameters::value_shape(tool, schema, tags.parameter_end),
            literal(format!("{}\n", tags.parameter_end)),
        ])
    };
    Shape::Sequence(vec![
        literal(format!("{}{}\">\n", tags.invoke, tool.name)),
        parameters::shape(tool, parameter),
        literal(format!("{}\n", tags.invoke_end)),
    ])
}
