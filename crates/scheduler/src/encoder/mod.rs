//! An engine for models that encode whole texts: see [`EncoderEngine`].

mod handle;
mod queue;
mod run;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc::channel},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;
use vllm_platform::{EncoderRunner, TokenId};

pub use self::handle::EncoderHandle;
use self::run::EncoderLoop;
use crate::{EngineState, Failure, FailureKind, StartError, engine::panic_text};

/// Bounds of an encoder's engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncoderConfig {
    /// Tokens of one step. A longer text has a step of its own.
    pub max_num_batched_tokens: usize,
    /// Requests that may be there at once; more are refused as [`SubmitError::Busy`](crate::SubmitError::Busy).
    pub max_waiting: usize,
    /// Requests of one client that may be there at once; more are refused as
    /// [`SubmitError::ClientBusy`](crate::SubmitError::ClientBusy).
    pub max_waiting_per_client: usize,
}

impl Default for EncoderConfig {
    fn default() -> Self {
        Self { max_num_batched_tokens: 256, max_waiting: 2048, max_waiting_per_client: 1536 }
    }
}

/// A text, or a pair of texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeInput {
    /// All tokens, special ones included.
    pub tokens: Vec<TokenId>,
    /// For each token, which text of the pair it belongs to; empty: all to the first.
    pub types: Vec<u32>,
}

/// Texts to encode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeRequest {
    /// At least one.
    pub inputs: Vec<EncodeInput>,
    /// Whose it is. Clients get equal shares; requests of nobody share as one client.
    pub client: Option<Arc<str>>,
    /// Fails with [`FailureKind::Timeout`] if it hasn't ended this long after its submission.
    pub timeout: Option<Duration>,
}

/// What became of a request's texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// One for each text, in order.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all texts.
    pub tokens: usize,
    /// From submission to the first step it was part of.
    pub queue: Duration,
    /// From then to its end.
    pub compute: Duration,
}

/// A request under way. Dropping it cancels the request at the next step.
#[derive(Debug)]
pub struct Ticket {
    answer: oneshot::Receiver<Result<Encoded, Failure>>,
}

impl Ticket {
    /// The answer.
    ///
    /// # Errors
    /// [`Failure`] if the step that computed it failed, its time is up, or the engine has stopped.
    pub async fn wait(self) -> Result<Encoded, Failure> {
        self.answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// [`wait`](Self::wait) for callers without tokio.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    ///
    /// # Panics
    /// On a thread that runs async tasks.
    pub fn blocking_wait(self) -> Result<Encoded, Failure> {
        self.answer.blocking_recv().unwrap_or_else(|_| Err(stopped()))
    }
}

fn stopped() -> Failure {
    Failure { kind: FailureKind::Stopped, message: "the engine has stopped".into() }
}

/// Figures since the start, as of the end of the last step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EncoderStats {
    /// Where the engine stands.
    pub state: EngineState,
    /// Requests that have not ended.
    pub waiting: usize,
    /// Steps taken.
    pub steps: u64,
    /// Texts encoded.
    pub texts: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Time that steps took.
    pub busy: Duration,
    /// Requests that were answered.
    pub finished: u64,
    /// Requests whose clients went away.
    pub cancelled: u64,
    /// Requests that failed.
    pub failed: u64,
    /// When the last step ended.
    pub last_step: Option<Instant>,
}

/// Makes engines for models that encode whole texts.
///
/// A request has any number of texts. Each step takes texts of all requests that wait, so many as its budget of tokens has
/// room for: those of the client and then of the request that have had least so far, so that a long list holds up
/// nobody. Steps are short, and give way to engines that generate.
///
/// ```
/// use vllm_platform::testing::FakeEncoder;
/// use vllm_scheduler::{EncodeInput, EncodeRequest, EncoderConfig, EncoderEngine};
///
/// let encoder = || Ok(Box::new(FakeEncoder::new(Default::default())) as Box<_>);
/// let engine = EncoderEngine::start(encoder, EncoderConfig::default()).unwrap();
/// let text = EncodeInput { tokens: vec![1, 2, 3], types: Vec::new() };
/// let request = EncodeRequest { inputs: vec![text; 2], client: None, timeout: None };
/// let encoded = engine.submit(request).unwrap().blocking_wait().unwrap();
/// assert_eq!((encoded.vectors.len(), encoded.tokens), (2, 6));
/// ```
#[derive(Debug)]
pub struct EncoderEngine;

impl EncoderEngine {
    /// Makes a runner on a new thread and returns when it is ready.
    ///
    /// # Errors
    /// [`StartError`] if the configuration makes no sense or `make_runner` fails or panics.
    ///
    /// # Panics
    /// On a thread that runs async tasks.
    pub fn start<F>(make_runner: F, config: EncoderConfig) -> Result<EncoderHandle, StartError>
    where
        F: FnOnce() -> vllm_platform::Result<Box<dyn EncoderRunner>> + Send + 'static,
    {
        config.check()?;
        let (ready, is_ready) = channel();
        let spawned = thread::Builder::new().name("encoder".into()).spawn(move || {
            let made = catch_unwind(AssertUnwindSafe(make_runner))
                .map_err(|panic| StartError::Panicked(panic_text(&*panic)))
                .and_then(|made| made.map_err(StartError::from));
            match made {
                Ok(runner) => {
                    let (engine, handle) = EncoderLoop::new(runner, &config);
                    if ready.send(Ok(handle)).is_ok() {
                        engine.run();
                    }
                }
                // Whoever asked is there until it has an answer.
                Err(error) => drop(ready.send(Err(error))),
            }
        });
        spawned.map_err(|error| StartError::Thread(error.to_string()))?;
        is_ready.recv().unwrap_or_else(|_| Err(StartError::Panicked("the thread is gone".into())))
    }
}

impl EncoderConfig {
    fn check(&self) -> Result<(), StartError> {
        let figures = [
            ("max_num_batched_tokens", self.max_num_batched_tokens),
            ("max_waiting", self.max_waiting),
            ("max_waiting_per_client", self.max_waiting_per_client),
        ];
        match figures.into_iter().find(|(_, value)| *value == 0) {
            Some((field, value)) => Err(StartError::Config { field, value, allowed: "at least 1".into() }),
            None => Ok(()),
        }
    }
}
