//! The tier below memory: blocks in files.
//!
//! The engine's thread owns the prefix index and calls [`SsdTier`]; every call returns at once. Two threads of the tier
//! do the IO, one writes and one reads, so that a read, which somebody waits for, never stands behind a write. What
//! they did comes back as [`SsdEvent`]s.
//!
//! # On the disk
//!
//! `dir/<fingerprint>/<two digits>/<hash>.kv`, one block a file, laid out as [`format`] says. A file is written under
//! another name and renamed when it is whole, so that a process killed at any moment leaves whole files and at most one
//! temporary one, which the next start deletes.
//!
//! Nothing is flushed to the device (`fsync`). What the kernel was given survives the process; a power cut may take
//! files of the last half minute or leave them torn, and checksums over header and payloads find every torn one.
//! Flushing would save a few blocks of a cache in that one case, and cost every block a round trip to the device that
//! reads have to queue behind.
//!
//! # What is kept
//!
//! Files are deleted, the one not used for the longest time first, until the new one fits: the cap holds whenever a
//! write is done. Among blocks of our model a block goes after those that continue it, for without it they are of no
//! use. Folders of other models count towards the cap and are one queue with ours, by the time of last use; but the
//! folder of a model that another tier has open is that tier's own affair, neither counted nor touched.
//!
//! The time of last use is the file's modification time, renewed at most once a minute.
//!
//! # Privacy
//!
//! KV tells what the prompt was. Folders are made for their owner alone (0700), and so are files (0600).

use std::{
    fmt,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::BlockHash;

mod config;
mod entry;
mod folder;
mod format;
mod index;
mod others;
mod quant;
mod queue;
mod reader;
mod scan;
#[cfg(test)]
mod tests;
mod writer;

pub use config::{SsdConfig, SsdError};
pub use entry::{SsdEntry, SsdEvent, SsdFound, SsdStats};

use folder::Folder;
use format::Identity;
use queue::{Block, Queue};
use reader::Reader;
use writer::Writer;

/// How long [`SsdTier`]'s drop goes on writing what is queued.
const FLUSH: Duration = Duration::from_secs(5);

/// The blocks of one model on an SSD.
///
/// Dropping it writes what is queued, for at most five seconds, and joins both threads.
///
/// ```
/// use std::sync::mpsc;
///
/// use vllm_cache::{BlockHash, SsdConfig, SsdEntry, SsdEvent, SsdTier};
/// use vllm_platform::KvDtype;
///
/// # let dir = tempfile::tempdir()?;
/// let config = SsdConfig {
///     dir: dir.path().into(),
///     max_bytes: 1 << 30,
///     fingerprint: "5eed".into(),
///     dtype: KvDtype::F32,
///     quantize: false,
///     queue_bytes: SsdConfig::QUEUE_BYTES,
/// };
/// let (wake, woken) = mpsc::channel();
/// let tier = SsdTier::open(config, move || { let _ = wake.send(()); })?;
///
/// let root = BlockHash::root(None);
/// let hash = root.extend(&[1, 2]);
/// assert!(tier.write(SsdEntry { hash, parent: root, tokens: vec![1, 2], media: vec![] }, vec![Some(vec![7; 8]), None]));
/// tier.read(hash);
/// let groups = 'loaded: loop {
///     woken.recv()?;
///     while let Some(event) = tier.poll() {
///         if let SsdEvent::Loaded { groups, .. } = event {
///             break 'loaded groups;
///         }
///     }
/// };
/// assert_eq!(groups, [Some(vec![7; 8]), None]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SsdTier {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

impl SsdTier {
    /// Opens the folder, made if it isn't there, and starts to look for what an earlier run left in it.
    ///
    /// `wake` is called, on a thread of the tier's, whenever [`poll`](Self::poll) has something new to say. The thread
    /// does nothing until it returns.
    ///
    /// # Errors
    /// If the folder cannot be made or written to, or another tier has it open for the same model.
    pub fn open(config: SsdConfig, wake: impl Fn() + Send + Sync + 'static) -> Result<Self, SsdError> {
        let folder = Arc::new(Folder::open(&config.dir, &config.fingerprint)?);
        let identity = Arc::new(Identity { fingerprint: config.fingerprint.clone(), dtype: config.dtype });
        let queue = Arc::new(Queue::new(config.queue_bytes, config.max_bytes, Box::new(wake)));
        let mut tier = Self { queue: Arc::clone(&queue), threads: vec![] };
        let reader = Reader { queue: Arc::clone(&queue), folder: Arc::clone(&folder), identity: Arc::clone(&identity) };
        let writer = Writer::new(&config, queue, folder, identity);
        tier.start("ssd-read", move || reader.run())?;
        tier.start("ssd-write", move || writer.run())?;
        Ok(tier)
    }

    fn start(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), SsdError> {
        let thread = thread::Builder::new().name(name.into()).spawn(run).map_err(SsdError::Thread)?;
        self.threads.push(thread);
        Ok(())
    }

    /// Queues a block for writing; `groups[g]` are the bytes of group g, `None` for a group that has given its block
    /// back. [`SsdEvent::Written`] or [`SsdEvent::Gone`] follows; it can be read from now on.
    ///
    /// A block that is there already with at least as many groups is not written again.
    ///
    /// Returns false, and keeps and says nothing, if it does not fit into the queue.
    pub fn write(&self, entry: SsdEntry, groups: Vec<Option<Vec<u8>>>) -> bool {
        self.queue.push_write(Block::new(entry, groups))
    }

    /// Queues a read. It is answered by one [`SsdEvent::Loaded`], or by [`SsdEvent::Gone`]; a second read of a block
    /// before the first was begun is the same read. Counts as a use.
    ///
    /// Reading pauses while [`queue_bytes`](SsdConfig::queue_bytes) of answers wait to be polled.
    pub fn read(&self, hash: BlockHash) {
        self.queue.push_read(hash);
    }

    /// Counts as a use of the block, which is then among the last to be evicted.
    ///
    /// For a prefix, touch its last block first and its first block last: then its end is evicted before its beginning.
    pub fn touch(&self, hash: BlockHash) {
        self.queue.touch(hash);
    }

    /// What happened since, oldest first. Never blocks.
    pub fn poll(&self) -> Option<SsdEvent> {
        self.queue.poll()
    }

    /// Deletes all blocks of this model, those queued for writing too; [`SsdEvent::Gone`] follows for each. Reads under
    /// way may still be answered.
    pub fn clear(&self) {
        self.queue.clear();
    }

    /// Counters since the start, and what is stored now.
    #[must_use]
    pub fn stats(&self) -> SsdStats {
        self.queue.stats()
    }
}

impl Drop for SsdTier {
    fn drop(&mut self) {
        self.queue.stop(Instant::now() + FLUSH);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the SSD cache panicked");
            }
        }
    }
}

impl fmt::Debug for SsdTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SsdTier").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
