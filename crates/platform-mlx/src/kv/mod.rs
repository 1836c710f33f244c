//! KV storage, one implementation for each way of attending. Chosen by device like vLLM's attention backends.

pub(crate) mod budget;
mod contiguous;
mod extent;
mod groups;
mod paged;
mod slices;
mod transient;

pub use contiguous::ContiguousKv;
pub use groups::{LayerGroup, group_layers};
pub use paged::PagedKv;
pub use transient::{Attending, TransientKv};

use vllm_platform::{BlockCopy, BlockId, KvCacheSpec, KvGroup};

use crate::{Batch, Error, Layout, Result, Tensor};

/// How one layer attends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionSpec {
    /// Query heads; a multiple of the layer's key/value heads.
    pub heads: usize,
    /// Factor on `q·k`.
    pub scale: f32,
}

/// Keys and values of all layers and sequences.
///
/// [`attend`](Self::attend) only adds to the graph; everything else happens at once, and must not come between the
/// building of a graph and its evaluation.
pub trait KvStore {
    /// Told of each step's layout before it is computed, whether its graph is built anew or replayed.
    fn begin_step(&mut self, _layout: &Layout) {}

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

    /// Kind of store and version of its layout, e.g. `paged 1`: exported blocks mean something under the same name only.
    fn name(&self) -> &'static str;

    /// Groups, blocks and bytes.
    fn spec(&self) -> &KvCacheSpec;

    /// Gives a block the first tokens of another.
    ///
    /// # Errors
    /// [`Error::Plan`] if there are no such blocks, or the block to read no longer holds what would be needed.
    fn copy_block(&mut self, copy: &BlockCopy) -> Result<()>;

    /// The first `tokens` tokens of a block over all layers of its group, first to last, in an order of the store's
    /// own.
    ///
    /// # Errors
    /// [`Error::Plan`] if there is no such block, or it does not hold as many tokens.
    fn export_block(&mut self, group: usize, block: BlockId, tokens: usize) -> Result<Vec<u8>>;

    /// Restores the first `tokens` tokens of a block from what [`export_block`](Self::export_block) gave for as many.
    ///
    /// # Errors
    /// [`Error::Plan`] if there is no such block, or the bytes are not of that length; the block then holds nothing
    /// that may be relied on.
    fn import_block(&mut self, group: usize, block: BlockId, tokens: usize, bytes: &[u8]) -> Result<()>;

    /// Bytes that MLX's memory figures don't include.
    fn unaccounted_bytes(&self) -> u64;
}

/// That `block` is one of `group`'s and may hold `tokens` tokens.
fn check_block(spec: &KvCacheSpec, group: usize, block: BlockId, tokens: usize) -> Result<()> {
    let Some(KvGroup { num_blocks, .. }) = spec.groups.get(group) else {
        return Err(Error::Plan(format!("group {group} of {} was named", spec.groups.len())));
    };
    if block as usize >= *num_blocks {
        return Err(Error::Plan(format!("group {group}: block {block} of {num_blocks} was named")));
    }
    if tokens == 0 || tokens > spec.block_size {
        return Err(Error::Plan(format!("{tokens} tokens of a block of {} were asked for", spec.block_size)));
    }
    Ok(())
}
