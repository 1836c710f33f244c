//! Fork-join threads for kernels: one caller, a few workers, a microsecond to start when warm.
//!
//! A decode step is a few hundred kernels of a few microseconds each, so starting one must cost about as much as a
//! cache miss or two. Workers therefore watch one atomic word for a short while after each job (first spinning,
//! then yielding to other threads, about a hundred microseconds in all) and park after that: an idle pool costs
//! nothing. A job's end waits only for workers that have *joined* it; one that the system has not yet
//! scheduled is not waited for, which matters where cores are shared with other processes.

mod cores;
mod job;
mod shared_mut;

use std::{
    cell::UnsafeCell,
    fmt,
    panic::resume_unwind,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle, Thread},
};

use crate::{
    isa::{Isa, IsaError},
    qmm::Activations,
};

use core_affinity::CoreId;

pub use cores::PinError;
use cores::{physical_cores, places};
use job::{EPOCH_SHIFT, IN_TASK, Job, OPEN, Padded, SHUTDOWN, Shared, lock};

pub use shared_mut::SharedMut;

/// Threads that run kernels, and the instruction set the kernels use.
///
/// The caller of [`Pool::run`] works along, so `Pool::new(2)` starts one more thread. Dropping the pool joins them.
///
/// ```
/// use vllm_kernels_cpu::Pool;
/// let pool = Pool::new(2);
/// let mut squares = vec![0usize; 100];
/// pool.run_chunks(&mut squares, 16, |first, chunk| {
///     for (i, square) in chunk.iter_mut().enumerate() {
///         *square = (first + i) * (first + i);
///     }
/// });
/// assert_eq!(squares[99], 9801);
/// ```
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    /// Held for the length of a job: a pool runs one at a time.
    turn: Mutex<()>,
    isa: Isa,
    activations: Activations,
}

struct Worker {
    handle: Option<JoinHandle<()>>,
    thread: Thread,
}

impl Pool {
    /// A pool of `threads` threads, the caller included, on the best instruction set of this processor.
    /// 0 means one for each physical core that this process may use.
    ///
    /// If the system refuses to start a thread the pool has fewer; see [`Pool::threads`].
    pub fn new(threads: usize) -> Self {
        Self::start(threads, Isa::detect(), &[])
    }

    /// As [`Pool::new`], with each thread bound to a physical core of its own: the caller, who ought to be the one that runs jobs, too.
    ///
    /// # Errors
    /// If the system cannot do that, or this process may use fewer cores.
    pub fn pinned(threads: usize) -> Result<Self, PinError> {
        let threads = if threads == 0 { physical_cores() } else { threads };
        let places = places(threads)?;
        if !core_affinity::set_for_current(places[0]) {
            return Err(PinError::Unsupported);
        }
        Ok(Self::start(threads, Isa::detect(), &places))
    }

    /// As [`Pool::new`], with kernels of the instruction set `isa`.
    ///
    /// # Errors
    /// If this processor lacks `isa`.
    pub fn with_isa(threads: usize, isa: Isa) -> Result<Self, IsaError> {
        Ok(Self::start(threads, isa.require()?, &[]))
    }

    /// The same pool, whose matmuls with packed weights take activations as `activations` says.
    #[must_use]
    pub fn with_activations(mut self, activations: Activations) -> Self {
        self.activations = activations;
        self
    }

    /// Thread `i` at `places[i]`, or anywhere if there is none.
    fn start(threads: usize, isa: Isa, places: &[CoreId]) -> Self {
        fn nothing(_: usize) {}
        let threads = if threads == 0 { physical_cores() } else { threads };
        let shared = Arc::new(Shared {
            state: Padded(AtomicU64::new(0)),
            next: Padded(AtomicUsize::new(0)),
            job: UnsafeCell::new(Job { body: &nothing, tasks: 0 }),
            panic: Mutex::new(None),
            parked_caller: Mutex::new(None),
            asleep: (1..threads).map(|_| Padded(AtomicBool::new(false))).collect(),
        });
        let workers = (1..threads)
            .map_while(|index| {
                let (shared, place) = (Arc::clone(&shared), places.get(index).copied());
                let work = move || {
                    // The caller's own was taken: the system allows it.
                    place.map(core_affinity::set_for_current);
                    shared.work(index - 1);
                };
                let handle = thread::Builder::new().name(format!("vllm-cpu-{index}")).spawn(work).ok()?;
                let thread = handle.thread().clone();
                Some(Worker { handle: Some(handle), thread })
            })
            .collect();
        Self { shared, workers, turn: Mutex::new(()), isa, activations: Activations::default() }
    }

    /// How many threads work on a job, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// The instruction set that kernels run with this pool use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// What matmuls with packed weights run with this pool make of activations.
    pub fn activations(&self) -> Activations {
        self.activations
    }

    /// How many jobs the threads have shared so far (as a u32, which wraps): each costs a fork and a join. What the caller did alone
    /// does not count.
    pub fn jobs(&self) -> u32 {
        (self.shared.state.0.load(Ordering::Relaxed) >> EPOCH_SHIFT) as u32
    }

    /// Calls `body` once for each task number below `tasks`, in any order, on all threads, and returns when every
    /// call has. Threads claim tasks one at a time, so make them neither tiny (a claim costs some tens of
    /// nanoseconds) nor few (four to eight a thread even out a busy core).
    ///
    /// Inside a task, `run` of any pool calls its tasks one after the other on this thread. Calls from several
    /// threads take turns.
    ///
    /// # Panics
    /// If `body` panics: with the first payload, after every thread has left; tasks not begun by then are skipped.
    pub fn run(&self, tasks: usize, body: impl Fn(usize) + Sync) {
        if tasks <= 1 || self.workers.is_empty() || IN_TASK.get() {
            (0..tasks).for_each(body);
            return;
        }
        self.run_shared(tasks, &body);
    }

    fn run_shared(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        let turn = lock(&self.turn);
        let shared = &*self.shared;
        // SAFETY: only the lifetime is changed. The pointer is followed by joined workers only, and `finish` below
        // returns, on every path, after the last of them has left and no other can join.
        let body: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(body) };
        // SAFETY: we hold the turn, and the last job ended with no worker joined and the state closed.
        unsafe { *shared.job.get() = Job { body, tasks } };
        shared.next.0.store(0, Ordering::Relaxed);
        let epoch = (shared.state.0.load(Ordering::Relaxed) >> EPOCH_SHIFT).wrapping_add(1) & 0xffff_ffff;
        // Publishes the job. Sequentially consistent, as is the load of `asleep` that follows: a worker stores
        // `asleep` and then looks at the state once more, so that one of us sees the other.
        shared.state.0.store(epoch << EPOCH_SHIFT | OPEN, Ordering::SeqCst);
        for (worker, asleep) in self.workers.iter().zip(&shared.asleep).take(tasks - 1) {
            if asleep.0.load(Ordering::SeqCst) {
                worker.thread.unpark();
            }
        }
        shared.claim_tasks(body, tasks);
        shared.finish();
        let panic = lock(&shared.panic).take();
        drop(turn);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    /// Splits `items` into chunks of `chunk` (the last may be shorter) and calls `body` with each and the index of
    /// its first item, on all threads.
    ///
    /// # Panics
    /// If `chunk` is 0, or as [`Pool::run`] does.
    pub fn run_chunks<T: Send>(&self, items: &mut [T], chunk: usize, body: impl Fn(usize, &mut [T]) + Sync) {
        let len = items.len();
        let shared = SharedMut::new(items);
        self.run(len.div_ceil(chunk), |task| {
            let first = task * chunk;
            // SAFETY: each task number is run once, and the ranges of different tasks do not overlap.
            body(first, unsafe { shared.slice(first..len.min(first + chunk)) });
        });
    }
}

impl Default for Pool {
    /// One thread for each physical core that this process may use.
    fn default() -> Self {
        Self::new(0)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).field("isa", &self.isa).finish()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state.0.fetch_or(SHUTDOWN, Ordering::SeqCst);
        for worker in &mut self.workers {
            worker.thread.unpark();
            if let Some(handle) = worker.handle.take() {
                // A worker cannot panic: its tasks are caught.
                let _ = handle.join();
            }
        }
    }
}
