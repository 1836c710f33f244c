//! Several answers under way at once.

use std::task::Poll;

use serde_json::{Value, json};
use vllm_platform::{SamplingParams, TokenId};
use vllm_scheduler::{FinishReason, GeneratedToken, Request, Usage};

use super::{ApiError, sampling::params_of_choice};
use crate::{
    answer::{Answer, End, Ending, Piece, TextOptions},
    model::ServedModel,
};

/// A prompt with the room for its answers.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// Its tokens.
    pub tokens: Vec<TokenId>,
    /// Most tokens of each answer.
    pub max_tokens: usize,
}

/// What all answers of one HTTP request have in common.
#[derive(Debug, Clone)]
pub struct Generation {
    /// How to choose tokens.
    pub params: SamplingParams,
    /// Answers to each prompt.
    pub n: usize,
    /// Tokens that end an answer.
    pub stop_tokens: Vec<TokenId>,
    /// How tokens are made into text.
    pub text: TextOptions,
}

/// The answers to one HTTP request. Dropping it cancels those that are under way.
#[derive(Debug)]
pub struct Choices {
    answers: Vec<Answer>,
    /// Whose turn it is to be asked first.
    next: usize,
    prompt_tokens: usize,
}

impl Choices {
    /// Submits `n` requests for each prompt; choice `p * n + i` is answer `i` to prompt `p`.
    ///
    /// # Errors
    /// If the engine refuses one; those submitted before it are cancelled.
    pub fn start(
        model: &ServedModel,
        id: &str,
        prompts: Vec<Prompt>,
        generation: &Generation,
    ) -> Result<Self, ApiError> {
        let prompt_tokens = prompts.iter().map(|prompt| prompt.tokens.len()).sum();
        let mut answers = Vec::with_capacity(prompts.len() * generation.n);
        for prompt in prompts {
            for index in 0..generation.n {
                let request = Request {
                    id: format!("{id}-{}", answers.len()).into(),
                    prompt: prompt.tokens.clone(),
                    params: params_of_choice(&generation.params, index),
                    max_tokens: prompt.max_tokens,
                    stop_tokens: generation.stop_tokens.clone(),
                    ..Request::new("")
                };
                answers.push(Answer::start(&model.engine, &model.tokenizer, request, &generation.text)?);
            }
        }
        Ok(Self { answers, next: 0, prompt_tokens })
    }

    /// Number of answers.
    #[must_use]
    pub fn count(&self) -> usize {
        self.answers.len()
    }

    /// The next piece of any answer, with its index; `None` when all have ended.
    pub async fn next(&mut self) -> Option<(usize, Piece)> {
        std::future::poll_fn(|context| {
            let count = self.answers.len();
            let mut all_ended = true;
            for offset in 0..count {
                let index = (self.next + offset) % count;
                match self.answers[index].poll_next(context) {
                    Poll::Ready(Some(piece)) => {
                        self.next = (index + 1) % count;
                        return Poll::Ready(Some((index, piece)));
                    }
                    Poll::Ready(None) => {}
                    Poll::Pending => all_ended = false,
                }
            }
            if all_ended { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }

    /// All answers, when they are complete.
    ///
    /// # Errors
    /// If one fails; the others are cancelled.
    pub async fn collect(mut self) -> Result<Collected, ApiError> {
        let mut texts: Vec<(String, Vec<GeneratedToken>, Option<Ending>)> =
            self.answers.iter().map(|_| (String::new(), Vec::new(), None)).collect();
        while let Some((index, piece)) = self.next().await {
            let (text, tokens, ending) = &mut texts[index];
            text.push_str(&piece.text);
            tokens.extend(piece.token);
            *ending = piece.end.map(check_end).transpose()?;
        }
        let usage = self.usage();
        let answers = texts.into_iter().map(|(text, tokens, ending)| {
            let ending = ending.ok_or_else(|| ApiError::engine("an answer broke off"))?;
            Ok(Complete { text, tokens, ending })
        });
        Ok(Collected { answers: answers.collect::<Result<_, ApiError>>()?, usage })
    }

    /// Tokens so far: each prompt once, however many answers it has.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let all = self.answers.iter().map(Answer::usage);
        Usage {
            prompt_tokens: self.prompt_tokens,
            cached_tokens: all.clone().map(|usage| usage.cached_tokens).sum::<usize>().min(self.prompt_tokens),
            completion_tokens: all.map(|usage| usage.completion_tokens).sum(),
        }
    }
}

/// Complete answers.
#[derive(Debug)]
pub struct Collected {
    /// By index.
    pub answers: Vec<Complete>,
    /// Of all together.
    pub usage: Usage,
}

/// A complete answer.
#[derive(Debug)]
pub struct Complete {
    /// All of its text.
    pub text: String,
    /// All of its tokens.
    pub tokens: Vec<GeneratedToken>,
    /// How it ended.
    pub ending: Ending,
}

/// The ending of an answer that was not cut short.
///
/// # Errors
/// If the engine failed or is being shut down.
pub fn check_end(end: End) -> Result<Ending, ApiError> {
    match end {
        End::Failed(failure) => Err(failure.into()),
        End::Finished(ending) if ending.reason == FinishReason::Abort => Err(ApiError::shutting_down()),
        End::Finished(ending) => Ok(ending),
    }
}

/// OpenAI's name of a finish reason.
#[must_use]
pub fn reason_name(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::Abort => "abort",
    }
}

/// OpenAI's `usage`.
#[must_use]
pub fn usage_json(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": { "cached_tokens": usage.cached_tokens },
    })
}
