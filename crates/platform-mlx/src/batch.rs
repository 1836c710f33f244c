//! A ragged batch on the device.

use std::sync::Arc;

use vllm_platform::{BlockId, StepPlan};

use crate::{Error, Result, Tensor};

/// Where one sequence's rows stand in the batch, and where its KV lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// First row of the batch's matrices.
    pub first: usize,
    /// Rows, one a token.
    pub len: usize,
    /// Position of the first row's token in its sequence; the KV of the tokens before it is stored already.
    pub start: usize,
    /// Block table: token `p` lives in `blocks[p / block_size]`.
    pub blocks: Vec<BlockId>,
}

/// Tokens of all sequences of a step, prefill chunks and decode tokens alike, in one ragged row.
///
/// Only [`crate::kv::KvStore::attend`] knows about sequences; everything else in a model works row by row.
pub struct Batch {
    /// Token ids, `[tokens]`, u32.
    pub tokens: Tensor,
    /// Position of each token in its sequence, `[tokens]`, u32.
    pub positions: Tensor,
    /// The same positions, on the host.
    pub host_positions: Arc<[u32]>,
    /// The sequences, in the order of their rows.
    pub spans: Arc<[Span]>,
}

impl Batch {
    /// Lays out a plan's rows.
    ///
    /// # Errors
    /// [`Error::Plan`] if a row is empty or its block table too short for it.
    pub fn new(plan: &StepPlan<'_>, block_size: usize) -> Result<Self> {
        let total = plan.num_tokens();
        let mut tokens = Vec::with_capacity(total);
        let mut positions = Vec::with_capacity(total);
        let mut spans = Vec::with_capacity(plan.rows.len());
        for row in &plan.rows {
            let end = row.start + row.tokens.len();
            if row.tokens.is_empty() || row.blocks.len() * block_size < end {
                return Err(Error::Plan(format!(
                    "sequence {}: {} tokens from {} need {} blocks, {} given",
                    row.seq.0,
                    row.tokens.len(),
                    row.start,
                    end.div_ceil(block_size),
                    row.blocks.len()
                )));
            }
            spans.push(Span {
                first: tokens.len(),
                len: row.tokens.len(),
                start: row.start,
                blocks: row.blocks[..end.div_ceil(block_size)].to_vec(),
            });
            tokens.extend_from_slice(row.tokens);
            // Contexts are checked against the model's, far below 2^31.
            positions.extend((row.start..end).map(|p| dim(p).cast_unsigned()));
        }
        if tokens.is_empty() {
            return Err(Error::Plan("no rows".into()));
        }
        let shape = [dim(tokens.len())];
        Ok(Self {
            tokens: Tensor::from_slice(&tokens, &shape),
            positions: Tensor::from_slice(&positions, &shape),
            host_positions: positions.into(),
            spans: spans.into(),
        })
    }

    /// Rows in the batch.
    #[must_use]
    pub fn len(&self) -> usize {
        self.host_positions.len()
    }

    /// Never: a batch has at least one row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.host_positions.is_empty()
    }
}

/// A dimension as MLX counts it.
#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
pub(crate) fn dim(n: usize) -> i32 {
    debug_assert!(i32::try_from(n).is_ok(), "dimension {n} exceeds MLX's i32");
    n as i32
}
