//! The books on KV blocks.
//!
//! **Invariant:** this crate holds numbers only. It never sees a tensor, does no IO and starts no thread.

mod pool;

pub use pool::BlockPool;
