//! Everybody's view of the engine.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::Sender,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot, watch};
use vllm_platform::{MemoryInfo, ModelInfo};

use crate::{
    EngineState, Event, EventStream, FlushError, KvEvents, KvSnapshot, Load, LoadChanges, Profile, Request, RequestId,
    RequestStatus, Stats, SubmitError, kv_events::Journal, load::LoadBook, media, waiting::Waiting,
};

/// What a handle tells the engine's thread.
#[derive(Debug)]
pub(crate) enum Command {
    Submit {
        request: Box<Request>,
        events: mpsc::UnboundedSender<Event>,
        submitted: Instant,
    },
    Abort(RequestId),
    /// The answer is complete.
    Stop(RequestId),
    Cancel(RequestId, oneshot::Sender<bool>),
    Describe(oneshot::Sender<Vec<RequestStatus>>),
    ClearCache(oneshot::Sender<usize>),
    /// [`Command::ClearCache`] once nobody is there, if that is so before this time.
    FlushCache(Instant, oneshot::Sender<Result<usize, FlushError>>),
    KvSnapshot(oneshot::Sender<KvSnapshot>),
    Profile(oneshot::Sender<Profile>),
    /// The tier below memory has something to say, or features are there.
    Wake,
    Drain,
    Shutdown,
}

/// What the engine's thread and its handles both see.
#[derive(Debug)]
pub(crate) struct Shared {
    pub info: ModelInfo,
    pub max_num_batched_tokens: usize,
    /// Requests submitted and not admitted yet.
    pub waiting: Waiting,
    pub draining: AtomicBool,
    pub stats: Mutex<Stats>,
    pub memory: Mutex<MemoryInfo>,
    /// Since when there is work and no step has ended; `None` while there is no work.
    pub busy_since: Mutex<Option<Instant>>,
    pub load: LoadBook,
    pub journal: Arc<Journal>,
}

/// A running engine. Cheap to clone; the engine ends when it was told to or the last clone is gone.
#[derive(Debug, Clone)]
pub struct EngineHandle {
    pub(crate) commands: Arc<Sender<Command>>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) state: watch::Receiver<EngineState>,
    pub(crate) thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl EngineHandle {
    /// Queues a request.
    ///
    /// # Errors
    /// [`SubmitError`] if it could never be computed, or not now. Nothing is left behind.
    pub fn submit(&self, mut request: Request) -> Result<EventStream, SubmitError> {
        self.check(&request)?;
        if self.shared.draining.load(SeqCst) {
            return Err(SubmitError::Draining);
        }
        if request.params.seed.is_none() {
            request.params.seed = Some(random_seed());
        }
        let client = request.client.clone();
        self.shared.waiting.join(client.as_ref())?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let (id, prompt_tokens) = (request.id.clone(), request.prompt.len());
        self.shared.load.submitted(prompt_tokens);
        let command = Command::Submit { request: Box::new(request), events: sender, submitted: Instant::now() };
        if self.commands.send(command).is_err() {
            self.shared.waiting.leave(client.as_ref());
            self.shared.load.seen(prompt_tokens);
            let why = match *self.state.borrow() {
                EngineState::Broken => "the model runner panicked",
                _ => "it was shut down",
            };
            return Err(SubmitError::Stopped(why.into()));
        }
        Ok(EventStream::new(id, receiver, Arc::downgrade(&self.commands)))
    }

    fn check(&self, request: &Request) -> Result<(), SubmitError> {
        let info = &self.shared.info;
        let (prompt, max_tokens) = (request.prompt.len(), request.max_tokens);
        if prompt == 0 {
            return Err(SubmitError::EmptyPrompt);
        }
        if max_tokens == 0 {
            return Err(SubmitError::NoTokens);
        }
        if prompt.saturating_add(max_tokens) > info.context_length {
            return Err(SubmitError::ContextLength { prompt, max_tokens, context: info.context_length });
        }
        // The last token generated is never computed.
        let block_size = info.kv_cache.block_size;
        media::check(&request.media, prompt)?;
        let chunk = self.shared.max_num_batched_tokens.max(media::longest_unsplit(&request.media));
        for group in &info.kv_cache.groups {
            let (needed, blocks) = (group.blocks_for(prompt + max_tokens - 1, chunk, block_size), group.num_blocks);
            if needed > blocks {
                return Err(SubmitError::NeverFits { needed, blocks, block_size });
            }
        }
        if let Some(&token) = request.prompt.iter().find(|&&token| token as usize >= info.vocab_size) {
            return Err(SubmitError::UnknownToken { token, vocab: info.vocab_size });
        }
        request.params.validate(info.vocab_size)?;
        Ok(())
    }

    /// Ends every request of that name at the next step, with [`FinishReason::Abort`](crate::FinishReason::Abort).
    pub fn abort(&self, id: &RequestId) {
        // An engine that has stopped has nothing left to abort.
        let _ = self.commands.send(Command::Abort(id.clone()));
    }

    /// Ends every request of that name at the next step and says whether there was one.
    pub async fn cancel(&self, id: &RequestId) -> bool {
        let (reply, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Cancel(id.clone(), reply));
        answer.await.unwrap_or(false)
    }

    /// Where each request stands that has not ended, oldest first; empty if the engine has stopped.
    pub async fn requests(&self) -> Vec<RequestStatus> {
        let (reply, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Describe(reply));
        answer.await.unwrap_or_default()
    }

    /// Forgets every prefix, in memory and on the SSD, that no running request holds; says how many blocks it were.
    pub async fn clear_cache(&self) -> usize {
        let (reply, answer) = oneshot::channel();
        let _ = self.commands.send(Command::ClearCache(reply));
        answer.await.unwrap_or(0)
    }

    /// [`clear_cache`](Self::clear_cache) when no request is there, waiting for that so long; says how many blocks it were.
    ///
    /// # Errors
    /// [`FlushError`], and nothing is forgotten, if there are requests at the end of that time, or the engine has stopped.
    pub async fn flush_cache(&self, wait: Duration) -> Result<usize, FlushError> {
        let (reply, answer) = oneshot::channel();
        let now = Instant::now();
        // Nobody waits for longer than a year.
        let until = now.checked_add(wait).unwrap_or(now + Duration::from_secs(365 * 86400));
        let _ = self.commands.send(Command::FlushCache(until, reply));
        answer.await.unwrap_or(Err(FlushError::Stopped))
    }

    /// What the prefix cache holds and how that changes, from batch number `from` on; from the present state if `from` is 0,
    /// or a number whose batch is kept no longer or that is not this engine's. Once this was called changes are written down, at
    /// most once a step, and they are for as long as anybody listens and some time beyond.
    #[must_use]
    pub fn kv_events(&self, from: u64) -> KvEvents {
        KvEvents::new(Arc::downgrade(&self.commands), Arc::clone(&self.shared.journal), from)
    }

    /// How much the engine has to do.
    #[must_use]
    pub fn load(&self) -> Load {
        self.shared.load.load(self.shared.waiting.len(), self.silence(), Instant::now())
    }

    /// Says when [`load`](Self::load) has changed, as the engine sees it: no more than a few times a step.
    #[must_use]
    pub fn load_changed(&self) -> LoadChanges {
        self.shared.load.changes()
    }

    /// What the engine's thread spent its time on since this was last called, or since its start; `None` if the engine has
    /// stopped. From the first call on the runner [counts](vllm_platform::ModelRunner::profile). Waits for the step that is
    /// being computed.
    ///
    /// # Panics
    /// On an async worker.
    pub fn profile(&self) -> Option<Profile> {
        let (reply, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Profile(reply));
        answer.blocking_recv().ok()
    }

    /// How long the engine has had work in hand without ending a step; `None` if it has nothing to do.
    #[must_use]
    pub fn silence(&self) -> Option<Duration> {
        lock(&self.shared.busy_since).map(|since| since.elapsed())
    }

    /// Most tokens of a step.
    #[must_use]
    pub fn max_batched_tokens(&self) -> usize {
        self.shared.max_num_batched_tokens
    }

    /// The model in numbers.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        &self.shared.info
    }

    /// Figures as of the last step, and the requests that wait now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats { waiting: self.shared.waiting.len(), state: *self.state.borrow(), ..lock(&self.shared.stats).clone() }
    }

    /// Memory of the model's device, as of a moment ago.
    #[must_use]
    pub fn memory(&self) -> MemoryInfo {
        *lock(&self.shared.memory)
    }

    /// Refuses new requests and lets the engine stop when those it has are done.
    pub fn drain(&self) {
        self.shared.draining.store(true, SeqCst);
        let _ = self.commands.send(Command::Drain);
    }

    /// Aborts all requests and stops the engine.
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

    /// [`stopped`](Self::stopped) for callers without tokio; also waits until the model's memory is given back.
    pub fn join(&self) {
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            // A panic of the thread has been reported where it happened.
            let _ = thread.join();
        }
    }
}

/// Nothing panics while it holds one of these locks half-way through a change.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From the operating system's randomness, by way of the hash maps' keys.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u8(0);
    hasher.finish()
}
