//! The inside of an engine.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::SeqCst, mpsc::Receiver},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use vllm_platform::Error;

use super::{Caller, Command, Service, Shared, stopped};
use crate::{EngineState, Failure, FailureKind, WorkStats, engine::panic_text, handle::lock, stream::Answer, turn};

/// So many calls of a model that panic in a row are the end of its engine.
const MAX_PANICS: u32 = 3;

/// So old may what handles see of the device's memory become while there is work.
const MEMORY_AGE: Duration = Duration::from_secs(1);

/// The inside of an engine.
pub(crate) struct Room<S: Service> {
    pub(super) commands: Receiver<Command<S>>,
    pub(super) shared: Arc<Shared<S>>,
    pub(super) state: watch::Sender<EngineState>,
    pub(super) panics_in_a_row: u32,
    pub(super) memory_noted: Instant,
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

    pub(super) fn note_memory(&mut self, service: &S) {
        self.memory_noted = Instant::now();
        if let Ok(memory) = service.memory() {
            *lock(&self.shared.memory) = memory;
        }
    }

    /// Works until there is nothing more to do.
    pub(super) fn run(mut self, mut service: S) {
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
