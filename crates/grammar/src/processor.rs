//! A grammar at work on one answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use vllm_platform::TokenId;
use vllm_platform::sampling::LogitsProcessor;

use crate::limits;
use crate::mask::Mask;
use crate::tracker::{Task, Tracker};
use crate::workers::{Job, Workers};

/// Forbids whatever would leave the grammar.
///
/// Where the grammar is complete, only the tokens that end an answer are left; the same where nothing the model can
/// write fits (a limit of the parser was hit, or the tokenizer lacks a character): the answer ends there, and a warning
/// is logged. With [`Reasoning`](crate::Reasoning), nothing is forbidden in the chain of thought.
///
/// The mask of the next token is worked out on other threads as soon as a token is
/// [sampled](LogitsProcessor::sampled). What is kept between calls is a cache by the answer so far: with any other
/// answer than the expected one, everything is worked out anew. One processor serves one answer; two that take turns
/// get what they should, slowly.
#[derive(Debug)]
pub struct GrammarProcessor {
    session: Arc<Session>,
    workers: Arc<Workers>,
}

impl GrammarProcessor {
    pub(crate) fn new(task: Task, workers: Arc<Workers>) -> Self {
        let task = Arc::new(task);
        let mut tracker = Tracker::new(Arc::clone(&task));
        let mask = Some(Arc::new(tracker.mask()));
        let progress = Progress { wanted: Vec::new(), mask, place: TrackerPlace::Here(tracker) };
        let session =
            Session { task, workers: Arc::clone(&workers), progress: Mutex::new(progress), ready: Condvar::new() };
        Self { session: Arc::new(session), workers }
    }
}

impl LogitsProcessor for GrammarProcessor {
    fn process(&self, _prompt: &[TokenId], output: &[TokenId], logits: &mut [f32]) {
        self.session.mask(output).apply(logits);
    }

    fn sampled(&self, _prompt: &[TokenId], output: &[TokenId]) {
        if self.session.want(output) {
            let session = Arc::downgrade(&self.session);
            let job: Weak<dyn Job> = session;
            self.workers.submit(job);
        }
    }
}

/// What the engine's thread and the workers share.
struct Session {
    task: Arc<Task>,
    workers: Arc<Workers>,
    progress: Mutex<Progress>,
    ready: Condvar,
}

struct Progress {
    /// The answer whose mask is wanted.
    wanted: Vec<TokenId>,
    /// That mask, once it is there.
    mask: Option<Arc<Mask>>,
    place: TrackerPlace,
}

enum TrackerPlace {
    /// To be had.
    Here(Tracker),
    /// Somebody works with it, and will bring it back.
    Away,
    /// It was lost in a panic.
    Lost,
}

impl Session {
    /// Notes that the mask of `output` will be asked for; whether it has to be worked out.
    fn want(&self, output: &[TokenId]) -> bool {
        let mut progress = self.lock();
        progress.want(output);
        progress.mask.is_none() && !matches!(progress.place, TrackerPlace::Away)
    }

    /// The mask of `output`, worked out here if nobody has.
    fn mask(&self, output: &[TokenId]) -> Arc<Mask> {
        let mut progress = self.lock();
        loop {
            progress.want(output);
            if let Some(mask) = &progress.mask {
                return Arc::clone(mask);
            }
            progress = match progress.take() {
                Some(tracker) => self.advance(progress, tracker),
                None => self.ready.wait(progress).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Works out the mask that is wanted, without the lock, and takes it again.
    fn advance<'a>(&'a self, progress: MutexGuard<'a, Progress>, tracker: Option<Tracker>) -> MutexGuard<'a, Progress> {
        let wanted = progress.wanted.clone();
        drop(progress);
        let worked_out = catch_unwind(AssertUnwindSafe(|| {
            let mut tracker = match tracker {
                Some(tracker) if wanted.starts_with(tracker.seen()) => tracker,
                _ => Tracker::new(Arc::clone(&self.task)),
            };
            // Watched as a whole, with what it begins again from.
            let _watching = tracker.handle().map(|handle| self.workers.watch.stop_after(limits::MASK, handle));
            for &token in wanted.iter().skip(tracker.seen().len()) {
                tracker.push(token);
            }
            let mask = tracker.mask();
            (tracker, mask)
        }));
        let mut progress = self.lock();
        let mask = match worked_out {
            Ok((tracker, mask)) => {
                progress.place = TrackerPlace::Here(tracker);
                mask
            }
            Err(_) => {
                tracing::error!("following a grammar failed: its answer ends here");
                progress.place = TrackerPlace::Lost;
                Mask::of(&self.task.stop)
            }
        };
        if progress.wanted == wanted {
            progress.mask = Some(Arc::new(mask));
        }
        self.ready.notify_all();
        progress
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    fn want(&mut self, output: &[TokenId]) {
        if self.wanted == output {
            return;
        }
        self.mask = None;
        match output.strip_prefix(self.wanted.as_slice()) {
            Some(more) => self.wanted.extend_from_slice(more),
            None => self.wanted = output.to_vec(),
        }
    }

    /// The tracker, `Some(None)` if there is none and one must be made, `None` if somebody has it.
    fn take(&mut self) -> Option<Option<Tracker>> {
        match std::mem::replace(&mut self.place, TrackerPlace::Away) {
            TrackerPlace::Here(tracker) => Some(Some(tracker)),
            TrackerPlace::Lost => Some(None),
            TrackerPlace::Away => None,
        }
    }
}

impl Job for Session {
    fn run(&self) {
        let mut progress = self.lock();
        while progress.mask.is_none()
            && let Some(tracker) = progress.take()
        {
            progress = self.advance(progress, tracker);
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("stop", &self.task.stop).finish_non_exhaustive()
    }
}
