//! What engines in the background have in common: requests go in, events stream out, and figures are kept.
//!
//! A [`Door`] is what handles see, a [`Room`] what the engine's thread does, a [`Caller`] the way back to whoever submitted a
//! request.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, watch};
use vllm_platform::{Error, MemoryInfo};

use crate::{
    AnswerStream, EngineState, Failure, FailureKind, StartError, SubmitError, WorkStats, engine::panic_text,
    handle::lock, stream::Answer, turn, waiting::Waiting,
};

/// So many calls of a model that panic in a row are the end of its engine.
const MAX_PANICS: u32 = 3;

/// So old may what handles see of the device's memory become while there is work.
const MEMORY_AGE: Duration = Duration::from_secs(1);

/// What goes in and out of an engine.
pub(crate) trait Service: Sized + 'static {
    /// What is asked for.
    type Request: Send;
    /// What is told on the way to the answer.
    type Event: Send;
    /// The model in numbers.
    type Info: Send + Sync;
    /// Figures since the start.
    type Stats: Clone + Send;

    /// Takes a request in.
    fn admit(&mut self, request: Self::Request, caller: Caller<Self::Event>);

    /// Whether there is no request.
    fn is_idle(&self) -> bool;

    /// Takes out the requests whose callers `which` accepts, and gives back what the model keeps for them.
    fn remove(&mut self, which: &dyn Fn(&Caller<Self::Event>) -> bool) -> Vec<Caller<Self::Event>>;

    /// Does the next piece of work: a call of the model or two.
    fn turn(&mut self, room: &mut Room<Self>);

    /// Memory of the model's device.
    fn memory(&self) -> vllm_platform::Result<MemoryInfo>;

    /// What all engines in the background have among their figures.
    fn work(stats: &mut Self::Stats) -> &mut WorkStats;
}

enum Command<S: Service> {
    Submit(S::Request, Caller<S::Event>),
    Drain,
    Shutdown,
}

struct Shared<S: Service> {
    info: S::Info,
    waiting: Waiting,
    draining: AtomicBool,
    stats: Mutex<S::Stats>,
    memory: Mutex<MemoryInfo>,
    /// Since when there is work and no piece of it has ended; `None` while there is no work.
    busy_since: Mutex<Option<Instant>>,
}

/// The outside of an engine. Cheap to clone; the engine ends when it was told to or the last clone is gone.
pub(crate) struct Door<S: Service> {
    commands: Sender<Command<S>>,
    shared: Arc<Shared<S>>,
    state: watch::Receiver<EngineState>,
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

/// Whoever submitted a request.
#[derive(Debug)]
pub(crate) struct Caller<E> {
    /// Whose request it is.
    pub client: Option<Arc<str>>,
    events: mpsc::UnboundedSender<Answer<E>>,
    pub submitted: Instant,
    deadline: Option<Instant>,
    /// When work on it began; set by [`Room::begin`].
    pub started: Option<Instant>,
}

impl<E> Caller<E> {
    /// Tells an event. A caller that has gone away wants none: that is no error.
    pub fn tell(&self, event: E) {
        let _ = self.events.send(Answer::Event(event));
    }

    #[cfg(test)]
    pub fn nobody(client: Option<&str>) -> Self {
        let (events, _) = mpsc::unbounded_channel();
        Self { client: client.map(Into::into), events, submitted: Instant::now(), deadline: None, started: None }
    }
}

/// The inside of an engine.
pub(crate) struct Room<S: Service> {
    commands: Receiver<Command<S>>,
    shared: Arc<Shared<S>>,
    state: watch::Sender<EngineState>,
    panics_in_a_row: u32,
    memory_noted: Instant,
}

impl<S: Service> Room<S> {
    /// Changes the figures.
    pub fn count(&self, change: impl FnOnce(&mut S::Stats)) {
        change(&mut lock(&self.shared.stats));
    }

    /// Work on a request begins, if it has not.
    pub fn begin(&self, caller: &mut Caller<S::Event>, now: Instant) {
        if caller.started.is_none() {
            caller.started = Some(now);
            self.count(|stats| S::work(stats).running += 1);
        }
    }

    /// Tells a caller its last event, if there is one, and that there is no more.
    pub fn finish(&self, caller: Caller<S::Event>, last: Option<S::Event>) {
        self.leave(&caller, |work| work.finished += 1);
        last.into_iter().for_each(|event| caller.tell(event));
        let _ = caller.events.send(Answer::End);
    }

    /// Tells a caller that its request has failed.
    pub fn fail(&self, caller: Caller<S::Event>, failure: Failure) {
        self.leave(&caller, |work| work.failed += 1);
        let _ = caller.events.send(Answer::Failed(failure));
    }

    /// A request is there no more. Callers may look at the figures as soon as they are told.
    fn leave(&self, caller: &Caller<S::Event>, change: impl FnOnce(&mut WorkStats)) {
        self.count(|stats| {
            let work = S::work(stats);
            work.running -= usize::from(caller.started.is_some());
            change(work);
        });
        self.shared.waiting.leave(caller.client.as_ref());
    }

    /// Calls a model in a slice of the device's time, and makes a [`Failure`] of its errors and panics. What the model is
    /// given to pause ends the slice and begins another.
    pub fn call<T>(&mut self, call: impl FnOnce(&mut dyn FnMut()) -> vllm_platform::Result<T>) -> Result<T, Failure> {
        let mut slice = turn::DEVICE.slice();
        let start = Instant::now();
        let busy_since = &self.shared.busy_since;
        *lock(busy_since) = Some(start);
        let mut pause = || {
            // Whoever waits for others is not stuck.
            *lock(busy_since) = None;
            slice.pause();
            *lock(busy_since) = Some(Instant::now());
        };
        let result = catch_unwind(AssertUnwindSafe(|| call(&mut pause)));
        drop(slice);
        let end = Instant::now();
        *lock(busy_since) = Some(end);
        self.count(|stats| {
            let work = S::work(stats);
            work.busy += end - start;
            work.last_call = Some(end);
        });
        let failure = |kind, message| Failure { kind, message };
        let failed = match result {
            Ok(result) => {
                self.panics_in_a_row = 0;
                match result {
                    Ok(value) => return Ok(value),
                    Err(error @ Error::OutOfMemory(_)) => failure(FailureKind::OutOfMemory, error.to_string()),
                    Err(error) => failure(FailureKind::Step, error.to_string()),
                }
            }
            Err(panic) => {
                self.panics_in_a_row += 1;
                failure(FailureKind::Step, format!("the model panicked: {}", panic_text(&*panic)))
            }
        };
        tracing::error!(error = failed.message, "a model that hears or speaks failed");
        Err(failed)
    }

    /// Takes what has been commanded, waiting for it if there is nothing to do; false: time to stop.
    fn take_commands(&self, service: &mut S) -> bool {
        loop {
            let idle = service.is_idle();
            if idle && *self.state.borrow() == EngineState::Draining {
                return false;
            }
            self.note_work(!idle);
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
            if !self.obey(command, service) {
                return false;
            }
        }
    }

    /// Does what a handle asks for; false: time to stop.
    fn obey(&self, command: Command<S>, service: &mut S) -> bool {
        match command {
            Command::Submit(request, caller) => service.admit(request, caller),
            Command::Drain => drop(self.state.send_replace(EngineState::Draining)),
            Command::Shutdown => return false,
        }
        true
    }

    /// Forgets requests whose streams were dropped or whose time is up.
    fn drop_gone(&self, service: &mut S) {
        for caller in service.remove(&|caller| caller.events.is_closed()) {
            self.leave(&caller, |work| work.cancelled += 1);
        }
        let now = Instant::now();
        for caller in service.remove(&|caller| caller.deadline.is_some_and(|deadline| now >= deadline)) {
            self.fail(caller, Failure { kind: FailureKind::Timeout, message: "the request's time is up".into() });
        }
    }

    /// Runs the watchdog's clock while there is work.
    fn note_work(&self, work: bool) {
        let mut busy_since = lock(&self.shared.busy_since);
        *busy_since = if work { busy_since.or_else(|| Some(Instant::now())) } else { None };
    }

    fn note_memory(&mut self, service: &S) {
        self.memory_noted = Instant::now();
        if let Ok(memory) = service.memory() {
            *lock(&self.shared.memory) = memory;
        }
    }

    fn run(mut self, mut service: S) {
        let end = loop {
            if !self.take_commands(&mut service) {
                break EngineState::Stopped;
            }
            self.drop_gone(&mut service);
            if !service.is_idle() {
                service.turn(&mut self);
            }
            if service.is_idle() || self.memory_noted.elapsed() > MEMORY_AGE {
                self.note_memory(&service);
            }
            if self.panics_in_a_row >= MAX_PANICS {
                break EngineState::Broken;
            }
        };
        self.shared.draining.store(true, SeqCst);
        // What was submitted and not seen yet ends like everything else.
        while let Ok(command) = self.commands.try_recv() {
            self.obey(command, &mut service);
        }
        service.remove(&|_| true).into_iter().for_each(|caller| self.fail(caller, stopped()));
        self.note_work(false);
        // The model's memory is given back before anybody is told that the engine has stopped.
        let Self { state, commands, .. } = self;
        drop((service, commands));
        state.send_replace(end);
    }
}

/// Bounds of the requests that may be there at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub max_waiting: usize,
    pub max_waiting_per_client: usize,
}

/// Makes a service on a new thread and returns when it is ready. `stats` are its figures at first.
pub(crate) fn start<S, F>(name: &str, bounds: Bounds, make: F) -> Result<Door<S>, StartError>
where
    S: Service,
    S::Stats: Default,
    F: FnOnce() -> Result<(S, S::Info), StartError> + Send + 'static,
{
    let (ready, is_ready) = channel();
    let spawned = thread::Builder::new().name(name.into()).spawn(move || {
        let made = catch_unwind(AssertUnwindSafe(make))
            .map_err(|panic| StartError::Panicked(panic_text(&*panic)))
            .and_then(|made| made);
        match made {
            Ok((service, info)) => {
                let (sender, commands) = channel();
                let shared = Arc::new(Shared {
                    info,
                    waiting: Waiting::new(bounds.max_waiting, bounds.max_waiting_per_client),
                    draining: AtomicBool::new(false),
                    stats: Mutex::default(),
                    memory: Mutex::default(),
                    busy_since: Mutex::default(),
                });
                let (state, state_receiver) = watch::channel(EngineState::Running);
                let door = Door { commands: sender, shared: Arc::clone(&shared), state: state_receiver };
                let mut room = Room { commands, shared, state, panics_in_a_row: 0, memory_noted: Instant::now() };
                room.note_memory(&service);
                if ready.send(Ok(door)).is_ok() {
                    room.run(service);
                }
            }
            // Whoever asked is there until it has an answer.
            Err(error) => drop(ready.send(Err(error))),
        }
    });
    spawned.map_err(|error| StartError::Thread(error.to_string()))?;
    is_ready.recv().unwrap_or_else(|_| Err(StartError::Panicked("the thread is gone".into())))
}

pub(crate) fn stopped() -> Failure {
    Failure { kind: FailureKind::Stopped, message: "the engine has stopped".into() }
}

/// Whether none of a configuration's figures is 0.
pub(crate) fn check_figures(figures: &[(&'static str, usize)]) -> Result<(), StartError> {
    match figures.iter().find(|(_, value)| *value == 0) {
        Some(&(field, value)) => Err(StartError::Config { field, value, allowed: "at least 1".into() }),
        None => Ok(()),
    }
}
