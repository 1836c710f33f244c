//! The last batches, kept for all who listen.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::sync::watch;
use vllm_cache::{KvCache, KvEvent};

use super::{KvBatch, KvSnapshot};
use crate::handle::lock;

/// Batches that are kept at most.
const BATCHES: usize = 8192;

/// Blocks that the batches kept may speak of; beyond that the oldest are dropped. A block takes some 150 bytes if nobody
/// else has its tokens any more.
const BLOCKS: usize = 65_536;

/// What the engine's thread writes and listeners read, each at its own pace: nobody waits for anybody, and what is kept
/// does not depend on who has read it.
#[derive(Debug)]
pub(crate) struct Journal {
    kept: Mutex<Kept>,
    listeners: AtomicUsize,
    news: watch::Receiver<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Whether changes are written down.
    recording: bool,
    /// Number of the last batch.
    last: u64,
    /// The last batches, with numbers up to `last`.
    batches: VecDeque<Arc<KvBatch>>,
    /// Blocks that they speak of.
    blocks: usize,
}

/// What there is at a number.
#[derive(Debug)]
pub(super) enum At {
    Batch(Arc<KvBatch>),
    /// Nothing yet.
    Nothing,
    /// Something that is not kept any more, or that never was: whoever asks has to start anew.
    Lost,
}

impl Journal {
    /// The journal, and the pen to it.
    pub fn new() -> (Arc<Self>, Recorder) {
        Self::keeping(BATCHES, BLOCKS)
    }

    pub(super) fn keeping(max_batches: usize, max_blocks: usize) -> (Arc<Self>, Recorder) {
        let (sender, news) = watch::channel(0);
        let journal = Arc::new(Self { kept: Mutex::default(), listeners: AtomicUsize::new(0), news });
        let recorder =
            Recorder { journal: Arc::clone(&journal), news: sender, max_batches, max_blocks, alone_since: None };
        (journal, recorder)
    }

    pub(super) fn at(&self, sequence: u64) -> At {
        let kept = lock(&self.kept);
        if !kept.recording || sequence > kept.last + 1 {
            return At::Lost;
        }
        if sequence == kept.last + 1 {
            return At::Nothing;
        }
        let first = kept.last + 1 - kept.batches.len() as u64;
        let index = sequence.checked_sub(first);
        let batch = index.and_then(|index| kept.batches.get(usize::try_from(index).ok()?));
        batch.map_or(At::Lost, |batch| At::Batch(Arc::clone(batch)))
    }

    /// Counts a listener in, and shows it when there is news; an error there means that the engine's thread is gone.
    pub(super) fn join(&self) -> watch::Receiver<u64> {
        self.listeners.fetch_add(1, SeqCst);
        self.news.clone()
    }

    pub(super) fn leave(&self) {
        self.listeners.fetch_sub(1, SeqCst);
    }
}

/// The engine's end of the [`Journal`].
#[derive(Debug)]
pub(crate) struct Recorder {
    journal: Arc<Journal>,
    news: watch::Sender<u64>,
    max_batches: usize,
    max_blocks: usize,
    /// The last batch that somebody listened to, if nobody does now.
    alone_since: Option<u64>,
}

impl Recorder {
    /// Writes down what has changed since the last call, if anybody wants to know.
    pub fn record(&mut self, cache: &mut KvCache) {
        if !cache.is_listening() {
            return;
        }
        let events = cache.take_events();
        let mut kept = lock(&self.journal.kept);
        if !events.is_empty() {
            kept.last += 1;
            kept.blocks += events.iter().map(spoken_of).sum::<usize>();
            let batch = KvBatch { sequence: kept.last, at: SystemTime::now(), events };
            kept.batches.push_back(Arc::new(batch));
            while kept.batches.len() > self.max_batches || (kept.blocks > self.max_blocks && kept.batches.len() > 1) {
                let dropped = kept.batches.pop_front();
                kept.blocks -= dropped.iter().flat_map(|batch| &batch.events).map(spoken_of).sum::<usize>();
            }
            self.news.send_replace(kept.last);
        }
        if self.journal.listeners.load(SeqCst) > 0 {
            self.alone_since = None;
        } else if *self.alone_since.get_or_insert(kept.last) + (kept.batches.len() as u64) < kept.last {
            // Whoever comes back now has to start anew in any case.
            tracing::debug!("nobody has listened to the KV cache's events for long");
            *kept = Kept { last: kept.last, ..Kept::default() };
            cache.stop_listening();
        }
    }

    /// All there is, now that everything up to it is written down.
    pub fn snapshot(&mut self, cache: &mut KvCache) -> KvSnapshot {
        if !cache.is_listening() {
            cache.listen();
            let mut kept = lock(&self.journal.kept);
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            // A number that nobody has seen, so that nobody goes on from before the pause.
            let last = u64::try_from(now.as_micros()).unwrap_or_default().max(kept.last + 1);
            *kept = Kept { recording: true, last, ..Kept::default() };
            self.alone_since = None;
        }
        self.record(cache);
        if !cache.is_listening() {
            return self.snapshot(cache);
        }
        let sequence = lock(&self.journal.kept).last;
        KvSnapshot { sequence, at: SystemTime::now(), events: cache.snapshot() }
    }
}

/// Blocks that an event names.
fn spoken_of(event: &KvEvent) -> usize {
    match event {
        KvEvent::Stored { blocks, .. } => blocks.len(),
        KvEvent::Removed { hashes, .. } => hashes.len(),
        KvEvent::Cleared => 0,
    }
}
