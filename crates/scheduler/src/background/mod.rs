//! What engines in the background have in common: requests go in, events stream out, and figures are kept.
//!
//! A [`Door`] is what handles see, a [`Room`] what the engine's thread does, a [`Caller`] the way back to whoever submitted a
//! request.

mod door;
mod room;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, atomic::AtomicBool, mpsc::channel},
    thread,
    time::Instant,
};

use tokio::sync::{mpsc, watch};
use vllm_platform::MemoryInfo;

pub(crate) use self::{door::Door, room::Room};
use crate::{
    EngineState, Failure, FailureKind, StartError, WorkStats, engine::panic_text, stream::Answer, waiting::Waiting,
};

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
