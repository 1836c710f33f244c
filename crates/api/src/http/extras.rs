//! Fields of vLLM's that OpenAI doesn't have.

use std::{sync::Arc, time::Duration};

use serde_json::Value;
use vllm_platform::{
    TokenId,
    sampling::{AllowedTokens, BadWords, LogitsProcessor, MinTokens},
};

use super::{ApiError, Fields, fields::show, guide::Guide};
use crate::model::ServedModel;

/// How an answer is bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extras {
    ignore_eos: bool,
    stop_token_ids: Vec<TokenId>,
    min_tokens: usize,
    allowed_token_ids: Option<Vec<TokenId>>,
    bad_words: Vec<Vec<TokenId>>,
    /// Whether a stop string is part of the answer.
    pub include_stop: bool,
    /// Whether special tokens give no text.
    pub skip_special: bool,
}

impl Extras {
    /// Takes them.
    ///
    /// # Errors
    /// 400 for wrong types, and for tokens that the model doesn't have.
    pub fn take(fields: &mut Fields, model: &ServedModel) -> Result<Self, ApiError> {
        let vocab = model.engine.info().vocab_size;
        let allowed = take_tokens(fields, "allowed_token_ids")?;
        if let Some(tokens) = &allowed {
            let error = |message: String| Err(ApiError::field("allowed_token_ids", message));
            if tokens.is_empty() {
                return error("allowed_token_ids is empty: there must be at least one".into());
            }
            if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocab) {
                return error(format!("allowed_token_ids has {token}: this model's vocabulary has {vocab} tokens"));
            }
        }
        let bad_words = take_bad_words(fields, vocab)?;
        Ok(Self {
            ignore_eos: fields.boolean("ignore_eos")?.unwrap_or(false),
            stop_token_ids: take_tokens(fields, "stop_token_ids")?.unwrap_or_default(),
            min_tokens: fields.integer("min_tokens", 0..=i64::MAX)?.unwrap_or(0) as usize,
            allowed_token_ids: allowed,
            bad_words,
            include_stop: fields.boolean("include_stop_str_in_output")?.unwrap_or(false),
            skip_special: fields.boolean("skip_special_tokens")?.unwrap_or(true),
        })
    }

    /// Refuses what can't be had together with a grammar: between them there may be no token left to choose.
    ///
    /// # Errors
    /// 400.
    pub fn check_with(&self, guide: &Guide) -> Result<(), ApiError> {
        let kept = [
            ("allowed_token_ids", self.allowed_token_ids.is_some()),
            ("bad_words_token_ids", !self.bad_words.is_empty()),
        ];
        match kept.into_iter().find(|(_, given)| *given && guide.has_grammar()) {
            Some((name, _)) => {
                let message = format!("{name} can't be kept together with structured output or forced tool calls");
                Err(ApiError::unsupported(name, message))
            }
            None => Ok(()),
        }
    }

    /// Tokens that end an answer.
    #[must_use]
    pub fn stop_tokens(&self, model: &ServedModel) -> Vec<TokenId> {
        let mut tokens = if self.ignore_eos { Vec::new() } else { model.stop_tokens() };
        tokens.extend(&self.stop_token_ids);
        tokens
    }

    /// What they change of the logits. A stop string still ends an answer that has fewer than `min_tokens`.
    ///
    /// # Errors
    /// 400 if an answer of `max_tokens` can't have `min_tokens`.
    pub fn processors(
        &self,
        model: &ServedModel,
        max_tokens: usize,
    ) -> Result<Vec<Arc<dyn LogitsProcessor>>, ApiError> {
        let mut processors: Vec<Arc<dyn LogitsProcessor>> = Vec::new();
        if let Some(tokens) = &self.allowed_token_ids {
            processors.push(Arc::new(AllowedTokens::new(tokens.iter().copied())));
        }
        if !self.bad_words.is_empty() {
            processors.push(Arc::new(BadWords::new(self.bad_words.clone())));
        }
        if self.min_tokens > max_tokens {
            let message = format!("min_tokens is {}: the answer may have at most {max_tokens} tokens", self.min_tokens);
            return Err(ApiError::field("min_tokens", message));
        }
        if self.min_tokens > 0 {
            processors.push(Arc::new(MinTokens { tokens: self.min_tokens, stop: self.stop_tokens(model) }));
        }
        Ok(processors)
    }
}

/// Takes `bad_words_token_ids`, a list of lists of tokens.
fn take_bad_words(fields: &mut Fields, vocab: usize) -> Result<Vec<Vec<TokenId>>, ApiError> {
    let name = "bad_words_token_ids";
    let error = |message: String| ApiError::field(name, message);
    let word = |value: Value| {
        let Value::Array(ids) = value else {
            return Err(error(format!("{name} has {}: it must be a list of lists of token ids", show(&value))));
        };
        if ids.is_empty() {
            return Err(error(format!("{name} has an empty list: each must have a token at least")));
        }
        let id = |value: Value| match value.as_u64().filter(|&id| id < vocab as u64) {
            Some(id) => Ok(id as TokenId),
            None => Err(error(format!("{name} has {}: this model's vocabulary has {vocab} tokens", show(&value)))),
        };
        ids.into_iter().map(id).collect()
    };
    fields.array(name)?.unwrap_or_default().into_iter().map(word).collect()
}

fn take_tokens(fields: &mut Fields, name: &str) -> Result<Option<Vec<TokenId>>, ApiError> {
    let id = |value: Value| {
        value.as_u64().and_then(|id| TokenId::try_from(id).ok()).ok_or_else(|| {
            ApiError::field(name, format!("{name} has {}: it must be a list of token ids", show(&value)))
        })
    };
    fields.array(name)?.map(|values| values.into_iter().map(id).collect()).transpose()
}

/// When a request is computed, and beside whose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scheduling {
    /// Lower is sooner.
    pub priority: i32,
    /// Prefixes are shared only under the same salt.
    pub cache_salt: Option<Arc<str>>,
    /// Longest time to its end.
    pub timeout: Option<Duration>,
}

/// Longest timeout a request may ask for, in seconds: a hundred days.
const MAX_TIMEOUT: f32 = 8_640_000.0;

/// Takes `timeout`; without it, it is `default`.
///
/// # Errors
/// 400 if it isn't above 0.
pub fn take_timeout(fields: &mut Fields, default: Option<Duration>) -> Result<Option<Duration>, ApiError> {
    match fields.number("timeout")? {
        None => Ok(default),
        Some(seconds) if seconds > 0.0 && seconds <= MAX_TIMEOUT => Ok(Some(Duration::from_secs_f32(seconds))),
        Some(seconds) => {
            let message = format!("timeout is {seconds}: it must be above 0 and at most {MAX_TIMEOUT} seconds");
            Err(ApiError::field("timeout", message))
        }
    }
}

impl Scheduling {
    /// Takes `priority`, `cache_salt` and `timeout`; without the last, it has `timeout`.
    ///
    /// # Errors
    /// 400 for wrong types, an empty salt, and a timeout that isn't above 0.
    pub fn take(fields: &mut Fields, timeout: Option<Duration>) -> Result<Self, ApiError> {
        let priority = fields.integer("priority", i64::from(i32::MIN)..=i64::from(i32::MAX))?.unwrap_or(0);
        let cache_salt = fields.string("cache_salt")?;
        if cache_salt.as_ref().is_some_and(String::is_empty) {
            return Err(ApiError::field("cache_salt", "cache_salt is empty: leave it out to share prefixes"));
        }
        let timeout = take_timeout(fields, timeout)?;
        Ok(Self { priority: priority as i32, cache_salt: cache_salt.map(Into::into), timeout })
    }
}
