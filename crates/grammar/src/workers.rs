//! The threads that work out masks while the model computes.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use crate::watch::Watch;

/// Something to be done by whichever thread is free.
pub(crate) trait Job: Send + Sync + 'static {
    fn run(&self);
}

/// A few threads, started when there is something to do, which end with their owner.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    jobs: OnceLock<Option<Sender<Weak<dyn Job>>>>,
    /// Stops what takes too long.
    pub watch: Watch,
}

impl Workers {
    /// Does `job` soon; false if there is no thread to do it. A job that is dropped meanwhile is not done.
    pub fn submit(&self, job: Weak<dyn Job>) -> bool {
        self.jobs.get_or_init(start).as_ref().is_some_and(|jobs| jobs.send(job).is_ok())
    }
}

/// A mask takes a fraction of what the model takes for a token, so a few threads serve many requests; the model wants
/// the other cores.
fn start() -> Option<Sender<Weak<dyn Job>>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (sender, receiver) = channel();
    let receiver = Arc::new(Mutex::new(receiver));
    let mut started = 0;
    for _ in 0..(cores / 4).clamp(1, 4) {
        let receiver = Arc::clone(&receiver);
        let thread = std::thread::Builder::new().name("grammar-mask".to_owned());
        match thread.spawn(move || work(&receiver)) {
            Ok(_) => started += 1,
            Err(error) => tracing::warn!(%error, "no thread for the masks of grammars"),
        }
    }
    (started > 0).then_some(sender)
}

fn work(jobs: &Mutex<Receiver<Weak<dyn Job>>>) {
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(job) => drop(job.upgrade().map(|job| job.run())),
            Err(_) => return,
        }
    }
}
