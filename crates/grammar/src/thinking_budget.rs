//! An end to thinking.

use std::sync::{Arc, Mutex, PoisonError};

use vllm_platform::TokenId;
use vllm_platform::sampling::LogitsProcessor;

use crate::error::Result;
use crate::mask::forbid;
use crate::thought::{Place, Reasoning, Tags, Thought};
use crate::vocabulary::Vocabulary;

/// Ends a chain of thought after so many tokens, by writing its end tag, and lets none begin again.
///
/// Goes well with a [`GrammarProcessor`](crate::GrammarProcessor) of the same reasoning, in any order: both see the
/// same chain of thought, and a grammar forbids nothing in it.
#[derive(Debug)]
pub struct ThinkingBudget {
    vocabulary: Arc<Vocabulary>,
    tags: Tags,
    most: usize,
    /// Where the latest answer stood.
    latest: Mutex<(Vec<TokenId>, Thought)>,
}

impl ThinkingBudget {
    /// At most `most` tokens of thinking, not counting those of the tags.
    ///
    /// # Errors
    /// [`GrammarError::Vocabulary`](crate::GrammarError::Vocabulary) if the model's tokenizer doesn't tell what its
    /// tokens write.
    pub fn new(vocabulary: &Arc<Vocabulary>, reasoning: Reasoning, most: usize) -> Result<Self> {
        let tags = Tags::new(vocabulary, reasoning)?;
        let latest = Mutex::new((Vec::new(), Thought::new(tags.clone())));
        Ok(Self { vocabulary: Arc::clone(vocabulary), tags, most, latest })
    }

    /// Brings `seen` and `thought` up to `output`.
    fn follow(&self, (seen, thought): &mut (Vec<TokenId>, Thought), output: &[TokenId]) {
        if !output.starts_with(seen) {
            seen.clear();
            *thought = Thought::new(self.tags.clone());
        }
        for &token in output.iter().skip(seen.len()) {
            thought.push(self.vocabulary.bytes(token));
        }
        seen.extend_from_slice(output.get(seen.len()..).unwrap_or_default());
    }
}

impl LogitsProcessor for ThinkingBudget {
    fn process(&self, _prompt: &[TokenId], output: &[TokenId], logits: &mut [f32]) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        self.follow(&mut latest, output);
        let thought = &latest.1;
        match thought.place {
            Place::Before(_) => {}
            Place::Inside if thought.tokens < self.most => {}
            Place::Inside => {
                // What is there of the tag already is not written again.
                let known = self.tags.end.ends(thought.tail()).next().unwrap_or(0);
                force(self.tags.end.after(known).and_then(|next| next.forced), logits);
            }
            Place::Behind if thought.began => {
                let known = self.tags.start.ends(thought.tail());
                let closing = known.filter_map(|known| self.tags.start.after(known));
                let tokens: Vec<TokenId> =
                    closing.flat_map(|next| next.closing.iter().chain(&next.overshooting).copied()).collect();
                forbid_some(&tokens, logits);
            }
            Place::Behind => {}
        }
    }
}

/// Leaves no token but this.
fn force(token: Option<TokenId>, logits: &mut [f32]) {
    let Some(kept) = token.and_then(|token| logits.get(token as usize).copied()) else { return };
    logits.fill(f32::NEG_INFINITY);
    if let Some(logit) = token.and_then(|token| logits.get_mut(token as usize)) {
        *logit = if kept.is_finite() { kept } else { 0.0 };
    }
}

/// Forbids tokens, unless a grammar wants just these.
fn forbid_some(tokens: &[TokenId], logits: &mut [f32]) {
    let before: Vec<Option<f32>> = tokens.iter().map(|&token| logits.get(token as usize).copied()).collect();
    forbid(tokens, logits);
    if tokens.is_empty() || logits.iter().any(|&logit| logit > f32::NEG_INFINITY) {
        return;
    }
    for (&token, before) in tokens.iter().zip(before) {
        if let (Some(logit), Some(before)) = (logits.get_mut(token as usize), before) {
            *logit = before;
        }
    }
}
