//! The time that ranks are together, and its end.

use std::{
    net::{Shutdown, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::wire;

/// Ends once, for all who share it: every socket is shut down then, so that nobody waits on one for ever.
#[derive(Debug, Clone, Default)]
pub struct Session(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Why it has ended.
    end: Option<String>,
    sockets: Vec<TcpStream>,
    /// The last step that failed on another rank, and why.
    failure: Option<(u64, String)>,
}

impl Session {
    /// Shuts this socket down, too, when the session ends.
    ///
    /// # Errors
    /// If the system has no handles left.
    pub fn watch(&self, socket: &TcpStream) -> Result<(), String> {
        let socket = socket.try_clone().map_err(|error| wire::io(&error))?;
        let mut state = self.state();
        if state.end.is_some() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        state.sockets.push(socket);
        Ok(())
    }

    /// Ends it; only the first reason counts.
    pub fn end(&self, why: impl Into<String>) {
        let mut state = self.state();
        if state.end.is_none() {
            state.end = Some(why.into());
            for socket in state.sockets.drain(..) {
                // It may be closed already.
                let _ = socket.shutdown(Shutdown::Both);
            }
            self.0.changed.notify_all();
        }
    }

    /// Why it has ended, if it has.
    pub fn ended(&self) -> Option<String> {
        self.state().end.clone()
    }

    /// Waits for its end, at most so long, and says why.
    pub fn wait(&self, patience: Duration) -> Option<String> {
        let until = Instant::now() + patience;
        let mut state = self.state();
        while state.end.is_none() {
            let left = until.checked_duration_since(Instant::now())?;
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.end.clone()
    }

    /// Notes that a step failed on another rank.
    pub fn step_failed(&self, number: u64, why: String) {
        self.state().failure = Some((number, why));
        self.0.changed.notify_all();
    }

    /// Why step `number` failed elsewhere, as soon as that is known.
    pub fn failure(&self, number: u64, patience: Duration) -> Option<String> {
        let until = Instant::now() + patience;
        let mut state = self.state();
        loop {
            match &state.failure {
                Some((failed, why)) if *failed == number => return Some(why.clone()),
                _ => {}
            }
            let left = until.checked_duration_since(Instant::now())?;
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
