//! A ragged batch on the device.

use std::sync::Arc;

use vllm_kernels_cpu::RaggedBatch;
use vllm_platform::{BlockId, StepPlan};

use crate::{Error, Result, Tensor};

/// Tokens of all sequences of a step, prefill chunks and decode tokens alike, in one ragged row.
///
/// Only [`crate::kv::KvStore::attend`] knows about sequences; everything else in a model works row by row.
pub struct Batch {
    /// Token ids, `[tokens]`, u32.
    pub tokens: Tensor,
    /// Position of each token in its sequence, `[tokens]`, u32.
    pub positions: Tensor,
    /// What kernels read of it; shared with the graph, which may outlive the batch.
    pub layout: Arc<Layout>,
}

/// Where the sequences of a [`Batch`] stand in its rows, and where their KV lives.
#[derive(Debug, Default)]
pub struct Layout {
    /// Position of each row's token in its sequence.
    pub positions: Vec<u32>,
    /// KV slot of each row: `block · block_size + position % block_size`.
    pub slots: Vec<u32>,
    /// First row of each sequence, and the end.
    row_offsets: Vec<u32>,
    /// Position of each sequence's first row: the KV of what comes before is stored already.
    starts: Vec<u32>,
    /// First entry of each sequence's block table in `blocks`, and the end.
    block_offsets: Vec<u32>,
    blocks: Vec<BlockId>,
}

/// One sequence of a [`Batch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span<'a> {
    /// First row of the batch's matrices.
    pub first: usize,
    /// Rows, one a token.
    pub len: usize,
    /// Position of the first row's token in its sequence.
    pub start: usize,
    /// Block table: token `p` lives in `blocks[p / block_size]`.
    pub blocks: &'a [BlockId],
}

impl Layout {
    /// The sequences, in the order of their rows.
    pub fn spans(&self) -> impl Iterator<Item = Span<'_>> {
        let blocks = |i: usize| &self.blocks[self.block_offsets[i] as usize..self.block_offsets[i + 1] as usize];
        self.starts.iter().enumerate().map(move |(i, &start)| Span {
            first: self.row_offsets[i] as usize,
            len: (self.row_offsets[i + 1] - self.row_offsets[i]) as usize,
            start: start as usize,
            blocks: blocks(i),
        })
    }

    /// As the CPU's attention kernel takes it.
    pub(crate) fn ragged(&self) -> RaggedBatch<'_> {
        RaggedBatch {
            query_offsets: &self.row_offsets,
            starts: &self.starts,
            block_offsets: &self.block_offsets,
            blocks: &self.blocks,
        }
    }
}

impl Batch {
    /// Lays out a plan's rows over KV blocks of `block_size` tokens.
    ///
    /// # Errors
    /// [`Error::Plan`] if there is no row, a row is empty, or its block table too short for it.
    pub fn new(plan: &StepPlan<'_>, block_size: usize) -> Result<Self> {
        let total = plan.num_tokens();
        let mut tokens = Vec::with_capacity(total);
        let mut layout = Layout { row_offsets: vec![0], block_offsets: vec![0], ..Layout::default() };
        for row in &plan.rows {
            let end = row.start + row.tokens.len();
            let blocks = end.div_ceil(block_size);
            if row.tokens.is_empty() || row.blocks.len() < blocks {
                return Err(Error::Plan(format!(
                    "sequence {}: {} tokens from {} need {blocks} blocks, {} given",
                    row.seq.0,
                    row.tokens.len(),
                    row.start,
                    row.blocks.len()
                )));
            }
            tokens.extend_from_slice(row.tokens);
            layout.positions.extend((row.start..end).map(narrow));
            layout.slots.extend(
                (row.start..end).map(|p| row.blocks[p / block_size] * narrow(block_size) + narrow(p % block_size)),
            );
            layout.row_offsets.push(narrow(tokens.len()));
            layout.starts.push(narrow(row.start));
            layout.blocks.extend_from_slice(&row.blocks[..blocks]);
            layout.block_offsets.push(narrow(layout.blocks.len()));
        }
        if tokens.is_empty() {
            return Err(Error::Plan("no rows".into()));
        }
        let shape = [dim(tokens.len())];
        Ok(Self {
            tokens: Tensor::from_slice(&tokens, &shape),
            positions: Tensor::from_slice(&layout.positions, &shape),
            layout: Arc::new(layout),
        })
    }

    /// Rows in the batch.
    #[must_use]
    pub fn len(&self) -> usize {
        self.layout.positions.len()
    }

    /// Never: a batch has at least one row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.layout.positions.is_empty()
    }
}

/// A dimension as MLX counts it.
#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
pub(crate) fn dim(n: usize) -> i32 {
    debug_assert!(i32::try_from(n).is_ok(), "dimension {n} exceeds MLX's i32");
    n as i32
}

/// A position, slot or offset as kernels count it: contexts and pools stay far below 2³².
#[allow(clippy::cast_possible_truncation)]
fn narrow(n: usize) -> u32 {
    debug_assert!(u32::try_from(n).is_ok(), "{n} exceeds a u32");
    n as u32
}

#[cfg(test)]
mod tests {
    use vllm_platform::{Row, SeqId};

    use super::*;

    #[test]
    fn rows_of_all_sequences_stand_one_after_the_other() {
        let row = |start, tokens, blocks| Row { seq: SeqId(0), tokens, start, blocks, sample: None };
        let plan = StepPlan { rows: vec![row(3, &[11, 12, 13], &[7, 2, 9]), row(8, &[21], &[1, 4, 5])] };
        let batch = Batch::new(&plan, 4).expect("a sound plan");
        assert_eq!(batch.layout.positions, [3, 4, 5, 8]);
        assert_eq!(batch.layout.slots, [31, 8, 9, 20]);
        let spans: Vec<_> = batch.layout.spans().collect();
        assert_eq!(spans[0], Span { first: 0, len: 3, start: 3, blocks: &[7, 2] });
        assert_eq!(spans[1], Span { first: 3, len: 1, start: 8, blocks: &[1, 4, 5] });
    }

    #[test]
    fn a_short_block_table_is_refused() {
        let row = Row { seq: SeqId(5), tokens: &[1, 2], start: 3, blocks: &[7], sample: None };
        let error = Batch::new(&StepPlan { rows: vec![row] }, 4).map(drop).expect_err("too short").to_string();
        assert_eq!(error, "bad step plan: sequence 5: 2 tokens from 3 need 2 blocks, 1 given");
    }
}
