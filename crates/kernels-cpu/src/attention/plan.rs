//! How the attention of a step is cut into pieces of work.

use std::{cell::Cell, ops::Range};

use super::{Attention, CHUNK, RaggedBatch, partials::Partials};
use crate::{Pool, kv_pool::Layout};

/// Rows (queries times heads) that a tile has at most: what each key and value serves once it has been fetched and
/// widened. Their queries and results fit the second-level cache beside a chunk of keys and values.
const MOST_ROWS: usize = 192;
/// Rows that a tile has if the sequence has as many, however many threads want work.
const FEWEST_ROWS: usize = 48;
/// Multiply-adds below which a tile's chunks are not split further.
const SMALLEST: usize = 1 << 17;

/// A piece of work: some queries of one sequence, all heads that share one KV head, and some chunks of the context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub row: usize,
    pub kv_head: usize,
    /// Within the row.
    pub queries: Range<usize>,
    pub chunks: Range<usize>,
    /// Where its chunks' results go, if the tile has other items beside this one.
    pub partials: Option<Range<usize>>,
}

/// A tile whose chunks were given to several items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Split {
    /// One of its items.
    pub item: usize,
    /// Queries times heads.
    pub rows: usize,
    /// The results of all its chunks, in order.
    pub partials: Range<usize>,
}

/// All work of one call.
#[derive(Default)]
pub(super) struct Plan {
    pub items: Vec<Item>,
    pub splits: Vec<Split>,
    /// Multiply-adds of all items, roughly.
    pub cost: usize,
    partials: Vec<f32>,
}

thread_local! {
    /// The last call's plan, for its memory.
    static PLAN: Cell<Plan> = Cell::new(Plan::default());
}

impl Plan {
    /// Cost from which on a second thread pays.
    pub const WORTH_THREADS: usize = 1 << 18;

    /// Makes the plan of a call and hands it to `body`, along with memory for partial results.
    pub fn with(
        pool: &Pool,
        batch: &RaggedBatch<'_>,
        layer: &Attention,
        layout: &Layout,
        body: impl FnOnce(&Self, &mut [f32]),
    ) {
        let mut plan = PLAN.take();
        let floats = plan.fill(pool.threads(), batch, layer, layout);
        let mut partials = std::mem::take(&mut plan.partials);
        if partials.len() < floats {
            partials.resize(floats, 0.0);
        }
        body(&plan, &mut partials[..floats]);
        plan.partials = partials;
        PLAN.set(plan);
    }

    /// Lists the items; gives the number of f32 that the partial results take.
    fn fill(&mut self, threads: usize, batch: &RaggedBatch<'_>, layer: &Attention, layout: &Layout) -> usize {
        self.items.clear();
        self.splits.clear();
        self.cost = 0;
        let group = layer.heads / layout.kv_heads;
        let share = batch.tokens() * layer.heads / (4 * threads);
        let step = (share.clamp(FEWEST_ROWS, MOST_ROWS) / group).max(1);
        for i in 0..batch.rows() {
            let row = batch.row(i);
            // The last tile of a row has most to do: it comes first, so that the threads end together.
            for tile in (0..row.queries.div_ceil(step)).rev() {
                let queries = tile * step..row.queries.min((tile + 1) * step);
                let first = layer.visible(&row, queries.start).start;
                let last = layer.visible(&row, queries.end - 1).end;
                let chunks = first / CHUNK..last.div_ceil(CHUNK);
                self.cost += layout.kv_heads * cost(last - first, queries.len() * group, layout);
                for kv_head in 0..layout.kv_heads {
                    let (queries, chunks) = (queries.clone(), chunks.clone());
                    self.items.push(Item { row: i, kv_head, queries, chunks, partials: None });
                }
            }
        }
        if threads > 1 { self.split(self.cost / (4 * threads), group, layout) } else { 0 }
    }

    /// Splits the items that cost well over `target`.
    fn split(&mut self, target: usize, group: usize, layout: &Layout) -> usize {
        let target = target.max(SMALLEST);
        let mut floats = 0;
        for i in 0..self.items.len() {
            let whole = &self.items[i];
            let (chunks, rows) = (whole.chunks.clone(), whole.queries.len() * group);
            let parts = (cost(chunks.len() * CHUNK, rows, layout) / target).min(chunks.len());
            if parts < 2 {
                continue;
            }
            let size = Partials::size(rows, layout);
            let partials = floats..floats + chunks.len() * size;
            floats = partials.end;
            let bound = |part: usize| chunks.len() * part / parts;
            for part in 0..parts {
                let mut item = self.items[i].clone();
                item.chunks = chunks.start + bound(part)..chunks.start + bound(part + 1);
                item.partials = Some(partials.start + bound(part) * size..partials.start + bound(part + 1) * size);
                if part + 1 < parts {
                    self.items.push(item);
                } else {
                    self.items[i] = item;
                }
            }
            self.splits.push(Split { item: i, rows, partials });
        }
        floats
    }
}

/// Multiply-adds of `tokens` tokens for `rows` rows. Few rows cost as much as [`crate::simd::TILE_ROWS`]: then it is
/// memory that they wait for.
fn cost(tokens: usize, rows: usize, layout: &Layout) -> usize {
    2 * tokens * rows.max(crate::simd::TILE_ROWS) * layout.head_dim
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every query, head and chunk of the context is in exactly one item, and partial results do not overlap.
    #[test]
    fn plans_cover_everything_once() {
        // (name, threads, heads, kv heads, window, [(start, queries)])
        type Case = (&'static str, usize, usize, usize, Option<usize>, &'static [(u32, u32)]);
        let causal = |name| name != "encoder";
        let cases: [Case; 8] = [
            ("one decode", 2, 9, 3, None, &[(4000, 1)]),
            ("many threads, one head", 16, 1, 1, None, &[(100_000, 1)]),
            ("prefill", 2, 9, 3, None, &[(0, 512)]),
            ("late chunk of a prompt", 8, 16, 8, None, &[(4096, 16)]),
            ("mixed", 2, 8, 2, None, &[(0, 1), (17, 100), (5, 0), (3000, 1)]),
            ("window", 4, 4, 1, Some(200), &[(3000, 64), (10, 1)]),
            ("encoder", 2, 12, 12, None, &[(0, 300), (0, 1), (0, 48)]),
            // All queries up to position 289 see that one; those after it are plain text again.
            ("picture", 4, 4, 1, Some(200), &[(20, 310)]),
        ];
        for (name, threads, heads, kv_heads, window, rows) in cases {
            let offsets: Vec<u32> =
                std::iter::once(0).chain(rows.iter().scan(0, |n, r| (*n += r.1, Some(*n)).1)).collect();
            let starts: Vec<u32> = rows.iter().map(|r| r.0).collect();
            let block_offsets = vec![0; rows.len() + 1];
            let until = if name == "picture" { &[290; 310][..] } else { &[] };
            let (query_offsets, block_offsets) = (&offsets[..], &block_offsets[..]);
            let batch = RaggedBatch { query_offsets, starts: &starts, until, block_offsets, blocks: &[] };
            let layout = Layout { block_size: 16, kv_heads, head_dim: 64, value_stride: 64 };
            let layer = Attention { heads, scale: 1.0, causal: causal(name), window, softcap: None };
            let mut plan = Plan::default();
            let floats = plan.fill(threads, &batch, &layer, &layout);
            let mut written = vec![0; floats];
            for (i, &(_, queries)) in rows.iter().enumerate() {
                for head in 0..kv_heads {
                    for query in 0..queries as usize {
                        let seen = layer.visible(&batch.row(i), query);
                        for chunk in seen.start / CHUNK..seen.end.div_ceil(CHUNK) {
                            let holds = |item: &&Item| {
                                item.row == i
                                    && item.kv_head == head
                                    && item.queries.contains(&query)
                                    && item.chunks.contains(&chunk)
                            };
                            assert_eq!(
                                plan.items.iter().filter(holds).count(),
                                1,
                                "{name}: {i} {query} {head} {chunk}"
                            );
                        }
                    }
                }
            }
            for range in plan.items.iter().filter_map(|item| item.partials.clone()) {
                written[range].iter_mut().for_each(|n| *n += 1);
            }
            assert!(written.iter().all(|&n| n == 1), "{name}: partial results overlap or leave gaps");
            let enough = plan.items.len() >= 2 * threads;
            assert!(enough || plan.cost < 4 * threads * SMALLEST, "{name}: {} items", plan.items.len());
        }
    }
}
