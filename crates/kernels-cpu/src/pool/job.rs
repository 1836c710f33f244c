//! One job at a time, and the protocol by which workers find, join and leave it.

use std::{
    any::Any,
    cell::{Cell, UnsafeCell},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// How long a worker watches for the next job before it parks.
const LINGER: Duration = Duration::from_micros(80);
/// How many times it only spins (20 to 50 µs) before it starts to yield between looks. Long enough for the pause between two
/// kernels of a step: on a busy machine a thread that yields may not come back for milliseconds.
const SPINS: u32 = 1000;

// `Shared::state`: the job's number in the upper half, below it these flags and the count of joined workers.
pub(super) const OPEN: u64 = 1 << 31;
const CALLER_PARKED: u64 = 1 << 30;
pub(super) const SHUTDOWN: u64 = 1 << 29;
const JOINED: u64 = SHUTDOWN - 1;
pub(super) const EPOCH_SHIFT: u32 = 32;

/// A value on its own cache lines (two, since x86 prefetches lines in pairs), so that its writers disturb no other's readers.
#[repr(align(128))]
pub(super) struct Padded<T>(pub(super) T);

/// A job: what to call and how often. Written only while no worker is joined.
#[derive(Clone, Copy)]
pub(super) struct Job {
    pub(super) body: *const (dyn Fn(usize) + Sync),
    pub(super) tasks: usize,
}

/// What the caller and the workers of a pool share.
pub(super) struct Shared {
    pub(super) state: Padded<AtomicU64>,
    /// The next task nobody has claimed.
    pub(super) next: Padded<AtomicUsize>,
    pub(super) job: UnsafeCell<Job>,
    pub(super) panic: Mutex<Option<Box<dyn Any + Send>>>,
    pub(super) parked_caller: Mutex<Option<Thread>>,
    /// For each worker: is it parked, or about to?
    pub(super) asleep: Box<[Padded<AtomicBool>]>,
}

// SAFETY: `job` is written by the caller only while the state is closed and no worker is joined, and read by workers
// only between joining (an acquire on the state that published it) and leaving. The body it points to is `Sync`.
// All else is atomics and mutexes.
unsafe impl Sync for Shared {}
// SAFETY: as above; the raw pointer inside is only followed while the caller's borrow lives.
unsafe impl Send for Shared {}

thread_local! {
    /// Whether this thread is inside a task, of any pool.
    pub(super) static IN_TASK: Cell<bool> = const { Cell::new(false) };
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// A worker's life.
    pub(super) fn work(&self, worker: usize) {
        let mut done = 0;
        while let Some(epoch) = self.wait_for_job(worker, done) {
            done = epoch;
            // SAFETY: joined, so the caller is inside `run_shared` and leaves the job as it is.
            let job = unsafe { *self.job.get() };
            // SAFETY: the caller keeps the body alive until every joined worker has left.
            self.claim_tasks(unsafe { &*job.body }, job.tasks);
            self.leave();
        }
    }

    /// Waits for a job other than number `done`, joins it and returns its number, or `None` at shutdown.
    fn wait_for_job(&self, worker: usize, done: u64) -> Option<u64> {
        let mut looks = 0;
        let mut since = None;
        loop {
            let state = self.state.0.load(Ordering::Acquire);
            if state & SHUTDOWN != 0 {
                return None;
            }
            let epoch = state >> EPOCH_SHIFT;
            if state & OPEN != 0 && epoch != done {
                let joined = self.state.0.compare_exchange_weak(state, state + 1, Ordering::Acquire, Ordering::Relaxed);
                if joined.is_ok() {
                    return Some(epoch);
                }
                continue;
            }
            looks += 1;
            if looks <= SPINS {
                std::hint::spin_loop();
            } else if since.get_or_insert_with(Instant::now).elapsed() < LINGER {
                thread::yield_now();
            } else {
                self.sleep(worker, done);
                (looks, since) = (0, None);
            }
        }
    }

    /// Parks until the caller wakes this worker, unless a job has come meanwhile.
    fn sleep(&self, worker: usize, done: u64) {
        let asleep = &self.asleep[worker].0;
        asleep.store(true, Ordering::SeqCst);
        loop {
            let state = self.state.0.load(Ordering::SeqCst);
            if state & SHUTDOWN != 0 || (state & OPEN != 0 && state >> EPOCH_SHIFT != done) {
                break;
            }
            thread::park();
            // Woken for a job that others have finished already: watch for the next, which is likely near.
            if self.state.0.load(Ordering::SeqCst) >> EPOCH_SHIFT != done {
                break;
            }
        }
        asleep.store(false, Ordering::SeqCst);
    }

    /// Runs tasks until none is left unclaimed. A panic is kept for the caller, and ends the claiming of all.
    pub(super) fn claim_tasks(&self, body: &(dyn Fn(usize) + Sync), tasks: usize) {
        let was_inside = IN_TASK.replace(true);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let task = self.next.0.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    break;
                }
                body(task);
            }
        }));
        IN_TASK.set(was_inside);
        if let Err(payload) = outcome {
            self.next.0.store(tasks, Ordering::Relaxed);
            lock(&self.panic).get_or_insert(payload);
        }
    }

    /// Closes the job and waits for the workers that joined it.
    pub(super) fn finish(&self) {
        let mut state = self.state.0.fetch_and(!OPEN, Ordering::AcqRel);
        let mut looks = 0;
        let mut since = None;
        while state & JOINED != 0 {
            looks += 1;
            if looks <= SPINS {
                std::hint::spin_loop();
            } else if since.get_or_insert_with(Instant::now).elapsed() < LINGER {
                thread::yield_now();
            } else {
                self.park_caller();
                break;
            }
            state = self.state.0.load(Ordering::Acquire);
        }
    }

    /// The slow end of [`Shared::finish`]: a joined worker lost its core for long.
    fn park_caller(&self) {
        *lock(&self.parked_caller) = Some(thread::current());
        self.state.0.fetch_or(CALLER_PARKED, Ordering::AcqRel);
        while self.state.0.load(Ordering::Acquire) & JOINED != 0 {
            thread::park();
        }
        self.state.0.fetch_and(!CALLER_PARKED, Ordering::AcqRel);
        *lock(&self.parked_caller) = None;
    }

    /// Leaves the job that this worker joined. The job and its body may be gone right after.
    fn leave(&self) {
        let state = self.state.0.fetch_sub(1, Ordering::AcqRel);
        if state & CALLER_PARKED != 0
            && state & JOINED == 1
            && let Some(caller) = &*lock(&self.parked_caller)
        {
            caller.unpark();
        }
    }
}
