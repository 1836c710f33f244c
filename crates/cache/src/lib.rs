//! The books on KV blocks, and the features of pictures.
//!
//! **Invariant:** this crate holds numbers and bytes, never a tensor. IO is done in `ssd` only, on threads of its own.

mod events;
mod features;
mod hash;
mod index;
mod kv_cache;
mod media;
mod pool;
mod ssd;

pub use events::{KvEvent, KvTier, StoredBlock};
pub use features::{FeatureCache, FeatureCacheStats};
pub use hash::BlockHash;
pub use kv_cache::{Adopted, BlockTables, Hit, KvCache, KvCacheStats, Prefix, Unwritten};
pub use media::{MediaMark, seen_by};
pub use pool::{Allocated, BlockPool};
pub use ssd::{SsdConfig, SsdEntry, SsdError, SsdEvent, SsdFound, SsdStats, SsdTier};
