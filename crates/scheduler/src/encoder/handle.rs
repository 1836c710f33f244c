//! Everybody's view of an encoder's engine.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::Sender,
    },
    time::{Duration, Instant},
};

use tokio::sync::{oneshot, watch};
use vllm_platform::{EncoderInfo, MemoryInfo};

use super::{EncodeRequest, Encoded, EncoderStats, Ticket};
use crate::{EngineState, Failure, SubmitError, handle::lock, waiting::Waiting};

/// What a handle tells the engine's thread.
#[derive(Debug)]
pub(super) enum Command {
    Submit { request: EncodeRequest, answer: oneshot::Sender<Result<Encoded, Failure>>, submitted: Instant },
    Drain,
    Shutdown,
}

/// What the engine's thread and its handles both see.
#[derive(Debug)]
pub(super) struct Shared {
    pub info: EncoderInfo,
    pub waiting: Waiting,
    pub draining: AtomicBool,
    pub stats: Mutex<EncoderStats>,
    pub memory: Mutex<MemoryInfo>,
    /// Since when there is work and no step has ended; `None` while there is no work.
    pub busy_since: Mutex<Option<Instant>>,
}

/// A running engine. Cheap to clone; the engine ends when it was told to or the last clone is gone.
#[derive(Debug, Clone)]
pub struct EncoderHandle {
    pub(super) commands: Sender<Command>,
    pub(super) shared: Arc<Shared>,
    pub(super) state: watch::Receiver<EngineState>,
}

impl EncoderHandle {
    /// Queues a request.
    ///
    /// # Errors
    /// [`SubmitError`] if it could never be computed, or not now. Nothing is left behind.
    pub fn submit(&self, request: EncodeRequest) -> Result<Ticket, SubmitError> {
        self.check(&request)?;
        if self.shared.draining.load(SeqCst) {
            return Err(SubmitError::Draining);
        }
        let client = request.client.clone();
        self.shared.waiting.join(client.as_ref())?;
        let (answer, receiver) = oneshot::channel();
        if self.commands.send(Command::Submit { request, answer, submitted: Instant::now() }).is_err() {
            self.shared.waiting.leave(client.as_ref());
            let why = match *self.state.borrow() {
                EngineState::Broken => "the model runner panicked",
                _ => "it was shut down",
            };
            return Err(SubmitError::Stopped(why.into()));
        }
        Ok(Ticket { answer: receiver })
    }

    fn check(&self, request: &EncodeRequest) -> Result<(), SubmitError> {
        let info = &self.shared.info;
        if request.inputs.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        for (index, input) in request.inputs.iter().enumerate() {
            let tokens = input.tokens.len();
            if tokens == 0 {
                return Err(SubmitError::EmptyPrompt);
            }
            if tokens > info.max_input_len {
                return Err(SubmitError::InputLength { index, tokens, limit: info.max_input_len });
            }
            if let Some(&token) = input.tokens.iter().find(|&&token| token as usize >= info.vocab_size) {
                return Err(SubmitError::UnknownToken { token, vocab: info.vocab_size });
            }
        }
        Ok(())
    }

    /// The model in numbers.
    #[must_use]
    pub fn info(&self) -> &EncoderInfo {
        &self.shared.info
    }

    /// Figures as of the last step, and the requests that are there now.
    #[must_use]
    pub fn stats(&self) -> EncoderStats {
        EncoderStats { waiting: self.shared.waiting.len(), state: *self.state.borrow(), ..*lock(&self.shared.stats) }
    }

    /// Memory of the model's device, as of a moment ago.
    #[must_use]
    pub fn memory(&self) -> MemoryInfo {
        *lock(&self.shared.memory)
    }

    /// How long the engine has had work in hand without ending a step; `None` if it has nothing to do.
    #[must_use]
    pub fn silence(&self) -> Option<Duration> {
        lock(&self.shared.busy_since).map(|since| since.elapsed())
    }

    /// Refuses new requests and lets the engine stop when those it has are done.
    pub fn drain(&self) {
        self.shared.draining.store(true, SeqCst);
        let _ = self.commands.send(Command::Drain);
    }

    /// Fails all requests and stops the engine.
    pub fn shutdown(&self) {
        self.shared.draining.store(true, SeqCst);
        let _ = self.commands.send(Command::Shutdown);
    }

    /// Waits until the engine has stopped after [`drain`](Self::drain), [`shutdown`](Self::shutdown) or a breakdown.
    pub async fn stopped(&self) -> EngineState {
        let ended = |state: &EngineState| matches!(state, EngineState::Stopped | EngineState::Broken);
        // The sender lives on the thread: if it is gone without a word, so is the thread.
        self.state.clone().wait_for(ended).await.map_or(EngineState::Broken, |state| *state)
    }
}
