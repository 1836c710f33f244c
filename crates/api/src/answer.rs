//! An engine's tokens as text.

use std::{
    task::{Context, Poll},
    time::{Duration, Instant},
};

use vllm_platform::TokenId;
use vllm_scheduler::{
    EngineHandle, Event, EventStream, Failure, FinishReason, GeneratedToken, Request, Span, SubmitError, Timings, Usage,
};
use vllm_text::{Detokenizer, StopStrings, TextStream, Tokenizer};

/// How an answer is made into text.
#[derive(Debug, Clone)]
pub struct TextOptions {
    /// Strings that end the answer; they are not part of it unless `include_stop`.
    pub stop: Vec<String>,
    /// Whether a stop string is part of the answer.
    pub include_stop: bool,
    /// Whether special tokens give no text.
    pub skip_special: bool,
    /// Special tokens that give text all the same: a parser wants to see them.
    pub keep: Vec<TokenId>,
}

impl Default for TextOptions {
    fn default() -> Self {
        Self { stop: Vec::new(), include_stop: false, skip_special: true, keep: Vec::new() }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The engine refused the request.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// A stop string or the tokenizer is unusable.
    #[error(transparent)]
    Text(#[from] vllm_text::TextError),
}

/// An answer while it is being generated. Dropping it cancels the request.
#[derive(Debug)]
pub struct Answer {
    /// None after the last piece.
    events: Option<EventStream>,
    text: TextStream,
    /// The stop string that came, while the engine's last word is waited for.
    stopped: Option<String>,
    /// Whoever reads it has had enough.
    enough: bool,
    usage: Usage,
    first_token: Option<Instant>,
    /// Time spent on text so far, if the request is traced.
    text_time: Option<Duration>,
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Piece {
    /// New text, whole characters; may be empty.
    pub text: String,
    /// The token it came with. None at the end of an answer.
    pub token: Option<GeneratedToken>,
    /// Set on the last piece.
    pub end: Option<End>,
}

/// How an answer ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// By itself.
    Finished(Ending),
    /// The engine could not go on.
    Failed(Failure),
}

/// The end of an answer that did not fail.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    /// A stop string counts as [`FinishReason::Stop`].
    pub reason: FinishReason,
    /// The stop string, if it was one.
    pub stop: Option<String>,
    /// The token that ended it, if it was one: none of the answer's.
    pub stop_token: Option<GeneratedToken>,
    /// Tokens.
    pub usage: Usage,
    /// Times.
    pub timings: Timings,
    /// What the engine did when; empty unless the request was traced.
    pub timeline: Vec<Span>,
}

/// Tokens of a prompt that a detokenizer needs to see: a character has at most four bytes, a token at least one.
const PROMPT_TAIL: usize = 8;

impl Answer {
    /// Submits a request.
    ///
    /// # Errors
    /// If the engine refuses it or a stop string is unusable.
    pub fn start(
        engine: &EngineHandle,
        tokenizer: &Tokenizer,
        request: Request,
        options: &TextOptions,
    ) -> Result<Self, AnswerError> {
        let tail: &[TokenId] = &request.prompt[request.prompt.len().saturating_sub(PROMPT_TAIL)..];
        let detokenizer = Detokenizer::new(tokenizer, tail, options.skip_special)?.keeping(&options.keep);
        let stop = StopStrings::new(&options.stop, options.include_stop)?;
        let usage = Usage { prompt_tokens: request.prompt.len(), ..Usage::default() };
        let text_time = request.trace.then_some(Duration::ZERO);
        let events = Some(engine.submit(request)?);
        let text = TextStream::new(detokenizer, stop);
        Ok(Self { events, text, stopped: None, enough: false, usage, first_token: None, text_time })
    }

    /// Nothing more of it is wanted. Its ending comes as if the model had stopped here.
    pub fn stop(&mut self) {
        if let Some(events) = &self.events
            && !self.enough
        {
            self.enough = true;
            events.stop();
        }
    }

    /// The next piece; `None` after the last.
    pub async fn next(&mut self) -> Option<Piece> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// [`Answer::next`] for callers without tokio.
    ///
    /// # Panics
    /// On a thread that runs async tasks.
    pub fn blocking_next(&mut self) -> Option<Piece> {
        loop {
            let event = self.events.as_mut()?.blocking_next()?;
            if let Some(piece) = self.take_in(event) {
                return Some(piece);
            }
        }
    }

    /// [`Answer::next`] for hand-written futures.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        loop {
            let Some(events) = &mut self.events else { return Poll::Ready(None) };
            match events.poll_next(context) {
                Poll::Ready(Some(event)) => {
                    if let Some(piece) = self.take_in(event) {
                        return Poll::Ready(Some(piece));
                    }
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Tokens generated so far count as in the last piece.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// When the first token came.
    #[must_use]
    pub fn first_token(&self) -> Option<Instant> {
        self.first_token
    }

    /// Time spent on making text, if the request is traced.
    #[must_use]
    pub fn text_time(&self) -> Option<Duration> {
        self.text_time
    }

    /// What an event means for the text; nothing if it comes after a stop string and isn't the last.
    fn take_in(&mut self, event: Event) -> Option<Piece> {
        match event {
            Event::Token(_) if self.stopped.is_some() || self.enough => None,
            Event::Token(token) => {
                let now = Instant::now();
                self.usage.completion_tokens += 1;
                self.first_token.get_or_insert(now);
                let delta = self.text.push(token.token);
                if let Some(spent) = &mut self.text_time {
                    *spent += now.elapsed();
                }
                if delta.stopped.is_some() {
                    // The engine's last word has the books on the request: it is waited for.
                    self.stopped = delta.stopped;
                    self.events.as_ref().inspect(|events| events.stop());
                }
                Some(Piece { text: delta.text, token: Some(token), end: None })
            }
            Event::Finished(finished) => {
                self.events = None;
                let cut = self.enough || self.stopped.is_some();
                let (text, stop, usage) = match self.stopped.take() {
                    // Tokens that came after the end are nobody's.
                    stop if cut => {
                        let completion_tokens = self.usage.completion_tokens;
                        (String::new(), stop, Usage { completion_tokens, ..finished.usage })
                    }
                    // What was held back at the end may still turn out to hold a stop string.
                    _ => {
                        let delta = self.text.finish();
                        (delta.text, delta.stopped, finished.usage)
                    }
                };
                self.usage = usage;
                let ending = Ending {
                    reason: if cut || stop.is_some() { FinishReason::Stop } else { finished.reason },
                    stop_token: if cut || stop.is_some() { None } else { finished.stop },
                    stop,
                    usage,
                    timings: finished.timings,
                    timeline: finished.timeline,
                };
                Some(Piece { text, token: None, end: Some(End::Finished(ending)) })
            }
            Event::Failed(failure) => {
                self.events = None;
                // Whatever happens after a stop string, the answer is complete.
                let end = match self.stopped.take() {
                    None if !self.enough => End::Failed(failure),
                    stop => End::Finished(Ending {
                        reason: FinishReason::Stop,
                        stop,
                        stop_token: None,
                        usage: self.usage,
                        timings: Timings::default(),
                        timeline: Vec::new(),
                    }),
                };
                let text = if matches!(end, End::Failed(_)) { self.text.finish().text } else { String::new() };
                Some(Piece { text, token: None, end: Some(end) })
            }
        }
    }
}
