//! From an answer's tokens to what may come next.

use std::sync::Arc;

use llguidance::api::StopReason;
use llguidance::{CancellationHandle, Matcher};
use vllm_platform::TokenId;

use crate::error::library_message;
use crate::grammar::Grammar;
use crate::mask::Mask;
use crate::thought::{Place, Tags, Thought};
use crate::vocabulary::written;

/// Newlines that may stand between a chain of thought and the answer: models write two, parsers drop them.
const MAX_NEWLINES: usize = 2;

/// How a request wants its answer.
#[derive(Debug)]
pub(crate) struct Task {
    pub grammar: Grammar,
    /// Not empty.
    pub stop: Vec<TokenId>,
    pub tags: Option<Tags>,
}

/// Follows one answer.
pub(crate) struct Tracker {
    task: Arc<Task>,
    /// The tokens it was told.
    seen: Vec<TokenId>,
    thought: Option<Thought>,
    /// Newlines behind the chain of thought; more than allowed once the answer has begun.
    newlines: usize,
    state: State,
}

enum State {
    /// In the grammar. Until the answer has begun this is the grammar's beginning.
    Following(Box<Matcher>),
    /// A chain of thought has begun: no part of the answer has been written.
    Thinking,
    /// Nothing may follow but what ends the answer.
    Over,
}

impl Tracker {
    pub fn new(task: Arc<Task>) -> Self {
        let thought = task.tags.clone().map(Thought::new);
        let state = match &thought {
            Some(thought) if thought.place == Place::Inside => State::Thinking,
            _ => State::Following(Box::new(task.grammar.matcher())),
        };
        Self { task, seen: Vec::new(), thought, newlines: MAX_NEWLINES, state }
    }

    /// The tokens it was told.
    pub fn seen(&self) -> &[TokenId] {
        &self.seen
    }

    /// Takes the answer's next token.
    pub fn push(&mut self, token: TokenId) {
        self.seen.push(token);
        let task = Arc::clone(&self.task);
        let bytes = written(task.grammar.trie(), token);
        let Some(thought) = &mut self.thought else { return self.follow(token) };
        let was = thought.place;
        let rest = thought.push(bytes);
        let began = thought.began;
        match (was, thought.place) {
            (Place::Before(_), Place::Before(_)) => self.try_follow(token),
            (_, Place::Inside) => self.state = State::Thinking,
            (Place::Before(_), _) if !began => self.follow(token),
            (Place::Before(_) | Place::Inside, _) => self.begin(rest),
            (Place::Behind, _) if began && self.is_gap(bytes) => self.newlines += bytes.len(),
            (Place::Behind, _) => self.follow(token),
        }
    }

    /// The chain of thought has ended, and this was written behind it.
    fn begin(&mut self, rest: &[u8]) {
        self.newlines = 0;
        self.state = State::Following(Box::new(self.task.grammar.matcher()));
        match rest.iter().all(|byte| *byte == b'\n') {
            true => self.newlines = rest.len(),
            false => self.give_up("a token ends the chain of thought and goes on"),
        }
    }

    fn is_gap(&self, bytes: &[u8]) -> bool {
        !bytes.is_empty() && bytes.iter().all(|byte| *byte == b'\n') && self.newlines + bytes.len() <= MAX_NEWLINES
    }

    fn follow(&mut self, token: TokenId) {
        self.newlines = MAX_NEWLINES;
        let State::Following(matcher) = &mut self.state else { return };
        let ends = self.task.stop.contains(&token);
        if ends && matcher.is_accepting().unwrap_or(false) {
            self.state = State::Over;
        } else if let Err(error) = matcher.consume_token(token) {
            if ends {
                self.state = State::Over;
            } else {
                self.give_up(&error.to_string());
            }
        }
    }

    /// The token may be the beginning of a tag, of the answer, or of both.
    fn try_follow(&mut self, token: TokenId) {
        if let State::Following(matcher) = &mut self.state
            && matcher.consume_token(token).is_err()
        {
            self.state = State::Thinking;
        }
    }

    fn give_up(&mut self, reason: &str) {
        tracing::warn!(reason, tokens = self.seen.len(), "the grammar allows no token: the answer ends here");
        self.state = State::Over;
    }

    /// To stop it with, if it is in a grammar.
    pub fn handle(&self) -> Option<CancellationHandle> {
        match &self.state {
            State::Following(matcher) => matcher.cancellation_handle(),
            State::Thinking | State::Over => None,
        }
    }

    /// What may follow.
    pub fn mask(&mut self) -> Mask {
        match self.thought.as_ref().map(|thought| thought.place) {
            Some(Place::Inside) => self.inside(),
            Some(Place::Before(known)) => {
                let mut mask = match &self.state {
                    State::Following(_) => self.allowed(),
                    State::Thinking | State::Over => Mask::of(&[]),
                };
                if let Some(next) = self.task.tags.as_ref().and_then(|tags| tags.start.after(known)) {
                    for tokens in [&next.continuing, &next.closing, &next.overshooting] {
                        mask.allow(tokens);
                    }
                }
                mask
            }
            Some(Place::Behind) | None => {
                let mut mask = self.allowed();
                if self.newlines < MAX_NEWLINES && matches!(self.state, State::Following(_)) {
                    let gap = |count| self.task.grammar.trie().token_id_at_bytes(b"\n\n".get(..count)?);
                    let gaps: Vec<TokenId> = (1..=MAX_NEWLINES - self.newlines).filter_map(gap).collect();
                    mask.allow(&gaps);
                }
                mask
            }
        }
    }

    /// In the chain of thought anything goes, but a token that ends it may not begin the answer, too: nobody would
    /// have looked at that beginning.
    fn inside(&self) -> Mask {
        let Some(thought) = &self.thought else { return Mask::Except(Vec::new()) };
        let end = &thought.tags().end;
        let tokens = end.ends(thought.tail()).filter_map(|known| end.after(known));
        Mask::Except(tokens.flat_map(|next| next.overshooting.iter().copied()).collect())
    }

    /// What the grammar allows.
    fn allowed(&mut self) -> Mask {
        let State::Following(matcher) = &mut self.state else { return Mask::of(&self.task.stop) };
        match allowed(matcher, &self.task.stop) {
            Ok(mask) => mask,
            Err(error) => {
                self.give_up(&error);
                Mask::of(&self.task.stop)
            }
        }
    }
}

/// Why there is no mask, in words.
fn why(matcher: &Matcher, error: String) -> String {
    match matcher.stop_reason() {
        StopReason::NoExtension | StopReason::NoExtensionBias => "there is no such token".to_owned(),
        StopReason::Cancelled => "looking for them takes too long".to_owned(),
        _ => library_message(&error),
    }
}

/// What the grammar allows next, with `stop` where it may end.
pub(crate) fn allowed(matcher: &mut Matcher, stop: &[TokenId]) -> Result<Mask, String> {
    if matcher.is_stopped() {
        let ended = matcher.stop_reason().is_ok();
        return if ended { Ok(Mask::of(stop)) } else { Err(why(matcher, matcher.stop_reason().to_string())) };
    }
    let tokens = matcher.compute_mask();
    let may_end = tokens.is_ok() && matcher.is_accepting().unwrap_or(false);
    let mut mask = Mask::from(tokens.map_err(|error| why(matcher, error.to_string()))?);
    if may_end {
        mask.allow(stop);
    }
    Ok(mask)
}
