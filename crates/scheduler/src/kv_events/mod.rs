//! What others are told of an engine's prefix cache: a numbered stream of changes that can be joined at any time.

mod journal;
mod stream;

use std::{sync::Arc, time::SystemTime};

use vllm_cache::KvEvent;

pub(crate) use self::journal::{Journal, Recorder};
pub use self::stream::KvEvents;

/// What changed in a step, or since the last one that changed anything.
#[derive(Debug, Clone, PartialEq)]
pub struct KvBatch {
    /// One more than that of the batch before it. The first one's is the time in microseconds since 1970, so that no number
    /// of an engine's is one of an earlier engine's, and so that there are more numbers before it than blocks: a snapshot may
    /// be sent in parts that have numbers of their own, up to the snapshot's.
    pub sequence: u64,
    /// When that was found out.
    pub at: SystemTime,
    /// In order; at least one.
    pub events: Vec<KvEvent>,
}

/// All there is to know at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct KvSnapshot {
    /// Number of the last batch that is in it: the stream goes on with the one after it.
    pub sequence: u64,
    /// When it was made.
    pub at: SystemTime,
    /// [`KvEvent::Cleared`], then all blocks, parents before children.
    pub events: Vec<KvEvent>,
}

impl KvSnapshot {
    /// Blocks in it.
    #[must_use]
    pub fn blocks(&self) -> usize {
        let count = |event: &KvEvent| if let KvEvent::Stored { blocks, .. } = event { blocks.len() } else { 0 };
        self.events.iter().map(count).sum()
    }
}

/// What [`KvEvents`] yields.
#[derive(Debug, Clone, PartialEq)]
pub enum KvNews {
    /// Forget everything: this is what there is. The first thing told to those who don't [resume](crate::EngineHandle::kv_events),
    /// and told again to those who were so slow that batches they had not seen are kept no longer.
    Snapshot(KvSnapshot),
    /// What has changed since the batch or the snapshot before.
    Batch(Arc<KvBatch>),
}
