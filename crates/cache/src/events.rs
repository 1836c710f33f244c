//! What others are told of the blocks in memory.

use std::sync::Arc;

use vllm_platform::TokenId;

use crate::MediaMark;

/// Where a block's KV is.
///
/// Blocks on the SSD are not told of: a folder found there says nothing about the salts of what is in it, and without its
/// salt a block would be taken for one that everybody may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvTier {
    /// In the memory that the model reads it from.
    Device,
}

/// A full block that can be found by the prefix that ends with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBlock {
    /// Its name: [`BlockHash::short`](crate::BlockHash::short) of the whole prefix that ends with it.
    pub hash: u64,
    /// Its tokens: as many as a block holds.
    pub tokens: Arc<[TokenId]>,
    /// What of them stands for media, from the block's start on.
    pub media: Vec<MediaMark>,
}

/// A change of what prefix lookups find, as far as full blocks go: the unfilled last block of a sequence is copied by who
/// uses it, and is never told of.
///
/// A block is told of as long as it and all blocks before it are there. So when one goes, those that follow it are told
/// to be gone with it, children before parents, even if their memory still holds them; and when it is computed again they
/// are told to be there again. Who keeps the blocks told by their names therefore has the blocks that
/// [`find`](crate::KvCache::find) finds. Layers with a window are not looked at: what they lack may make a lookup find less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvEvent {
    /// Blocks that can be found from now on, each after the one before it.
    Stored {
        /// At least one.
        blocks: Vec<StoredBlock>,
        /// What the first of them comes after; `None` if sequences begin with it.
        parent: Option<u64>,
        /// Only requests of this salt find them.
        salt: Option<Arc<str>>,
        /// Where they are.
        tier: KvTier,
    },
    /// Blocks that cannot be found any more.
    Removed {
        /// Their names; at least one.
        hashes: Vec<u64>,
        /// Where they are not any more.
        tier: KvTier,
    },
    /// Nothing can be found any more of all that was there before.
    Cleared,
}
