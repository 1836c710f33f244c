//! The engine's thread: requests in, steps, vectors out.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{Receiver, channel},
    },
    time::Instant,
};

use tokio::sync::watch;
use vllm_platform::{EncoderInput, EncoderRunner, Error};

use super::{
    EncoderConfig, EncoderHandle, EncoderStats,
    handle::{Command, Shared},
    queue::{Job, Queue},
    stopped,
};
use crate::{EngineState, Failure, FailureKind, engine::panic_text, handle::lock, turn, waiting::Waiting};

/// Steps that may panic in a row before the engine gives up.
const MAX_PANICS: u32 = 2;

pub(super) struct EncoderLoop {
    runner: Box<dyn EncoderRunner>,
    budget: usize,
    queue: Queue,
    commands: Receiver<Command>,
    shared: Arc<Shared>,
    state: watch::Sender<EngineState>,
    stats: EncoderStats,
    next_id: u64,
    panics_in_a_row: u32,
}

impl EncoderLoop {
    pub fn new(runner: Box<dyn EncoderRunner>, config: &EncoderConfig) -> (Self, EncoderHandle) {
        let (sender, commands) = channel();
        let shared = Arc::new(Shared {
            info: runner.info().clone(),
            waiting: Waiting::new(config.max_waiting, config.max_waiting_per_client),
            draining: AtomicBool::new(false),
            stats: Mutex::default(),
            memory: Mutex::default(),
            busy_since: Mutex::default(),
        });
        let (state, state_receiver) = watch::channel(EngineState::Running);
        let handle = EncoderHandle { commands: sender, shared: Arc::clone(&shared), state: state_receiver };
        let engine = Self {
            runner,
            budget: config.max_num_batched_tokens,
            queue: Queue::default(),
            commands,
            shared,
            state,
            stats: EncoderStats::default(),
            next_id: 0,
            panics_in_a_row: 0,
        };
        engine.publish();
        (engine, handle)
    }

    pub fn run(mut self) {
        let end = loop {
            if !self.take_commands() {
                break EngineState::Stopped;
            }
            self.drop_gone();
            if !self.queue.is_empty() {
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
            self.obey(command);
        }
        let left = self.queue.take(|_| true);
        self.fail(left, &stopped());
        self.publish();
        // The model's memory is given back before anybody is told that the engine has stopped.
        let Self { runner, state, commands, .. } = self;
        drop((runner, commands));
        state.send_replace(end);
    }

    /// Takes what has been commanded, waiting for it if there is nothing to do; false: time to stop.
    fn take_commands(&mut self) -> bool {
        loop {
            let idle = self.queue.is_empty();
            if idle && *self.state.borrow() == EngineState::Draining {
                return false;
            }
            let command = if idle {
                match self.commands.recv() {
                    Ok(command) => command,
                    // All handles are gone: nobody can ever ask for anything.
                    Err(_) => return false,
                }
            } else {
                match self.commands.try_recv() {
                    Ok(command) => command,
                    Err(_) => return true,
                }
            };
            if !self.obey(command) {
                return false;
            }
        }
    }

    /// Does what a handle asks for; false: time to stop.
    fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Submit { request, answer, submitted } => {
                self.queue.push(Job::new(self.next_id, request, answer, submitted));
                self.next_id += 1;
                self.note_work();
                true
            }
            Command::Drain => {
                self.state.send_replace(EngineState::Draining);
                true
            }
            Command::Shutdown => false,
        }
    }

    /// Forgets requests whose ticket was dropped or whose time is up.
    fn drop_gone(&mut self) {
        let now = Instant::now();
        let gone = self.queue.take(Job::is_gone);
        self.stats.cancelled += gone.len() as u64;
        gone.iter().for_each(|job| self.shared.waiting.leave(job.client.as_ref()));
        let late = self.queue.take(|job| job.is_late(now));
        self.fail(late, &Failure { kind: FailureKind::Timeout, message: "the request's time is up".into() });
    }

    fn step(&mut self) {
        let mut slice = turn::DEVICE.slice();
        let start = Instant::now();
        let batch = self.queue.next_batch(self.budget, start);
        let inputs = self.queue.inputs(&batch);
        let inputs: Vec<EncoderInput<'_>> =
            inputs.iter().map(|input| EncoderInput { tokens: &input.tokens, types: &input.types }).collect();
        let tokens: usize = inputs.iter().map(|input| input.tokens.len()).sum();
        let runner = &mut self.runner;
        let result = catch_unwind(AssertUnwindSafe(|| runner.encode(&inputs, &mut || slice.pause())));
        drop(slice);
        let now = Instant::now();
        let failure = |kind, message| Failure { kind, message };
        let result = match result {
            Ok(result) => {
                self.panics_in_a_row = 0;
                result.map_err(|error| match error {
                    Error::OutOfMemory(_) => failure(FailureKind::OutOfMemory, error.to_string()),
                    error => failure(FailureKind::Step, error.to_string()),
                })
            }
            Err(panic) => {
                self.panics_in_a_row += 1;
                Err(failure(FailureKind::Step, format!("the model runner panicked: {}", panic_text(&*panic))))
            }
        };
        let wanted = batch.len();
        let result = result.and_then(|vectors| match vectors.len() {
            found if found == wanted => Ok(vectors),
            found => {
                Err(failure(FailureKind::Step, format!("the model runner gave {found} vectors for {wanted} texts")))
            }
        });
        self.stats.steps += 1;
        self.stats.busy += now - start;
        self.stats.last_step = Some(now);
        match result {
            Ok(vectors) => {
                self.stats.texts += wanted as u64;
                self.stats.tokens += tokens as u64;
                let ended = self.queue.complete(&batch, vectors);
                self.stats.finished += ended.len() as u64;
                self.answer(ended, &Ok(()));
            }
            Err(failure) => {
                let failed = self.queue.take(|job| batch.contains(&job.id));
                tracing::error!(error = failure.message, requests = failed.len(), "a step failed");
                self.fail(failed, &failure);
            }
        }
        *lock(&self.shared.busy_since) = None;
        self.note_work();
    }

    fn fail(&mut self, jobs: Vec<Job>, failure: &Failure) {
        self.stats.failed += jobs.len() as u64;
        self.answer(jobs, &Err(failure.clone()));
    }

    /// Tells clients, who may then look at the figures.
    fn answer(&self, jobs: Vec<Job>, result: &Result<(), Failure>) {
        jobs.iter().for_each(|job| self.shared.waiting.leave(job.client.as_ref()));
        *lock(&self.shared.stats) = self.stats;
        let now = Instant::now();
        jobs.into_iter().for_each(|job| job.end(result.clone(), now));
    }

    /// Starts the watchdog's clock if there is work and it doesn't run yet, and stops it if there is none.
    fn note_work(&self) {
        let mut busy_since = lock(&self.shared.busy_since);
        *busy_since = if self.queue.is_empty() { None } else { busy_since.or_else(|| Some(Instant::now())) };
    }

    /// Shows the figures to the handles.
    fn publish(&self) {
        self.note_work();
        *lock(&self.shared.stats) = self.stats;
        if self.queue.is_empty()
            && let Ok(memory) = self.runner.memory()
        {
            *lock(&self.shared.memory) = memory;
        }
    }
}
