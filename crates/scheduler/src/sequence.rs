//! A request as the planner sees it.

use std::sync::Arc;

use vllm_platform::{BlockId, Row, SampleAt, SamplingParams, SeqId, TokenId, sampling::LogitsProcessor};

use crate::{Request, Usage};

/// Computed tokens chasing known tokens.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub id: SeqId,
    /// Prompt, then the answer so far.
    tokens: Vec<TokenId>,
    prompt_len: usize,
    /// Tokens whose KV is in the blocks.
    computed: usize,
    /// By group: token `p` lives in `tables[group][p / block_size]`.
    pub tables: Vec<Vec<BlockId>>,
    params: SamplingParams,
    max_tokens: usize,
    stop_tokens: Vec<TokenId>,
    processors: Vec<Arc<dyn LogitsProcessor>>,
}

impl Sequence {
    pub fn new(id: SeqId, request: Request) -> Self {
        Self {
            id,
            prompt_len: request.prompt.len(),
            tokens: request.prompt,
            computed: 0,
            tables: Vec::new(),
            params: request.params,
            max_tokens: request.max_tokens,
            stop_tokens: request.stop_tokens,
            processors: request.processors,
        }
    }

    /// Tokens whose KV it will ever need: the last one generated is never computed.
    pub fn most_computed(&self) -> usize {
        self.prompt_len + self.max_tokens - 1
    }

    /// Tokens that are known and not computed yet: at least one while it runs.
    pub fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Whether the prompt is done, and only the last token generated is pending.
    pub fn is_decoding(&self) -> bool {
        self.tokens.len() > self.prompt_len && self.pending() == 1
    }

    /// Prompt tokens not computed yet.
    pub fn pending_prompt(&self) -> usize {
        self.prompt_len.saturating_sub(self.computed)
    }

    pub fn output(&self) -> &[TokenId] {
        &self.tokens[self.prompt_len..]
    }

    /// The row for its next `count` tokens.
    pub fn row(&self, count: usize) -> Row<'_> {
        let end = self.computed + count;
        let (prompt, output) = self.tokens.split_at(self.prompt_len);
        let sample = SampleAt { params: &self.params, prompt, output, processors: &self.processors };
        Row {
            seq: self.id,
            tokens: &self.tokens[self.computed..end],
            start: self.computed,
            tables: &self.tables,
            sample: (end == self.tokens.len()).then_some(sample),
        }
    }

    pub fn mark_computed(&mut self, count: usize) {
        self.computed += count;
    }

    pub fn push(&mut self, token: TokenId) {
        self.tokens.push(token);
    }

    pub fn ends_with_stop_token(&self) -> bool {
        self.output().last().is_some_and(|token| self.stop_tokens.contains(token))
    }

    pub fn is_full(&self) -> bool {
        self.output().len() >= self.max_tokens
    }

    pub fn usage(&self) -> Usage {
        Usage { prompt_tokens: self.prompt_len, cached_tokens: 0, completion_tokens: self.output().len() }
    }
}
