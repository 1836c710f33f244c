//! The books on KV blocks.
//!
//! **Invariant:** this crate holds numbers only. It never sees a tensor, does no IO and starts no thread.

mod hash;
mod index;
mod kv_cache;
mod pool;

pub use hash::BlockHash;
pub use kv_cache::{Adopted, BlockTables, Hit, KvCache, KvCacheStats, Prefix};
pub use pool::{Allocated, BlockPool};
