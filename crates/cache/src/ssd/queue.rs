//! Between the engine's thread and the two of the tier: what is to be done, and what was.
//!
//! The lock is held for moments only, never during IO.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::entry::{SsdEntry, SsdEvent, SsdStats};
use crate::BlockHash;

/// Uses that wait to be written down; more are forgotten, which makes the order of eviction a little less exact.
const MAX_ORDERS: usize = 1 << 16;

/// A block to be written.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) entry: SsdEntry,
    pub(super) groups: Vec<Option<Vec<u8>>>,
    /// Bytes of all groups.
    bytes: usize,
}

impl Block {
    pub(super) fn new(entry: SsdEntry, groups: Vec<Option<Vec<u8>>>) -> Self {
        let bytes = groups.iter().flatten().map(Vec::len).sum();
        Self { entry, groups, bytes }
    }
}

/// What the writer does before it writes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// The block was used.
    Touch(BlockHash),
    /// The block could not be read.
    Lost { hash: BlockHash, why: Why },
    /// Everything goes.
    Clear,
}

/// Why a block could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// There is no such file.
    Absent,
    /// It is not what was written.
    Corrupt,
    /// The system refused.
    Error,
}

/// What the writer does next.
#[derive(Debug)]
pub(super) enum Job {
    Orders(VecDeque<Order>),
    Write(Arc<Block>),
    Scan,
    Stop,
}

pub(super) struct Queue {
    state: Mutex<State>,
    to_writer: Condvar,
    to_reader: Condvar,
    wake: Box<dyn Fn() + Send + Sync>,
    /// Bound of `write_bytes` and of `loaded_bytes`.
    max_bytes: usize,
}

#[derive(Default)]
struct State {
    events: VecDeque<SsdEvent>,
    /// Bytes of the blocks among the events.
    loaded_bytes: usize,
    orders: VecDeque<Order>,
    writes: VecDeque<Arc<Block>>,
    writing: Option<Arc<Block>>,
    /// Bytes of both.
    write_bytes: usize,
    reads: VecDeque<BlockHash>,
    /// Set: stop; write no more after this moment.
    stop: Option<Instant>,
    stats: SsdStats,
}

impl Queue {
    pub(super) fn new(queue_bytes: usize, max_stored: u64, wake: Box<dyn Fn() + Send + Sync>) -> Self {
        let stats = SsdStats { max_bytes: max_stored, ..SsdStats::default() };
        Self {
            state: Mutex::new(State { stats, ..State::default() }),
            to_writer: Condvar::new(),
            to_reader: Condvar::new(),
            wake,
            max_bytes: queue_bytes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is whole before anything that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // The engine's side.

    pub(super) fn push_write(&self, block: Block) -> bool {
        let mut state = self.lock();
        if block.bytes > self.max_bytes.saturating_sub(state.write_bytes) {
            state.stats.dropped += 1;
            return false;
        }
        state.write_bytes += block.bytes;
        state.writes.push_back(Arc::new(block));
        self.to_writer.notify_one();
        true
    }

    pub(super) fn push_read(&self, hash: BlockHash) {
        let mut state = self.lock();
        if !state.reads.contains(&hash) {
            state.reads.push_back(hash);
            self.to_reader.notify_one();
        }
    }

    pub(super) fn touch(&self, hash: BlockHash) {
        let mut state = self.lock();
        if state.orders.len() < MAX_ORDERS {
            state.orders.push_back(Order::Touch(hash));
            self.to_writer.notify_one();
        }
    }

    pub(super) fn poll(&self) -> Option<SsdEvent> {
        let mut state = self.lock();
        let event = state.events.pop_front()?;
        if let SsdEvent::Loaded { groups, .. } = &event {
            state.loaded_bytes -= bytes_of(groups);
            self.to_reader.notify_one();
        }
        Some(event)
    }

    pub(super) fn clear(&self) {
        let mut state = self.lock();
        let dropped = mem::take(&mut state.writes);
        state.write_bytes -= dropped.iter().map(|block| block.bytes).sum::<usize>();
        state.events.extend(dropped.iter().map(|block| SsdEvent::Gone(block.entry.hash)));
        state.orders.push_back(Order::Clear);
        self.to_writer.notify_one();
        drop(state);
        if !dropped.is_empty() {
            (self.wake)();
        }
    }

    pub(super) fn stats(&self) -> SsdStats {
        self.lock().stats
    }

    pub(super) fn stop(&self, deadline: Instant) {
        self.lock().stop = Some(deadline);
        self.to_writer.notify_one();
        self.to_reader.notify_one();
    }

    // The threads' side.

    /// Waits for the writer's next job; `scanning`: there is always one.
    pub(super) fn next_job(&self, scanning: bool) -> Job {
        let mut state = self.lock();
        loop {
            if !state.orders.is_empty() {
                return Job::Orders(mem::take(&mut state.orders));
            }
            if state.stop.is_some_and(|deadline| state.writes.is_empty() || Instant::now() >= deadline) {
                return Job::Stop;
            }
            if let Some(block) = state.writes.pop_front() {
                state.writing = Some(Arc::clone(&block));
                return Job::Write(block);
            }
            if scanning {
                return Job::Scan;
            }
            state = self.to_writer.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The block given by [`next_job`](Self::next_job) is done with.
    pub(super) fn finish_write(&self) {
        let mut state = self.lock();
        if let Some(block) = state.writing.take() {
            state.write_bytes -= block.bytes;
        }
    }

    /// Waits for the next read, and for room for its answer; the block itself if it is still being written. `None`:
    /// stop.
    pub(super) fn next_read(&self) -> Option<(BlockHash, Option<Arc<Block>>)> {
        let mut state = self.lock();
        loop {
            if state.stop.is_some() {
                return None;
            }
            if state.loaded_bytes < self.max_bytes.max(1)
                && let Some(hash) = state.reads.pop_front()
            {
                let queued = state.writes.iter().rev().chain(&state.writing);
                let block = queued.into_iter().find(|block| block.entry.hash == hash).map(Arc::clone);
                return Some((hash, block));
            }
            state = self.to_reader.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// An order of the reader's, which is never forgotten.
    pub(super) fn order(&self, order: Order) {
        self.lock().orders.push_back(order);
        self.to_writer.notify_one();
    }

    /// Says what was done.
    pub(super) fn tell(&self, events: impl IntoIterator<Item = SsdEvent>) {
        let mut state = self.lock();
        let before = state.events.len();
        state.events.extend(events);
        let loaded: usize = state
            .events
            .iter()
            .skip(before)
            .map(|event| match event {
                SsdEvent::Loaded { groups, .. } => bytes_of(groups),
                _ => 0,
            })
            .sum();
        state.loaded_bytes += loaded;
        let news = state.events.len() > before;
        drop(state);
        if news {
            (self.wake)();
        }
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut SsdStats)) {
        change(&mut self.lock().stats);
    }
}

/// Bytes of all groups of a block.
pub(super) fn bytes_of(groups: &[Option<Vec<u8>>]) -> usize {
    groups.iter().flatten().map(Vec::len).sum()
}
