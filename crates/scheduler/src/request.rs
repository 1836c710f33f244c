//! What goes into the engine and what comes out.

use std::{
    fmt,
    sync::{Arc, Weak, mpsc::Sender},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::sync::mpsc::UnboundedReceiver;
use vllm_platform::{SamplingParams, TokenId, TokenLogprobs, sampling::LogitsProcessor};

use crate::{RequestMedia, handle::Command};

/// Name of a request, chosen by the caller and unique among those that are alive.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub String);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for RequestId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

impl From<String> for RequestId {
    fn from(id: String) -> Self {
        Self(id)
    }
}

/// A prompt to continue.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its name.
    pub id: RequestId,
    /// Token ids, at least one.
    pub prompt: Vec<TokenId>,
    /// What of the prompt only holds the place of pictures, in order and without overlaps. A span whose tokens
    /// [see each other](vllm_platform::MediaSpan::bidirectional) is computed in one step even if it is longer than
    /// [`EngineConfig::max_num_batched_tokens`](crate::EngineConfig::max_num_batched_tokens).
    pub media: Vec<RequestMedia>,
    /// How to choose tokens; without a seed, a random one is set.
    pub params: SamplingParams,
    /// Most tokens to generate.
    pub max_tokens: usize,
    /// Tokens that end the answer, e.g. the model's end-of-sequence tokens. Empty: it always has `max_tokens`.
    pub stop_tokens: Vec<TokenId>,
    /// Its own changes to the logits, applied in order before what `params` says.
    pub processors: Vec<Arc<dyn LogitsProcessor>>,
    /// Lower is sooner, as in vLLM: a request waits while one of a lower number does, and is preempted first.
    pub priority: i32,
    /// Whose it is. Clients whose requests wait get equal shares; requests of nobody share as one client.
    pub client: Option<Arc<str>>,
    /// Requests share cached prefixes only with those of the same salt.
    pub cache_salt: Option<Arc<str>>,
    /// Fails with [`FailureKind::Timeout`] if it hasn't ended this long after its submission.
    pub timeout: Option<Duration>,
    /// Whether [`Finished::timeline`] is wanted.
    pub trace: bool,
}

impl Request {
    /// A greedy request for one token, without a prompt: fill in the rest.
    #[must_use]
    pub fn new(id: impl Into<RequestId>) -> Self {
        Self {
            id: id.into(),
            prompt: Vec::new(),
            media: Vec::new(),
            params: SamplingParams::default(),
            max_tokens: 1,
            stop_tokens: Vec::new(),
            processors: Vec::new(),
            priority: 0,
            client: None,
            cache_salt: None,
            timeout: None,
            trace: false,
        }
    }
}

/// Something happened to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// One more token.
    Token(GeneratedToken),
    /// The answer is complete. The last event.
    Finished(Finished),
    /// The answer cannot be completed. The last event.
    Failed(Failure),
}

/// Why an answer cannot be completed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What sort of failure it is.
    pub kind: FailureKind,
    /// What happened, in one line.
    pub message: String,
}

/// What sort of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The step that computed it failed. Trying again may or may not help.
    Step,
    /// Memory ran out in the step that computed it. Trying again later may help.
    OutOfMemory,
    /// [`Request::timeout`] has passed.
    Timeout,
    /// There are no features of one of its pictures.
    Media,
    /// The engine has stopped.
    Stopped,
}

/// One token of an answer. A stop token that ends the answer is not among them.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratedToken {
    /// The token.
    pub token: TokenId,
    /// If the request asked for them.
    pub logprobs: Option<TokenLogprobs>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// A stop token.
    Stop,
    /// `max_tokens`.
    Length,
    /// [`EngineHandle::abort`](crate::EngineHandle::abort) or shutdown.
    Abort,
}

/// How an answer ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// Why.
    pub reason: FinishReason,
    /// The stop token, if it was one.
    pub stop: Option<GeneratedToken>,
    /// Tokens.
    pub usage: Usage,
    /// Times.
    pub timings: Timings,
    /// What was done when, in order; empty unless [`Request::trace`] asked for it.
    pub timeline: Vec<Span>,
}

/// A part of a request's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// What was done.
    pub kind: SpanKind,
    /// When it began.
    pub start: Instant,
    /// When it ended.
    pub end: Instant,
}

/// What was done to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// It waited for its turn: at first, or after a preemption.
    Queue,
    /// Its prefix was looked up.
    CacheLookup {
        /// Tokens found.
        cached_tokens: usize,
    },
    /// Its prefix was read from the SSD.
    DiskRead {
        /// Blocks read.
        blocks: usize,
    },
    /// Features of its pictures were not there yet: it waited for the encoder, or for the SSD.
    MediaWait {
        /// Stretches of the prompt whose features were wanted.
        spans: usize,
    },
    /// A chunk of its prompt was computed.
    Prefill {
        /// Tokens of the chunk.
        tokens: usize,
    },
    /// Tokens of its answer were computed, up to its end or a preemption.
    Decode {
        /// Tokens generated.
        tokens: usize,
    },
}

/// Tokens of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of these, tokens whose KV was found in the cache.
    pub cached_tokens: usize,
    /// Tokens of the prompt that stand for pictures.
    pub media_tokens: usize,
    /// Of these, tokens whose KV was found in the cache.
    pub cached_media_tokens: usize,
    /// Of the others, tokens whose features nobody had to work out for this request: they were in memory or on the SSD, or
    /// the encoder was at them for another.
    pub reused_media_tokens: usize,
    /// Tokens generated; a stop token that ended the answer counts.
    pub completion_tokens: usize,
}

/// Times of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// From submission to the first step it was part of.
    pub queue: Duration,
    /// From submission to the first token; zero if there was none.
    pub ttft: Duration,
    /// From the first token to the last.
    pub decode: Duration,
}

/// The events of one request, in order. Dropping it cancels the request at the next step.
#[derive(Debug)]
pub struct EventStream {
    id: RequestId,
    events: UnboundedReceiver<Event>,
    commands: Weak<Sender<Command>>,
    ended: bool,
}

impl EventStream {
    pub(crate) fn new(id: RequestId, events: UnboundedReceiver<Event>, commands: Weak<Sender<Command>>) -> Self {
        Self { id, events, commands, ended: false }
    }

    /// Ends the answer at the next step as a stop token would have: for whoever finds in the text that it is complete.
    /// A few more tokens may come before [`Event::Finished`].
    pub fn stop(&self) {
        // An engine that is gone has said its last word, or says it now.
        let _ = self.commands.upgrade().map(|commands| commands.send(Command::Stop(self.id.clone())).is_ok());
    }

    /// Whose events these are.
    #[must_use]
    pub fn id(&self) -> &RequestId {
        &self.id
    }

    /// The next event; `None` after [`Event::Finished`] or [`Event::Failed`], one of which always comes.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// [`EventStream::next`] for callers without tokio.
    ///
    /// # Panics
    /// On a thread that runs async tasks.
    pub fn blocking_next(&mut self) -> Option<Event> {
        if self.ended {
            return None;
        }
        let event = self.events.blocking_recv();
        Some(self.note(event))
    }

    /// [`EventStream::next`] for hand-written futures.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.events.poll_recv(context).map(|event| Some(self.note(event)))
    }

    fn note(&mut self, event: Option<Event>) -> Event {
        let event = event.unwrap_or_else(|| {
            Event::Failed(Failure { kind: FailureKind::Stopped, message: "the engine has stopped".into() })
        });
        self.ended = !matches!(event, Event::Token(_));
        event
    }
}
