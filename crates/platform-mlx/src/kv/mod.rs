//! KV storage, one implementation for each way of attending. Chosen by device like vLLM's attention backends.

mod contiguous;
mod paged;

pub use contiguous::ContiguousKv;
pub use paged::PagedKv;

use crate::{Batch, Result, Tensor, model::LayerSpec};

/// How one layer attends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionSpec {
    /// Query heads; a multiple of the layer's key/value heads.
    pub heads: usize,
    /// Factor on `q·k`.
    pub scale: f32,
}

/// Keys and values of all layers and sequences.
pub trait KvStore {
    /// Stores the rows' keys and values and attends over all that their sequences hold, causally and within the
    /// layer's window.
    ///
    /// `q` [tokens, heads, head_dim], `k` and `v` [tokens, kv_heads, head_dim] → [tokens, heads · head_dim].
    ///
    /// # Errors
    /// MLX's own.
    fn attend(
        &mut self,
        layer: usize,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        batch: &Batch,
        spec: AttentionSpec,
    ) -> Result<Tensor>;

    /// Tokens a block holds.
    fn block_size(&self) -> usize;

    /// Blocks there are.
    fn num_blocks(&self) -> usize;

    /// Bytes that MLX's memory figures don't include.
    fn unaccounted_bytes(&self) -> u64;
}

/// Bytes that a token's keys and values take over all layers.
pub(crate) fn bytes_per_token(layers: &[LayerSpec], element: usize) -> u64 {
    layers.iter().map(|l| (2 * l.kv_heads * l.head_dim * element) as u64).sum()
}
