//! `<tool_call>f<arg_key>k</arg_key><arg_value>v</arg_value></tool_call>`: GLM's and Laguna's calls.

use std::sync::Arc;

use super::CallFormat;
use super::emitter::Emitter;
use super::parameters::{self, Parameters, TypedBy};
use super::scanner::{Block, Opening, Scanner, Step};
use super::shapes::{self, literal, marker};
use super::steps::{Stepped, Steps};
use crate::feed::{Feed, Find, Starts};
use crate::{Shape, Tool, Tools};

/// GLM 4.5 and later.
pub(super) const GLM47: CallFormat = CallFormat {
    names: &["glm47", "glm4"],
    markers: &[CALL, CALL_END, KEY, KEY_END, VALUE, VALUE_END],
    stops: &[],
    native_history: true,
    parser: |tools| {
        let call = Opening::new(CALL, block);
        Box::new(Scanner::new(tools, vec![call], &[CALL_END]))
    },
    shape,
};

/// Poolside's Laguna, which writes the same.
pub(super) const POOLSIDE_V1: CallFormat = CallFormat { names: &["poolside_v1"], ..GLM47 };

const CALL: &str = "<tool_call>";
const CALL_END: &str = "</tool_call>";
const KEY: &str = "<arg_key>";
const KEY_END: &str = "</arg_key>";
const VALUE: &str = "<arg_value>";
const VALUE_END: &str = "</arg_value>";

/// Reads a call behind its opening tag.
pub(super) fn block(tools: &Arc<Tools>, _: &str) -> Box<dyn Block> {
    Box::new(Stepped::new(ArgPairs { tools: Arc::clone(tools), parameters: None, state: State::Name }))
}

/// Longest name of a tool and of a parameter.
const MAX_NAME: usize = 256;

/// Reads one call.
#[derive(Debug)]
struct ArgPairs {
    tools: Arc<Tools>,
    /// Of the call; there are none before its name is known.
    parameters: Option<Parameters>,
    state: State,
}

#[derive(Debug)]
enum State {
    Name,
    /// Before a key or the end.
    Pair,
    Key,
    /// Behind this key.
    BeforeValue(String),
    Value,
}

impl ArgPairs {
    fn name(&mut self, feed: &mut Feed, emitter: &mut Emitter) -> Option<Step> {
        let found = feed.find(&[KEY, CALL_END]);
        let (Find::At(bytes, _) | Find::NotIn(bytes)) = found;
        let name = feed.rest().get(..bytes).unwrap_or_default().trim();
        let admitted = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/');
        if bytes > MAX_NAME || !name.chars().all(admitted) {
            return Some(Step::Refused);
        }
        let Find::At(_, which) = found else { return None };
        // A name alone must be that of a tool: models put other things between these tags, too.
        if name.is_empty() || (which == 1 && self.tools.get(name).is_none()) {
            return Some(Step::Refused);
        }
        self.parameters = Some(Parameters::begin(name, &self.tools, emitter));
        feed.take(bytes);
        self.state = State::Pair;
        Some(Step::More)
    }

    /// The call is over, well or not.
    fn end(&mut self, step: Step, emitter: &mut Emitter) -> Option<Step> {
        if let Some(mut parameters) = self.parameters.take() {
            parameters.end(emitter);
        }
        Some(step)
    }
}

impl Steps for ArgPairs {
    fn step(&mut self, feed: &mut Feed, emitter: &mut Emitter) -> Option<Step> {
        match &mut self.state {
            State::Name => return self.name(feed, emitter),
            State::Pair => {
                let (blank, starts) = feed.starts_after_whitespace(&[KEY, CALL_END]);
                match starts {
                    Starts::With(0) => _ = feed.take(blank + KEY.len()),
                    Starts::With(_) => return self.end(Step::Done, emitter),
                    Starts::Unknown => return None,
                    Starts::Not => return self.end(Step::Refused, emitter),
                }
                self.state = State::Key;
            }
            State::Key => match feed.find(&[KEY_END]) {
                Find::At(bytes, _) if bytes <= MAX_NAME => {
                    self.state = State::BeforeValue(feed.take(bytes).trim().to_owned());
                    feed.take(KEY_END.len());
                }
                Find::NotIn(bytes) if bytes <= MAX_NAME => return None,
                _ => return self.end(Step::Refused, emitter),
            },
            State::BeforeValue(key) => {
                let (blank, starts) = feed.starts_after_whitespace(&[VALUE, KEY, CALL_END]);
                match starts {
                    Starts::With(0) => {
                        feed.take(blank + VALUE.len());
                        if let Some(parameters) = &mut self.parameters {
                            parameters.open(key, TypedBy::Schema, emitter);
                        }
                        self.state = State::Value;
                    }
                    // A key without a value.
                    Starts::With(_) => self.state = State::Pair,
                    Starts::Unknown => return None,
                    Starts::Not => return self.end(Step::Refused, emitter),
                }
            }
            State::Value => {
                let parameters = self.parameters.as_mut()?;
                let found = feed.find(&[VALUE_END]);
                let (Find::At(bytes, _) | Find::NotIn(bytes)) = found;
                parameters.push(feed.take(bytes), emitter);
                let Find::At(..) = found else { return None };
                // A value may hold tags itself: one counts if what follows is markup, too.
                if feed.followed_by(VALUE_END.len(), &[KEY, CALL_END])? {
                    feed.take(VALUE_END.len());
                    parameters.close(emitter);
                    self.state = State::Pair;
                } else {
                    parameters.push(feed.take(VALUE_END.len()), emitter);
                }
            }
        }
        Some(Step::More)
    }

    fn closing(&self) -> Option<&'static str> {
        Some(CALL_END)
    }

    fn over(&mut self, emitter: &mut Emitter) {
        // Cut off between two parameters: what was written is a call.
        if !matches!(self.state, State::Value) {
            self.end(Step::Done, emitter);
        }
    }
}

fn shape(tools: &Tools, most: Option<usize>) -> Shape {
    let parameter = |tool: &Tool, key: &str, schema: &_| {
        Shape::Sequence(vec![
            marker(KEY),
            literal(key),
            marker(KEY_END),
            marker(VALUE),
            parameters::value_shape(tool, schema, VALUE_END),
            marker(VALUE_END),
        ])
    };
    let call = |tool: &Tool| {
        Shape::Sequence(vec![
            marker(CALL),
            literal(tool.name.as_str()),
            parameters::shape(tool, parameter),
            marker(CALL_END),
        ])
    };
    shapes::calls(tools, most, &[], call)
}
