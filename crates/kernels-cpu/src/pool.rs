//! Fork-join threads for kernels: one caller, a few workers, a microsecond to start when warm.
//!
//! A decode step is a few hundred kernels of a few microseconds each, so starting one must cost about as much as a
//! cache miss or two. Workers therefore watch one atomic word for a short while after each job (first spinning,
//! then yielding to other threads, about a hundred microseconds in all) and park after that: an idle pool costs
//! nothing. A job's end waits only for workers that have *joined* it; one that the system has not yet
//! scheduled is not waited for, which matters where cores are shared with other processes.

use std::{
    any::Any,
    cell::{Cell, UnsafeCell},
    fmt,
    marker::PhantomData,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

use crate::isa::{Isa, IsaError};

/// How long a worker watches for the next job before it parks.
const LINGER: Duration = Duration::from_micros(80);
/// How many times it only spins (20 to 50 µs) before it starts to yield between looks. Long enough for the pause between two
/// kernels of a step: on a busy machine a thread that yields may not come back for milliseconds.
const SPINS: u32 = 1000;

// `Shared::state`: the job's number in the upper half, below it these flags and the count of joined workers.
const OPEN: u64 = 1 << 31;
const CALLER_PARKED: u64 = 1 << 30;
const SHUTDOWN: u64 = 1 << 29;
const JOINED: u64 = SHUTDOWN - 1;
const EPOCH_SHIFT: u32 = 32;

/// A value on its own cache lines (two, since x86 prefetches lines in pairs), so that its writers disturb no other's readers.
#[repr(align(128))]
struct Padded<T>(T);

/// A job: what to call and how often. Written only while no worker is joined.
#[derive(Clone, Copy)]
struct Job {
    body: *const (dyn Fn(usize) + Sync),
    tasks: usize,
}

struct Shared {
    state: Padded<AtomicU64>,
    /// The next task nobody has claimed.
    next: Padded<AtomicUsize>,
    job: UnsafeCell<Job>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    parked_caller: Mutex<Option<Thread>>,
    /// For each worker: is it parked, or about to?
    asleep: Box<[Padded<AtomicBool>]>,
}

// SAFETY: `job` is written by the caller only while the state is closed and no worker is joined, and read by workers
// only between joining (an acquire on the state that published it) and leaving. The body it points to is `Sync`.
// All else is atomics and mutexes.
unsafe impl Sync for Shared {}
// SAFETY: as above; the raw pointer inside is only followed while the caller's borrow lives.
unsafe impl Send for Shared {}

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
    batch_invariant: bool,
}

struct Worker {
    handle: Option<JoinHandle<()>>,
    thread: Thread,
}

thread_local! {
    /// Whether this thread is inside a task, of any pool.
    static IN_TASK: Cell<bool> = const { Cell::new(false) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A pool of `threads` threads, the caller included, on the best instruction set of this processor.
    /// 0 means one for each physical core that this process may use.
    ///
    /// If the system refuses to start a thread the pool has fewer; see [`Pool::threads`].
    pub fn new(threads: usize) -> Self {
        Self::start(threads, Isa::detect())
    }

    /// As [`Pool::new`], with kernels of the instruction set `isa`.
    ///
    /// # Errors
    /// If this processor lacks `isa`.
    pub fn with_isa(threads: usize, isa: Isa) -> Result<Self, IsaError> {
        Ok(Self::start(threads, isa.require()?))
    }

    fn start(threads: usize, isa: Isa) -> Self {
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
                let shared = Arc::clone(&shared);
                let handle = thread::Builder::new()
                    .name(format!("vllm-cpu-{index}"))
                    .spawn(move || shared.work(index - 1))
                    .ok()?;
                let thread = handle.thread().clone();
                Some(Worker { handle: Some(handle), thread })
            })
            .collect();
        Self { shared, workers, turn: Mutex::new(()), isa, batch_invariant: false }
    }

    /// How many threads work on a job, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// The instruction set that kernels run with this pool use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// This pool, with the promise (or without it) that a row's result never depends on the rest of the batch.
    ///
    /// It costs large quantized batches, such as prompts, up to a third of their speed on processors with AVX-512 VNNI,
    /// and nothing elsewhere: see [`qmm`](crate::qmm).
    #[must_use]
    pub fn with_batch_invariance(mut self, invariant: bool) -> Self {
        self.batch_invariant = invariant;
        self
    }

    /// Whether [`Pool::with_batch_invariance`] was asked for.
    pub fn is_batch_invariant(&self) -> bool {
        self.batch_invariant
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

impl Shared {
    /// A worker's life.
    fn work(&self, worker: usize) {
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
    fn claim_tasks(&self, body: &(dyn Fn(usize) + Sync), tasks: usize) {
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
    fn finish(&self) {
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
        if state & CALLER_PARKED != 0 && state & JOINED == 1 {
            if let Some(caller) = &*lock(&self.parked_caller) {
                caller.unpark();
            }
        }
    }
}

/// A slice that the tasks of one [`Pool::run`] share, each writing its own part of it.
#[derive(Clone, Copy)]
pub struct SharedMut<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: it is a mutable borrow of `[T]` whose parts may go to other threads, which `T: Send` allows; that the parts
// do not overlap is what the caller of `slice` promises.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    /// Lends `items` to the tasks of a job.
    pub fn new(items: &'a mut [T]) -> Self {
        Self { start: items.as_mut_ptr(), len: items.len(), borrow: PhantomData }
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first item, for kernels that write scattered parts. Writing through it has [`SharedMut::slice`]'s condition.
    pub(crate) fn as_ptr(&self) -> *mut T {
        self.start
    }

    /// The items of `range`.
    ///
    /// # Panics
    /// If `range` is not within the slice.
    ///
    /// # Safety
    /// While the result is alive no other slice that overlaps `range` may be, on any thread.
    #[expect(
        clippy::mut_from_ref,
        reason = "handing out disjoint parts is the purpose; the caller promises disjointness"
    )]
    pub unsafe fn slice(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {} items", self.len);
        // SAFETY: within the borrowed slice, and disjoint from all other slices by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

/// How many physical cores this process may use: SMT siblings share the vector units, so a second thread on a core
/// only adds contention.
fn physical_cores() -> usize {
    let logical = thread::available_parallelism().map_or(1, usize::from);
    smt_width().map_or(logical, |width| logical.div_ceil(width)).max(1)
}

/// Hardware threads of a core, where the system tells.
fn smt_width() -> Option<usize> {
    let list = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list").ok()?;
    let count = |part: &str| match part.split_once('-') {
        Some((first, last)) => Some(last.trim().parse::<usize>().ok()? + 1 - first.trim().parse::<usize>().ok()?),
        None => Some(1),
    };
    list.trim().split(',').map(count).sum::<Option<usize>>().filter(|&width| width > 0)
}
