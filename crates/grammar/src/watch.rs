//! An end to what takes too long.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use llguidance::CancellationHandle;

/// How late an overdue parser may be stopped.
const TICK: Duration = Duration::from_millis(20);

/// Stops parsers that are overdue: the limits of llguidance count steps, and some steps take thousands of times as
/// long as others. One thread, asleep while there is nothing to watch.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    watched: Mutex<Watched>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Watched {
    next: u64,
    parsers: Vec<(u64, Instant, CancellationHandle)>,
    started: bool,
    over: bool,
}

/// As long as this lives, its parser is watched.
#[derive(Debug)]
pub(crate) struct Watching<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Watch {
    /// Stops this parser if it is still at it after `limit`.
    pub fn stop_after(&self, limit: Duration, parser: CancellationHandle) -> Watching<'_> {
        let mut watched = self.shared.lock();
        if !watched.started {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name("grammar-watch".to_owned()).spawn(move || shared.watch());
            watched.started = thread.is_ok();
        }
        let id = watched.next;
        watched.next += 1;
        watched.parsers.push((id, Instant::now() + limit, parser));
        if watched.parsers.len() == 1 {
            self.shared.more.notify_one();
        }
        Watching { shared: &self.shared, id }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.more.notify_one();
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.shared.lock().parsers.retain(|(id, ..)| *id != self.id);
    }
}

impl Shared {
    fn watch(&self) {
        let mut watched = self.lock();
        while !watched.over {
            let now = Instant::now();
            for (_, _, parser) in watched.parsers.iter().filter(|(_, end, _)| *end <= now) {
                parser.cancel();
            }
            watched = if watched.parsers.is_empty() {
                self.more.wait(watched).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.more.wait_timeout(watched, TICK).unwrap_or_else(PoisonError::into_inner).0
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
