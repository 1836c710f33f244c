//! The outside of an engine.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, atomic::Ordering::SeqCst, mpsc::Sender},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, watch};
use vllm_platform::MemoryInfo;

use super::{Caller, Command, Service, Shared};
use crate::{AnswerStream, EngineState, SubmitError, handle::lock};

/// The outside of an engine. Cheap to clone; the engine ends when it was told to or the last clone is gone.
pub(crate) struct Door<S: Service> {
    pub(super) commands: Sender<Command<S>>,
    pub(super) shared: Arc<Shared<S>>,
    pub(super) state: watch::Receiver<EngineState>,
}

impl<S: Service> Clone for Door<S> {
    fn clone(&self) -> Self {
        Self { commands: self.commands.clone(), shared: Arc::clone(&self.shared), state: self.state.clone() }
    }
}

impl<S: Service> fmt::Debug for Door<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("state", &*self.state.borrow()).finish_non_exhaustive()
    }
}

impl<S: Service> Door<S> {
    /// Takes a request in, which is made once there is a place for it.
    pub fn submit(
        &self,
        client: Option<Arc<str>>,
        timeout: Option<Duration>,
        request: impl FnOnce() -> S::Request,
    ) -> Result<AnswerStream<S::Event>, SubmitError> {
        if self.shared.draining.load(SeqCst) {
            return Err(SubmitError::Draining);
        }
        let submitted = Instant::now();
        self.shared.waiting.join(client.as_ref())?;
        let made = catch_unwind(AssertUnwindSafe(request));
        let (sender, receiver) = mpsc::unbounded_channel();
        let deadline = timeout.and_then(|timeout| submitted.checked_add(timeout));
        let caller = Caller { client: client.clone(), events: sender, submitted, deadline, started: None };
        let sent = made.map(|request| self.commands.send(Command::Submit(request, caller)));
        if matches!(sent, Ok(Ok(()))) {
            return Ok(AnswerStream::new(receiver));
        }
        self.shared.waiting.leave(client.as_ref());
        match sent {
            Err(panic) => resume_unwind(panic),
            Ok(_) => {
                let why = match *self.state.borrow() {
                    EngineState::Broken => "the model panicked",
                    _ => "it was shut down",
                };
                Err(SubmitError::Stopped(why.into()))
            }
        }
    }

    pub fn info(&self) -> &S::Info {
        &self.shared.info
    }

    pub fn stats(&self) -> S::Stats {
        let mut stats = lock(&self.shared.stats).clone();
        let work = S::work(&mut stats);
        work.state = *self.state.borrow();
        work.waiting = self.shared.waiting.len().saturating_sub(work.running);
        stats
    }

    pub fn memory(&self) -> MemoryInfo {
        *lock(&self.shared.memory)
    }

    pub fn silence(&self) -> Option<Duration> {
        lock(&self.shared.busy_since).map(|since| since.elapsed())
    }

    pub fn drain(&self) {
        self.shared.draining.store(true, SeqCst);
        let _ = self.commands.send(Command::Drain);
    }

    pub fn shutdown(&self) {
        self.shared.draining.store(true, SeqCst);
        let _ = self.commands.send(Command::Shutdown);
    }

    pub async fn stopped(&self) -> EngineState {
        let ended = |state: &EngineState| matches!(state, EngineState::Stopped | EngineState::Broken);
        // The sender lives on the thread: if it is gone without a word, so is the thread.
        self.state.clone().wait_for(ended).await.map_or(EngineState::Broken, |state| *state)
    }
}
