//! The books on KV blocks.
//!
//! **Invariant:** this crate holds numbers only. It never sees a tensor, does no IO and starts no thread.

mod hash;
mod pool;

pub use hash::BlockHash;
pub use pool::BlockPool;
