//! The engine's thread: commands in, steps, events out.

use std::{
    any::Any,
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc::{Receiver, TryRecvError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot, watch};
use vllm_platform::{ModelRunner, SeqId};

use crate::{
    EngineHandle, EngineState, Event, Failure, FailureKind, FinishReason, Finished, Request, RequestId, StartError,
    Stats, Timings,
    handle::{Command, Shared, lock},
    planner::{Limits, Outcome, Planner},
    sequence::Sequence,
};

/// Bounds of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// Sequences computed at once.
    pub max_num_seqs: usize,
    /// Tokens computed in one step, prompt chunks and answers together; at least `max_num_seqs`. The default suits a
    /// CPU: 512 is no faster there, and answers in progress would wait twice as long for a long prompt's chunks.
    pub max_num_batched_tokens: usize,
    /// Requests that may wait; more are refused as [`SubmitError::Busy`](crate::SubmitError::Busy).
    pub max_waiting: usize,
    /// Requests of one [`client`](crate::Request::client) that may wait; more are refused as
    /// [`SubmitError::ClientBusy`](crate::SubmitError::ClientBusy). Requests of nobody only count to `max_waiting`.
    pub max_waiting_per_client: usize,
    /// Most tokens of one prompt in one step; `None`: whatever `max_num_batched_tokens` leaves.
    pub prefill_step_size: Option<usize>,
    /// Whether prefixes are kept and found again.
    pub prefix_cache: bool,
    /// A tier of the prefix cache below memory.
    pub ssd: Option<SsdOptions>,
}

/// Where and how much of the prefix cache is kept on an SSD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SsdOptions {
    /// Folder for it; made if it isn't there.
    pub dir: PathBuf,
    /// Most bytes of all files in it.
    pub max_bytes: u64,
    /// Whether blocks are stored in 8 bits: half to a quarter of the size, and not exactly what was computed.
    pub quantize: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            max_num_seqs: 16,
            max_num_batched_tokens: 256,
            max_waiting: 256,
            max_waiting_per_client: 128,
            prefill_step_size: None,
            prefix_cache: true,
            ssd: None,
        }
    }
}

impl EngineConfig {
    fn check(&self) -> Result<(), StartError> {
        let error = |field, value, allowed: String| Err(StartError::Config { field, value, allowed });
        if self.max_num_seqs == 0 {
            return error("max_num_seqs", 0, "at least 1".into());
        }
        if self.max_num_batched_tokens < self.max_num_seqs {
            let allowed = format!("at least max_num_seqs, {}", self.max_num_seqs);
            return error("max_num_batched_tokens", self.max_num_batched_tokens, allowed);
        }
        if self.max_waiting == 0 {
            return error("max_waiting", 0, "at least 1".into());
        }
        Ok(())
    }
}

/// Steps that may panic in a row before the engine gives up.
const MAX_PANICS: u32 = 2;

/// How old the memory figures may get while the engine works.
const MEMORY_AGE: Duration = Duration::from_millis(200);

/// Makes engines; see the [crate's example](crate).
#[derive(Debug)]
pub struct Engine;

impl Engine {
    /// Makes a runner on a new thread and returns when it is ready.
    ///
    /// # Errors
    /// [`StartError`] if the configuration makes no sense or `make_runner` fails or panics.
    ///
    /// # Panics
    /// On a thread that runs async tasks: use [`Engine::start_async`] there.
    pub fn start<F>(make_runner: F, config: EngineConfig) -> Result<EngineHandle, StartError>
    where
        F: FnOnce() -> vllm_platform::Result<Box<dyn ModelRunner>> + Send + 'static,
    {
        let ready = Self::spawn(make_runner, config)?;
        ready.blocking_recv().unwrap_or_else(|_| Err(StartError::Panicked("the thread is gone".into())))
    }

    /// [`Engine::start`] without blocking: the runner is being made from the call on, whether or not the future
    /// is polled.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn start_async<F>(
        make_runner: F,
        config: EngineConfig,
    ) -> impl Future<Output = Result<EngineHandle, StartError>> + Send + use<F>
    where
        F: FnOnce() -> vllm_platform::Result<Box<dyn ModelRunner>> + Send + 'static,
    {
        let ready = Self::spawn(make_runner, config);
        async move { ready?.await.unwrap_or_else(|_| Err(StartError::Panicked("the thread is gone".into()))) }
    }

    fn spawn<F>(
        make_runner: F,
        config: EngineConfig,
    ) -> Result<oneshot::Receiver<Result<EngineHandle, StartError>>, StartError>
    where
        F: FnOnce() -> vllm_platform::Result<Box<dyn ModelRunner>> + Send + 'static,
    {
        config.check()?;
        let (ready, is_ready) = oneshot::channel();
        let (thread_sender, thread_receiver) = channel();
        let spawned = thread::Builder::new().name("engine".into()).spawn(move || {
            let made = catch_unwind(AssertUnwindSafe(make_runner))
                .map_err(|panic| StartError::Panicked(panic_text(&*panic)))
                .and_then(|made| made.map_err(StartError::from));
            let runner = match made {
                Ok(runner) => runner,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let (engine, handle) = EngineLoop::new(runner, config);
            // The thread's own handle, so that any clone can wait for its end.
            *lock(&handle.thread) = thread_receiver.recv().ok();
            if ready.send(Ok(handle)).is_ok() {
                engine.run();
            }
        });
        let thread = spawned.map_err(|error| StartError::Thread(error.to_string()))?;
        // The receiver is gone if the runner could not be made.
        let _ = thread_sender.send(thread);
        Ok(is_ready)
    }
}

/// Who waits for a sequence's events.
struct Client {
    id: RequestId,
    events: mpsc::UnboundedSender<Event>,
    submitted: Instant,
    started: Option<Instant>,
    first_token: Option<Instant>,
}

impl Client {
    fn timings(&self, now: Instant) -> Timings {
        let since_submission = |then: Option<Instant>| then.map_or(Duration::ZERO, |t| t - self.submitted);
        Timings {
            queue: since_submission(self.started),
            ttft: since_submission(self.first_token),
            decode: self.first_token.map_or(Duration::ZERO, |first| now - first),
        }
    }

    /// A client that has gone away wants no events: that is no error.
    fn send(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

struct EngineLoop {
    runner: Box<dyn ModelRunner>,
    planner: Planner,
    clients: HashMap<SeqId, Client>,
    commands: Receiver<Command>,
    shared: Arc<Shared>,
    state: watch::Sender<EngineState>,
    stats: Stats,
    next_seq: u64,
    panics_in_a_row: u32,
    memory_read: Option<Instant>,
}

impl EngineLoop {
    fn new(runner: Box<dyn ModelRunner>, config: EngineConfig) -> (Self, EngineHandle) {
        let info = runner.info().clone();
        let limits =
            Limits { max_num_seqs: config.max_num_seqs, max_num_batched_tokens: config.max_num_batched_tokens };
        let planner = Planner::new(limits, &info.kv_cache);
        let stats = Stats { blocks: planner.blocks(), ..Stats::default() };
        let shared = Arc::new(Shared {
            info,
            max_waiting: config.max_waiting,
            max_num_batched_tokens: config.max_num_batched_tokens,
            busy_since: Mutex::default(),
            waiting: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            stats: Mutex::new(stats.clone()),
            memory: Mutex::default(),
        });
        let (command_sender, commands) = channel();
        let (state, state_receiver) = watch::channel(EngineState::Running);
        let handle = EngineHandle {
            commands: command_sender,
            shared: Arc::clone(&shared),
            state: state_receiver,
            thread: Arc::default(),
        };
        let mut engine = Self {
            runner,
            planner,
            clients: HashMap::new(),
            commands,
            shared,
            state,
            stats,
            next_seq: 0,
            panics_in_a_row: 0,
            memory_read: None,
        };
        engine.publish();
        (engine, handle)
    }

    fn run(mut self) {
        let end = loop {
            if !self.take_commands() {
                break EngineState::Stopped;
            }
            self.drop_cancelled();
            if !self.planner.is_idle() {
                self.step();
            }
            self.publish();
            if self.panics_in_a_row >= MAX_PANICS {
                break EngineState::Broken;
            }
        };
        self.shared.draining.store(true, SeqCst);
        // What was submitted and not seen yet ends like everything else.
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Submit { request, events, submitted } = command {
                self.admit(request, events, submitted);
            }
        }
        let seqs: Vec<SeqId> = self.clients.keys().copied().collect();
        for seq in seqs {
            if end == EngineState::Stopped {
                self.cancel(seq);
            } else if let Some(client) = self.forget(seq) {
                self.planner.remove(seq);
                self.stats.failed += 1;
                client.send(failed(FailureKind::Stopped, "the engine has stopped: the model runner panicked"));
            }
        }
        self.publish();
        // The model's memory is given back before anybody is told that the engine has stopped.
        let Self { runner, state, commands, .. } = self;
        drop((runner, commands));
        state.send_replace(end);
    }

    /// Takes what has been commanded, waiting for it if there is nothing else to do; false: time to stop.
    fn take_commands(&mut self) -> bool {
        loop {
            let idle = self.planner.is_idle();
            if idle && *self.state.borrow() == EngineState::Draining {
                return false;
            }
            let command = if idle {
                // All handles are gone: nobody can ever ask for anything.
                let Ok(command) = self.commands.recv() else { return false };
                command
            } else {
                match self.commands.try_recv() {
                    Ok(command) => command,
                    Err(TryRecvError::Empty) => return true,
                    Err(TryRecvError::Disconnected) => return true,
                }
            };
            match command {
                Command::Submit { request, events, submitted } => self.admit(request, events, submitted),
                Command::Abort(id) => drop(self.abort(&id)),
                Command::Cancel(id, reply) => drop(reply.send(self.abort(&id))),
                Command::Describe(reply) => drop(reply.send(Vec::new())),
                Command::ClearCache(reply) => drop(reply.send(0)),
                Command::Drain => drop(self.state.send_replace(EngineState::Draining)),
                Command::Shutdown => return false,
            }
        }
    }

    fn admit(&mut self, request: Request, events: mpsc::UnboundedSender<Event>, submitted: Instant) {
        let seq = SeqId(self.next_seq);
        self.next_seq += 1;
        let client = Client { id: request.id.clone(), events, submitted, started: None, first_token: None };
        self.clients.insert(seq, client);
        self.planner.add(Sequence::new(seq, request));
    }

    fn abort(&mut self, id: &RequestId) -> bool {
        let of_that_name = self.clients.iter().filter(|(_, client)| client.id == *id);
        let seqs: Vec<SeqId> = of_that_name.map(|(&seq, _)| seq).collect();
        for &seq in &seqs {
            self.cancel(seq);
        }
        self.publish();
        !seqs.is_empty()
    }

    /// Forgets requests whose stream was dropped.
    fn drop_cancelled(&mut self) {
        let gone = self.clients.iter().filter(|(_, client)| client.events.is_closed());
        let seqs: Vec<SeqId> = gone.map(|(&seq, _)| seq).collect();
        for seq in seqs {
            self.cancel(seq);
        }
    }

    fn cancel(&mut self, seq: SeqId) {
        let sequence = self.planner.remove(seq);
        if let Some(client) = self.forget(seq) {
            self.stats.aborted += 1;
            tracing::debug!(request = %client.id, "cancelled");
            client.send(finished(&client, sequence.as_ref(), FinishReason::Abort));
        }
    }

    /// Ends the books on a client, and its place in the queue if it still had one.
    fn forget(&mut self, seq: SeqId) -> Option<Client> {
        let client = self.clients.remove(&seq)?;
        if client.started.is_none() {
            self.shared.waiting.fetch_sub(1, SeqCst);
        }
        Some(client)
    }

    fn step(&mut self) {
        let now = Instant::now();
        for seq in self.planner.schedule() {
            if let Some(client) = self.clients.get_mut(&seq) {
                client.started = Some(now);
                self.shared.waiting.fetch_sub(1, SeqCst);
            }
        }
        // A step may take long: what it admitted no longer waits, so it must be seen to run.
        self.publish();
        let prompt_tokens = self.planner.prompt_tokens();
        let plan = self.planner.step_plan();
        let runner = &mut self.runner;
        let result = catch_unwind(AssertUnwindSafe(|| runner.step(&plan)));
        drop(plan);
        self.stats.steps += 1;
        let result = match result {
            Ok(result) => {
                self.panics_in_a_row = 0;
                result.map_err(|error| error.to_string())
            }
            Err(panic) => {
                self.panics_in_a_row += 1;
                Err(format!("the model runner panicked: {}", panic_text(&*panic)))
            }
        };
        match result.and_then(|output| self.planner.complete(output.sampled)) {
            Ok(outcomes) => {
                self.stats.prompt_tokens += prompt_tokens as u64;
                self.report(outcomes);
            }
            Err(error) => self.fail_step(&error),
        }
        self.stats.last_step = Some(Instant::now());
    }

    fn report(&mut self, outcomes: Vec<Outcome>) {
        let now = Instant::now();
        for Outcome { seq, token, ended } in outcomes {
            self.stats.generated_tokens += 1;
            if let Some(client) = self.clients.get_mut(&seq) {
                client.first_token.get_or_insert(now);
                if let Some(token) = token {
                    client.send(Event::Token(token));
                }
            }
            if let Some((reason, sequence)) = ended
                && let Some(client) = self.forget(seq)
            {
                match reason {
                    FinishReason::Stop => self.stats.stopped += 1,
                    _ => self.stats.full += 1,
                }
                client.send(finished(&client, Some(&sequence), reason));
            }
        }
    }

    fn fail_step(&mut self, error: &str) {
        let sequences = self.planner.fail();
        tracing::error!(error, requests = sequences.len(), "a step failed");
        for sequence in sequences {
            if let Some(client) = self.forget(sequence.id) {
                self.stats.failed += 1;
                client.send(failed(FailureKind::Step, error));
            }
        }
    }

    /// Shows the figures to the handles.
    fn publish(&mut self) {
        self.stats.running = self.planner.running();
        self.stats.blocks = self.planner.blocks();
        *lock(&self.shared.stats) = self.stats.clone();
        let old = self.memory_read.is_none_or(|then| then.elapsed() > MEMORY_AGE);
        if (old || self.planner.is_idle())
            && let Ok(memory) = self.runner.memory()
        {
            *lock(&self.shared.memory) = memory;
            self.memory_read = Some(Instant::now());
        }
    }
}

fn failed(kind: FailureKind, message: &str) -> Event {
    Event::Failed(Failure { kind, message: message.to_owned() })
}

fn finished(client: &Client, sequence: Option<&Sequence>, reason: FinishReason) -> Event {
    let usage = sequence.map(Sequence::usage).unwrap_or_default();
    Event::Finished(Finished { reason, usage, timings: client.timings(Instant::now()), timeline: Vec::new() })
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
