//! Attention over whole pictures, in slices: a large one takes seconds, which nobody else should have to wait.

use vllm_kernels_cpu::RaggedBatch;

use crate::{Layout, Span, batch::dim};

/// Pairs of a query and a key that a slice computes at most, unless a single query has more: some 10 GFLOP with sixteen heads of
/// 64 to 80 numbers, a tenth of a second on a small machine.
const PAIRS: usize = 3 << 20;

/// Some queries of a batch in which all tokens of a sequence see each other.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Slice {
    /// The first of its queries among the batch's rows.
    pub first: usize,
    query_offsets: Vec<u32>,
    starts: Vec<u32>,
    block_offsets: Vec<u32>,
    blocks: Vec<u32>,
    pairs: usize,
}

impl Slice {
    fn new(first: usize) -> Self {
        Self { first, query_offsets: vec![0], block_offsets: vec![0], ..Self::default() }
    }

    /// Queries.
    pub fn len(&self) -> usize {
        self.query_offsets.last().map_or(0, |&len| len as usize)
    }

    /// Adds `queries` queries of a sequence of `len` tokens. Where all see all, it doesn't matter which positions they have;
    /// the kernel takes the last one's for the sequence's end.
    fn push(&mut self, queries: usize, len: usize, table: &[u32]) {
        self.query_offsets.push(narrow(self.len() + queries));
        self.starts.push(narrow(len - queries));
        self.blocks.extend_from_slice(table);
        self.block_offsets.push(narrow(self.blocks.len()));
        self.pairs += queries * len;
    }

    pub fn ragged(&self) -> RaggedBatch<'_> {
        let Self { query_offsets, starts, block_offsets, blocks, .. } = self;
        RaggedBatch { query_offsets, starts, until: &[], block_offsets, blocks }
    }
}

/// All queries of a batch, in order.
pub(super) fn slices(layout: &Layout) -> Vec<Slice> {
    let mut slices = vec![Slice::new(0)];
    for (sequence, Span { first, len, .. }) in layout.spans().enumerate() {
        let mut done = 0;
        while done < len {
            let Some(slice) = slices.last_mut() else { return slices };
            let queries = (PAIRS.saturating_sub(slice.pairs) / len).min(len - done);
            if queries == 0 && slice.len() > 0 {
                slices.push(Slice::new(first + done));
                continue;
            }
            let queries = queries.max(1);
            slice.push(queries, len, layout.table(0, sequence));
            done += queries;
        }
    }
    slices
}

fn narrow(n: usize) -> u32 {
    dim(n).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use vllm_platform::{KvCacheSpec, KvDtype, KvGroup};

    use super::*;

    #[test]
    fn every_query_is_in_one_slice() {
        for lengths in [vec![1], vec![64; 9], vec![5476], vec![3, 4000, 1, 2500, 700], vec![30_000]] {
            let mut next = 0;
            let table = |&len: &usize| {
                let first = next;
                next += narrow(len.div_ceil(16));
                vec![(first..next).collect::<Vec<_>>()]
            };
            let tables: Vec<_> = lengths.iter().map(table).collect();
            let group = KvGroup { window: None, num_blocks: next as usize, block_bytes: 0 };
            let spec = KvCacheSpec { block_size: 16, dtype: KvDtype::F32, groups: vec![group], rewind: None };
            let layout = Layout::of_segments(&lengths, &tables, &spec, None).unwrap();
            let mut rows = 0;
            for slice in slices(&layout) {
                assert_eq!(slice.first, rows, "{lengths:?}");
                assert!(slice.pairs <= PAIRS, "{lengths:?}: {} pairs", slice.pairs);
                rows += slice.len();
            }
            assert_eq!(rows, lengths.iter().sum::<usize>());
        }
    }
}
