//! Several answers under way at once.

use std::{
    ops::ControlFlow,
    sync::Arc,
    task::{Context, Poll},
};

use vllm_platform::{SamplingParams, TokenId, sampling::LogitsProcessor};
use vllm_scheduler::{FinishReason, GeneratedToken, Request, RequestMedia};

use super::{
    ApiError,
    call::Call,
    chat::{AnswerParser, ChatMessage, OutputPlan},
    extras::Scheduling,
    guide::Guide,
    sampling::params_of_choice,
    usage::Usage,
};
use crate::{
    answer::{Answer, End, Ending, Piece, TextOptions},
    residency::Lease,
};

/// A prompt with the room for its answers.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// Its tokens.
    pub tokens: Vec<TokenId>,
    /// What of them only holds the place of pictures.
    pub media: Vec<RequestMedia>,
    /// Tokens that hold the place of videos' pictures.
    pub video_tokens: usize,
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
    /// Further changes to the logits.
    pub processors: Vec<Arc<dyn LogitsProcessor>>,
    /// What holds each answer to what was asked for.
    pub guide: Guide,
    /// When they are computed.
    pub scheduling: Scheduling,
    /// How tokens are made into text.
    pub text: TextOptions,
}

/// The answers to one HTTP request. Dropping it cancels those that are under way.
#[derive(Debug)]
pub struct Choices {
    call: Call,
    answers: Vec<Answer>,
    /// Answers to each prompt.
    n: usize,
    /// Whose turn it is to be asked first.
    next: usize,
    /// Tokens of the prompts.
    prompts: Usage,
}

impl Choices {
    /// Submits `n` requests for each prompt; choice `p * n + i` is answer `i` to prompt `p`.
    ///
    /// # Errors
    /// If the engine refuses one, or the call was cancelled meanwhile; those submitted are cancelled.
    pub fn start(model: &Lease, mut call: Call, prompts: &[Prompt], generation: &Generation) -> Result<Self, ApiError> {
        let mut counts = Usage::default();
        prompts.iter().for_each(|prompt| counts += prompt.usage());
        let n = generation.n;
        let ids = call.register(model, prompts.len() * n);
        let mut answers = Vec::with_capacity(ids.len());
        for (index, id) in ids.into_iter().enumerate() {
            let prompt = &prompts[index / n];
            // The guide first: what forbids an early end has to see whether an end is all that a grammar allows.
            let mut processors = generation.guide.processors(model)?;
            processors.extend(generation.processors.iter().cloned());
            let request = Request {
                id,
                prompt: prompt.tokens.clone(),
                media: prompt.media.clone(),
                params: params_of_choice(&generation.params, index % n),
                max_tokens: prompt.max_tokens,
                stop_tokens: generation.stop_tokens.clone(),
                processors,
                priority: generation.scheduling.priority,
                client: call.client.clone(),
                cache_salt: generation.scheduling.cache_salt.clone(),
                timeout: generation.scheduling.timeout,
                trace: call.is_traced(),
            };
            answers.push(Answer::start(&model.engine, &model.tokenizer, request, &generation.text)?);
        }
        // Whoever cancelled it before all were submitted has not reached all.
        if call.is_cancelled() {
            return Err(ApiError::cancelled());
        }
        call.submitted(answers.len(), generation.n);
        Ok(Self { call, answers, n, next: 0, prompts: counts })
    }

    /// Number of answers.
    #[must_use]
    pub fn count(&self) -> usize {
        self.answers.len()
    }

    /// The next piece of any answer, with its index; `None` when all have ended.
    pub async fn next(&mut self) -> Option<(usize, Piece)> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// [`Choices::next`] for hand-written futures.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<(usize, Piece)>> {
        let count = self.answers.len();
        let mut all_ended = true;
        for offset in 0..count {
            let index = (self.next + offset) % count;
            match self.answers[index].poll_next(context) {
                Poll::Ready(Some(piece)) => {
                    self.next = (index + 1) % count;
                    if let Some(end) = &piece.end {
                        self.call.ended(index, &self.answers[index], end);
                    }
                    return Poll::Ready(Some((index, piece)));
                }
                Poll::Ready(None) => {}
                Poll::Pending => all_ended = false,
            }
        }
        if all_ended { Poll::Ready(None) } else { Poll::Pending }
    }

    /// Nothing more of answer `index` is wanted.
    pub fn stop(&mut self, index: usize) {
        self.answers[index].stop();
    }

    /// The ending of an answer that was not cut short against its client's will. One that was cancelled has the reason
    /// [`FinishReason::Abort`].
    ///
    /// # Errors
    /// If the engine failed or is being shut down.
    pub fn ending(&self, end: End) -> Result<Ending, ApiError> {
        match end {
            End::Failed(failure) => Err(failure.into()),
            End::Finished(ending) if ending.reason == FinishReason::Abort && !self.call.is_cancelled() => {
                Err(ApiError::shutting_down())
            }
            End::Finished(ending) => Ok(ending),
        }
    }

    /// All answers, when they are complete, understood as `output` says.
    ///
    /// # Errors
    /// If one fails or is cancelled; the others are cancelled.
    pub async fn collect(mut self, output: &OutputPlan) -> Result<Collected, ApiError> {
        struct Open {
            parser: AnswerParser,
            message: ChatMessage,
            tokens: Vec<GeneratedToken>,
            ending: Option<Ending>,
        }
        let open =
            || Open { parser: output.parser(), message: ChatMessage::default(), tokens: Vec::new(), ending: None };
        let mut answers: Vec<Open> = self.answers.iter().map(|_| open()).collect();
        while let Some((index, piece)) = self.next().await {
            let Open { parser, message, tokens, ending } = &mut answers[index];
            tokens.extend(piece.token);
            *ending = piece.end.map(|end| self.ending(end)).transpose()?;
            if ending.as_ref().is_some_and(|ending| ending.reason == FinishReason::Abort) {
                return Err(ApiError::cancelled());
            }
            let flow = parser.push(&piece.text, |event| message.push(event));
            match (flow, &ending) {
                (ControlFlow::Break(()), _) => self.stop(index),
                (ControlFlow::Continue(()), Some(_)) => parser.finish(|event| message.push(event)),
                (ControlFlow::Continue(()), None) => {}
            }
        }
        let usage = self.usage();
        let answers = answers.into_iter().map(|Open { message, tokens, ending, .. }| {
            let ending = ending.ok_or_else(|| ApiError::engine("an answer broke off"))?;
            Ok(Complete { message, tokens, ending })
        });
        Ok(Collected { answers: answers.collect::<Result<_, ApiError>>()?, usage })
    }

    /// Tokens so far: each prompt once, as its first answer found it, however many answers it has.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let mut usage = self.prompts;
        for (index, answer) in self.answers.iter().map(Answer::usage).enumerate() {
            if index % self.n == 0 {
                usage.cached_tokens += answer.cached_tokens;
                usage.cached_media_tokens += answer.cached_media_tokens + answer.reused_media_tokens;
            }
            usage.completion_tokens += answer.completion_tokens;
        }
        usage
    }
}

impl Prompt {
    /// What is known of its tokens before they are looked up.
    fn usage(&self) -> Usage {
        let media: usize = self.media.iter().map(|media| media.span.len).sum();
        let video_tokens = self.video_tokens;
        let prompt_tokens = self.tokens.len();
        Usage { prompt_tokens, image_tokens: media.saturating_sub(video_tokens), video_tokens, ..Usage::default() }
    }
}

impl Drop for Choices {
    fn drop(&mut self) {
        let usage = self.usage();
        self.call.count(usage);
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
    /// What it says.
    pub message: ChatMessage,
    /// All of its tokens.
    pub tokens: Vec<GeneratedToken>,
    /// How it ended.
    pub ending: Ending,
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
