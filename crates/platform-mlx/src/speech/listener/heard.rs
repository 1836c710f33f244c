//! What a model that writes down what it hears keeps, on the CPU: keys and values of windows of sound, and of texts about them.
//!
//! Each window and each text has pools of its own, one a layer, so that what is forgotten gives its memory back at once. A pool's
//! pages cost nothing before they are written to.

use std::{fmt, sync::Arc};

use vllm_kernels_cpu::{Attention, KvKind, KvPool, KvShape, Pool, RaggedBatch, attention};

use crate::{Result, model::LayerSpec};

/// Tokens of a block: the least there can be, whose keys lie together as the kernel wants them.
const BLOCK_SIZE: usize = 16;

/// Keys and values of all layers, of one window or one text.
pub(crate) struct Kept {
    pools: Vec<KvPool>,
    /// 0, 1, 2 …: the pools' blocks, in order.
    blocks: Vec<u32>,
}

impl Kept {
    /// Room for `len` tokens.
    ///
    /// # Errors
    /// If the system refuses the address space.
    pub fn new(layers: &[LayerSpec], len: usize, kind: KvKind) -> Result<Self> {
        let blocks = len.div_ceil(BLOCK_SIZE);
        let pool = |layer: &LayerSpec| {
            let LayerSpec { kv_heads, head_dim, .. } = *layer;
            let pool = KvPool::new(KvShape { blocks, block_size: BLOCK_SIZE, kv_heads, head_dim, kind });
            Ok(pool.map_err(|e| vllm_platform::Error::OutOfMemory(e.to_string()))?)
        };
        let pools = layers.iter().map(pool).collect::<Result<_>>()?;
        Ok(Self { pools, blocks: (0..narrow(blocks)).collect() })
    }

    /// Stores keys and values [tokens, kv_heads, head_dim] of tokens from `start` on.
    pub fn write(&self, layer: usize, threads: &Pool, start: usize, k: &[f32], v: &[f32]) {
        let pool = &self.pools[layer];
        let tokens = k.len() / (pool.shape().kv_heads * pool.shape().head_dim);
        let slots: Vec<u32> = (start..start + tokens).map(narrow).collect();
        pool.write(threads, k, v, &slots);
    }

    /// Attention of queries [queries, heads, head_dim], the last of which stands last among `len` tokens.
    pub fn attend(&self, layer: usize, threads: &Pool, q: &[f32], len: usize, how: &Attention, out: &mut [f32]) {
        let pool = &self.pools[layer];
        let queries = q.len() / (how.heads * pool.shape().head_dim);
        let batch = RaggedBatch {
            query_offsets: &[0, narrow(queries)],
            starts: &[narrow(len - queries)],
            until: &[],
            block_offsets: &[0, narrow(self.blocks.len())],
            blocks: &self.blocks,
        };
        attention(threads, q, pool, &batch, how, out);
    }

    /// The keys of a layer's first `len` tokens: [len, kv_heads, head_dim].
    pub fn keys(&self, layer: usize, len: usize) -> Vec<f32> {
        let pool = &self.pools[layer];
        let numbers = len * pool.shape().kv_heads * pool.shape().head_dim;
        let (mut k, mut v) = (vec![0.0; numbers], vec![0.0; numbers]);
        pool.read(&(0..narrow(len)).collect::<Vec<_>>(), &mut k, &mut v);
        k
    }

    /// Bytes, once all is written to.
    pub fn bytes(&self) -> u64 {
        self.pools.iter().map(|pool| (pool.block_bytes() * self.blocks.len()) as u64).sum()
    }
}

/// A window of sound, encoded.
pub(crate) struct HeardWindow {
    pub kept: Kept,
    /// Places of the encoded window.
    pub places: usize,
}

/// A text about a window.
pub(crate) struct HeardText {
    pub kept: Kept,
    pub window: Arc<HeardWindow>,
}

impl fmt::Debug for HeardText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeardText about {} places", self.window.places)
    }
}

fn narrow(n: usize) -> u32 {
    crate::batch::dim(n).cast_unsigned()
}
