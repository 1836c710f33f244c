//! Attention over paged keys and values, for ragged batches of prefill chunks and decode tokens alike.
//!
//! One call takes all rows of a step. The work is cut into tiles (some queries of one sequence and all heads that
//! share a KV head), and a tile goes over its context in *chunks* of 128 tokens that begin at multiples of
//! 128: scores, a softmax that is local to the chunk, the weighted sum of values; then the chunk is merged into
//! what came before (the online softmax of FlashAttention, arXiv:2205.14135). Where a step has fewer tiles than threads,
//! as in the decoding of a long context, several threads take chunks of one tile, and their results are merged in order.
//!
//! Since chunks begin at fixed positions, each is summed by itself, and they are merged in order, **the result for a
//! query depends bit by bit only on the query, its position and the keys and values it sees**: not on batch mates, not
//! on threads, not on how a prompt was cut into prefill chunks, nor on whether a token was prefilled or decoded.

mod batch;
mod chunk;
mod partials;
mod plan;
#[cfg(test)]
mod tests;
mod tile;

use std::ops::Range;

pub use batch::RaggedBatch;
use batch::Row;

use crate::{
    KvPool, Pool, SharedMut,
    kv_pool::{KvNumber, Planes, WithPlanes},
};
use partials::Partials;
use plan::Plan;
use tile::Tile;

/// Tokens of a chunk; a multiple of 16.
const CHUNK: usize = 128;

/// What an attention layer computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Query heads: a multiple of the pool's KV heads. Query head `h` uses KV head `h / (heads / kv_heads)`.
    pub heads: usize,
    /// Multiplies the products of queries and keys; usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Whether a query sees nothing after itself ([`RaggedBatch::until`] aside). If not, it sees its whole sequence, whose last query comes last: the
    /// attention of encoders.
    pub causal: bool,
    /// Sliding window: the query at position `p` sees positions from `p - window + 1` on. `None`: from the first on. For
    /// causal attention only.
    pub window: Option<usize>,
    /// Replaces each scaled score `s` by `softcap · tanh(s / softcap)` (Gemma 2).
    pub softcap: Option<f32>,
}

impl Attention {
    /// Positions that query `query` of `row` sees. Neither end is before that of the query before it.
    #[inline(always)]
    fn visible(&self, row: &Row<'_>, query: usize) -> Range<usize> {
        let itself = row.start + query + 1;
        let first = self.window.map_or(0, |window| itself.saturating_sub(window));
        let end = if self.causal {
            row.until.get(query).map_or(itself, |&until| itself.max(until as usize))
        } else {
            row.end()
        };
        first..end
    }
}

/// `out = softmax(scale · q · kᵀ) · v` for every query of the batch, over the keys and values of its own sequence.
///
/// `q` and `out` are `[tokens, heads, head_dim]`. The keys and values of the queries' own tokens must have been written
/// to `kv` before. Of the block tables only the entries of blocks that some query sees are looked at, so entries that
/// have left the window may be anything.
///
/// # Panics
/// If lengths do not fit together, the heads are no multiple of the KV heads, a block table is too short or names a
/// block beyond the pool, the window is 0, attention that isn't causal has one, or [`RaggedBatch::until`] goes beyond a row or
/// down within it.
pub fn attention(pool: &Pool, q: &[f32], kv: &KvPool, batch: &RaggedBatch<'_>, layer: &Attention, out: &mut [f32]) {
    let shape = kv.shape();
    let width = layer.heads * shape.head_dim;
    assert!(
        layer.heads > 0 && layer.heads.is_multiple_of(shape.kv_heads),
        "attention: {} query heads are no multiple of {} KV heads",
        layer.heads,
        shape.kv_heads
    );
    assert!(layer.window != Some(0), "attention: a window of 0 lets a query see nothing, itself included");
    assert!(
        layer.causal || layer.window.is_none(),
        "attention: a window ends at the query, which must not see further"
    );
    assert!(
        q.len() == out.len() && q.len() == batch.tokens() * width,
        "attention: {} numbers of queries, {} of output for {} tokens of {} heads of {}",
        q.len(),
        out.len(),
        batch.tokens(),
        layer.heads,
        shape.head_dim
    );
    batch.check(shape, layer);
    if !q.is_empty() {
        kv.with_planes(Call { pool, q, batch, layer, out });
    }
}

/// A checked call of [`attention`].
struct Call<'a> {
    pool: &'a Pool,
    q: &'a [f32],
    batch: &'a RaggedBatch<'a>,
    layer: &'a Attention,
    out: &'a mut [f32],
}

impl WithPlanes for Call<'_> {
    type Output = ();

    fn call<T: KvNumber>(self, planes: &Planes<T>) {
        let Self { pool, q, batch, layer, out } = self;
        let out = SharedMut::new(out);
        Plan::with(pool, batch, layer, planes.layout(), |plan, partials| {
            let partials = SharedMut::new(partials);
            let one = |item: usize| {
                let item = &plan.items[item];
                let tile = Tile { layout: planes.layout(), q, batch, layer, item };
                // SAFETY: no two items have the same queries and KV head and chunks, which is what decides where an
                // item writes.
                unsafe { tile.attend(pool, planes, out, partials) };
            };
            if plan.cost < Plan::WORTH_THREADS {
                (0..plan.items.len()).for_each(one);
            } else {
                pool.run(plan.items.len(), one);
            }
            for split in &plan.splits {
                let tile = Tile { layout: planes.layout(), q, batch, layer, item: &plan.items[split.item] };
                // SAFETY: all items are done.
                let partials = unsafe { partials.slice(split.partials.clone()) };
                // SAFETY: all items are done.
                unsafe { tile.merge(pool, Partials::new(partials, split.rows, planes.layout()), out) };
            }
        });
    }
}
