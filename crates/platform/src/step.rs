//! A step as a plain value: what to run, and what came out.

use std::sync::Arc;

use crate::{MediaSpan, SamplingParams, sampling::LogitsProcessor};

/// Id of a token in the model's vocabulary.
pub type TokenId = u32;

/// Index of a KV block in its group's pool.
pub type BlockId = u32;

/// Stands in a windowed group's block table where the block has been given back: nothing there is read again.
pub const NO_BLOCK: BlockId = BlockId::MAX;

/// A sequence, from its admission to its end. Never reused within a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeqId(pub u64);

/// One step of the engine: a ragged batch of prefill chunks and decode tokens.
///
/// ```
/// use vllm_platform::{Row, SeqId, StepPlan};
///
/// // Five tokens of a prompt whose first three are in the cache already; block size 4.
/// let tables = [vec![7, 2]];
/// let row = Row { seq: SeqId(1), tokens: &[11, 12, 13, 14, 15], start: 3, tables: &tables, media: &[], sample: None };
/// let plan = StepPlan { copies: Vec::new(), rows: vec![row] };
/// assert_eq!(plan.num_tokens(), 5);
/// ```
#[derive(Debug, Clone, Default)]
pub struct StepPlan<'a> {
    /// Blocks to copy before anything is computed, in order: a sequence is to go on where another's block ends.
    pub copies: Vec<BlockCopy>,
    /// What to compute, one row a sequence, in no particular order.
    pub rows: Vec<Row<'a>>,
}

impl StepPlan<'_> {
    /// Tokens computed in this step.
    #[must_use]
    pub fn num_tokens(&self) -> usize {
        self.rows.iter().map(|row| row.tokens.len()).sum()
    }
}

/// A block whose content another one takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockCopy {
    /// Index into [`KvCacheSpec::groups`](crate::KvCacheSpec::groups).
    pub group: usize,
    /// Block to read.
    pub from: BlockId,
    /// Block to write.
    pub to: BlockId,
    /// Tokens, counted from the block's start, that have to be there afterwards.
    pub tokens: usize,
}

/// A sequence's share of a step.
#[derive(Debug, Clone)]
pub struct Row<'a> {
    /// Whose tokens these are.
    pub seq: SeqId,
    /// Tokens to compute, at least one.
    pub tokens: &'a [TokenId],
    /// Position of `tokens[0]`: the tokens before it are in the KV cache.
    pub start: usize,
    /// The sequence's block tables, one for each of [`KvCacheSpec::groups`](crate::KvCacheSpec::groups): token `p`
    /// lives in `tables[group][p / block_size]`. Each covers `start + tokens.len()`; that of a windowed group has
    /// [`NO_BLOCK`] for blocks that no token of the row reads.
    pub tables: &'a [Vec<BlockId>],
    /// All media of the sequence up to the row's end, in order, without overlaps.
    pub media: &'a [MediaSpan],
    /// Sample a token after the last of `tokens`.
    pub sample: Option<SampleAt<'a>>,
}

/// How to sample at the end of a row.
#[derive(Debug, Clone)]
pub struct SampleAt<'a> {
    /// The request's own parameters.
    pub params: &'a SamplingParams,
    /// The prompt, for the repetition penalty.
    pub prompt: &'a [TokenId],
    /// The answer so far, for the penalties; its length also steps the random generator.
    pub output: &'a [TokenId],
    /// The request's own changes to the logits, applied in order before everything that `params` says.
    pub processors: &'a [Arc<dyn LogitsProcessor>],
}

/// What came out of a step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepOutput {
    /// One entry for each row that asked, in the rows' order.
    pub sampled: Vec<Sampled>,
}

/// A sampled token.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// Whose it is.
    pub seq: SeqId,
    /// The token.
    pub token: TokenId,
    /// If [`SamplingParams::logprobs`] asked for them.
    pub logprobs: Option<TokenLogprobs>,
}

/// Log probabilities at one position, of the model's own distribution (before penalties and temperature).
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// Natural logarithm of the sampled token's probability.
    pub sampled: f32,
    /// How many tokens are at least as probable as the sampled one, which is one of them: 1 for the most probable.
    pub rank: usize,
    /// The most probable tokens, best first.
    pub top: Vec<Logprob>,
}

/// A token and its log probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Logprob {
    /// The token.
    pub token: TokenId,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}
