//! Which queries belong to which sequence, and where its keys and values lie.

use super::Attention;
use crate::KvShape;

/// The rows of a step. Row `i` has the queries `query_offsets[i]..query_offsets[i + 1]` of the ragged batch, the first
/// of them at position `starts[i]` of its sequence, and the block table `blocks[block_offsets[i]..block_offsets[i + 1]]`.
///
/// Token `p` of the sequence lies in block `table[p / block_size]`. All tokens up to the last query count as context.
///
/// ```
/// use vllm_kernels_cpu::RaggedBatch;
/// // Five tokens of a prompt whose first three are in the pool already, and one token of another sequence (block size 16).
/// let batch = RaggedBatch {
///     query_offsets: &[0, 5, 6],
///     starts: &[3, 40],
///     until: &[],
///     block_offsets: &[0, 1, 4],
///     blocks: &[7, 2, 9, 4],
/// };
/// assert_eq!(batch.slots(16).collect::<Vec<_>>(), [115, 116, 117, 118, 119, 72]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RaggedBatch<'a> {
    /// One more than there are rows; from 0 upwards.
    pub query_offsets: &'a [u32],
    /// One a row.
    pub starts: &'a [u32],
    /// One a query, or none at all: the position before which a query of causal attention sees everything, where that is
    /// more than what stands up to itself. So the tokens of a picture see each other (Gemma 3): each has the picture's end.
    pub until: &'a [u32],
    /// One more than there are rows; from 0 upwards.
    pub block_offsets: &'a [u32],
    /// The block tables, one after the other.
    pub blocks: &'a [u32],
}

/// One row of a [`RaggedBatch`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    /// Index of the first query in the batch.
    pub first: usize,
    /// Queries.
    pub queries: usize,
    /// Position of the first query.
    pub start: usize,
    /// [`RaggedBatch::until`] of its queries.
    pub until: &'a [u32],
    pub blocks: &'a [u32],
}

impl Row<'_> {
    /// Where the sequence ends.
    pub fn end(&self) -> usize {
        self.start + self.queries
    }
}

impl<'a> RaggedBatch<'a> {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.starts.len()
    }

    /// How many queries all rows have.
    pub fn tokens(&self) -> usize {
        self.query_offsets.last().map_or(0, |&n| n as usize)
    }

    /// Slots of the queries' own tokens, in order: where [`KvPool::write`](crate::KvPool::write) is to put them.
    ///
    /// # Panics
    /// If a block table is too short for its row.
    pub fn slots(&self, block_size: usize) -> impl Iterator<Item = u32> + 'a {
        let batch = *self;
        (0..self.rows()).flat_map(move |i| {
            let row = batch.row(i);
            (row.start..row.start + row.queries).map(move |p| {
                let slot = row.blocks[p / block_size] as usize * block_size + p % block_size;
                u32::try_from(slot).expect("a pool has fewer than 2^32 slots")
            })
        })
    }

    pub(crate) fn row(&self, i: usize) -> Row<'a> {
        let first = self.query_offsets[i] as usize;
        let blocks = &self.blocks[self.block_offsets[i] as usize..self.block_offsets[i + 1] as usize];
        let end = self.query_offsets[i + 1] as usize;
        let until = if self.until.is_empty() { &[] } else { &self.until[first..end] };
        Row { first, queries: end - first, start: self.starts[i] as usize, until, blocks }
    }

    /// Panics unless every block that a query sees is in the tables and in the pool.
    pub(super) fn check(&self, shape: &KvShape, layer: &Attention) {
        let rows = self.rows();
        let ascending = |offsets: &[u32]| offsets.len() == rows + 1 && offsets[0] == 0 && offsets.is_sorted();
        let whole = self.block_offsets.last().is_some_and(|&end| end as usize == self.blocks.len());
        assert!(
            ascending(self.query_offsets) && ascending(self.block_offsets) && whole,
            "attention: {rows} rows want {rows} + 1 ascending offsets of queries and of blocks: {self:?}"
        );
        assert!(
            self.until.is_empty() || self.until.len() == self.tokens(),
            "attention: {} ends of what is seen for {} tokens",
            self.until.len(),
            self.tokens()
        );
        for i in 0..rows {
            let row = self.row(i);
            if row.queries == 0 {
                continue;
            }
            // Tiles take the first and the last query's word for what all of theirs see.
            let seen = (0..row.queries).map(|query| layer.visible(&row, query).end);
            let last = layer.visible(&row, row.queries - 1).end;
            assert!(
                row.until.is_empty() || seen.is_sorted() && last <= row.end(),
                "attention: queries of row {i} see less than those before them, or more than the row's {} tokens: {:?}",
                row.end(),
                row.until
            );
            let first = layer.visible(&row, 0).start / shape.block_size;
            let last = (row.end() - 1) / shape.block_size;
            assert!(
                last < row.blocks.len(),
                "attention: row {i} has a table of {} blocks of {} for {} tokens",
                row.blocks.len(),
                shape.block_size,
                row.end()
            );
            if let Some(block) = row.blocks[first..=last].iter().find(|&&block| block as usize >= shape.blocks) {
                panic!("attention: row {i} names block {block} of a pool of {}", shape.blocks);
            }
        }
    }
}
