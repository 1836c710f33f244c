//! What the engine's thread and the tier say to each other.

use vllm_platform::TokenId;

use crate::{BlockHash, MediaMark};

/// What a block is: enough to put it back into a prefix index after a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SsdEntry {
    /// The prefix up to and with this block: `parent.extend_with_media(&tokens, &media)`.
    pub hash: BlockHash,
    /// The prefix before it.
    pub parent: BlockHash,
    /// Its own tokens.
    pub tokens: Vec<TokenId>,
    /// What of them stands for media, from the block's start on.
    pub media: Vec<MediaMark>,
}

impl SsdEntry {
    /// Whether the hash is that of its content.
    pub(crate) fn is_named_right(&self) -> bool {
        self.parent.extend_with_media(&self.tokens, &self.media) == self.hash
    }
}

/// A block that an earlier run left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SsdFound {
    /// What it is.
    pub entry: SsdEntry,
    /// For each group, whether its bytes are there.
    pub groups: Vec<bool>,
}

/// What a tier did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SsdEvent {
    /// Blocks that an earlier run left, a block's parent before it unless the parent is not there at all. Their headers
    /// are whole; their content is checked when they are read.
    Found(Vec<SsdFound>),
    /// There is no more to be found.
    ScanDone,
    /// The block is stored.
    Written(BlockHash),
    /// The block is not stored, or not any more: evicted, cleared, not to be written, not to be read, or corrupt. May
    /// come more than once, and for blocks not heard of before.
    Gone(BlockHash),
    /// The answer to a read.
    Loaded {
        /// The block.
        hash: BlockHash,
        /// What was written, by group.
        groups: Vec<Option<Vec<u8>>>,
    },
}

/// Counters since the start, and what is stored now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SsdStats {
    /// Blocks of this model that are stored.
    pub entries: usize,
    /// Bytes of all files that count towards the cap, other models' too.
    pub bytes: u64,
    /// The cap.
    pub max_bytes: u64,
    /// Blocks written.
    pub written_blocks: u64,
    /// Bytes of their files.
    pub written_bytes: u64,
    /// Blocks read.
    pub read_blocks: u64,
    /// Bytes of what they hold, as written.
    pub read_bytes: u64,
    /// Blocks not written because the queue was full or they are larger than the cap.
    pub dropped: u64,
    /// Files deleted to make room, other models' too.
    pub evicted: u64,
    /// Files deleted because they were not what had been written.
    pub corrupt: u64,
    /// Reads, writes and deletions that the system refused.
    pub errors: u64,
}
