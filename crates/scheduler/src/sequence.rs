//! A request as the planner sees it.

mod media;

use std::{collections::HashSet, sync::Arc};

use vllm_cache::{BlockHash, BlockTables, KvCache, Prefix};
use vllm_platform::{Row, SampleAt, SamplingParams, SeqId, TokenId, sampling::LogitsProcessor};

pub(crate) use self::media::{Media, Stage};
use crate::{Phase, Request, Usage};

/// Computed tokens chasing known tokens.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// In the order of arrival.
    pub id: SeqId,
    /// Lower is sooner.
    pub priority: i32,
    /// Whose it is.
    pub client: Option<Arc<str>>,
    /// By group: token `p` lives in `tables[group][p / block_size]`. Empty while it waits.
    pub tables: BlockTables,
    /// As in [`vllm_cache::Adopted`].
    pub floor: usize,
    /// Names of its prefixes.
    pub prefix: Prefix,
    /// Prefixes that are being read from the SSD for it: it waits for them.
    pub loading: HashSet<BlockHash>,
    /// Whether the SSD was asked already, since it last had to wait.
    pub looked_on_ssd: bool,
    /// What of the prompt stands for pictures.
    pub media: Media,
    /// Tokens of pictures whose features nobody had to work out, when it was first admitted.
    pub reused_media: usize,
    /// Tokens of the prompt that were found in the cache when it was first admitted.
    pub cached: Option<usize>,
    /// Tokens that were in the cache when it was last looked up, while it waits.
    expected: usize,
    /// Prompt, then the answer so far.
    tokens: Vec<TokenId>,
    prompt_len: usize,
    /// Tokens whose KV is in the blocks.
    computed: usize,
    params: SamplingParams,
    max_tokens: usize,
    stop_tokens: Vec<TokenId>,
    processors: Vec<Arc<dyn LogitsProcessor>>,
}

impl Sequence {
    pub fn new(id: SeqId, request: Request) -> Self {
        let (media, marks) = Media::new(request.media);
        Self {
            id,
            priority: request.priority,
            client: request.client,
            tables: Vec::new(),
            floor: 0,
            prefix: Prefix::with_media(request.cache_salt.as_deref(), marks),
            loading: HashSet::new(),
            looked_on_ssd: false,
            media,
            reused_media: 0,
            cached: None,
            expected: 0,
            prompt_len: request.prompt.len(),
            tokens: request.prompt,
            computed: 0,
            params: request.params,
            max_tokens: request.max_tokens,
            stop_tokens: request.stop_tokens,
            processors: request.processors,
        }
    }

    /// All that is known.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    pub fn computed(&self) -> usize {
        self.computed
    }

    /// Tokens that are known and not computed yet: at least one while it runs.
    pub fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Whether the prompt is done, and only the last token generated is pending.
    pub fn is_decoding(&self) -> bool {
        self.tokens.len() > self.prompt_len && self.pending() == 1
    }

    /// Whether the next token will be its first.
    pub fn has_no_output(&self) -> bool {
        self.tokens.len() == self.prompt_len
    }

    /// Prompt tokens not computed yet.
    pub fn pending_prompt(&self) -> usize {
        self.prompt_len.saturating_sub(self.computed)
    }

    pub fn prompt_len(&self) -> usize {
        self.prompt_len
    }

    pub fn max_tokens(&self) -> usize {
        self.max_tokens
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
            media: self.media.until(end),
            sample: (end == self.tokens.len()).then_some(sample),
        }
    }

    pub fn mark_computed(&mut self, count: usize) {
        self.computed += count;
        self.media.mark_computed(self.computed);
    }

    /// Names the blocks of all that is known.
    pub fn extend_prefix(&mut self, block_size: usize) {
        self.prefix.extend(&self.tokens, block_size);
    }

    /// Finds out how much of it is in the cache, for [`uncached_prompt`](Self::uncached_prompt).
    pub fn look_up(&mut self, cache: &KvCache) {
        self.expected = cache.find(&self.prefix, &self.tokens, true).tokens;
    }

    /// Tokens of its prompt that would have to be computed, as far as is known, while it waits.
    pub fn uncached_prompt(&self) -> usize {
        self.prompt_len.saturating_sub(self.expected)
    }

    /// Indexes the blocks that its computed tokens, once `from`, have filled.
    pub fn index_full(&mut self, cache: &mut KvCache, from: usize) {
        cache.index_full(&mut self.prefix, &self.tokens[..self.computed], from, &self.tables, self.floor);
    }

    /// Indexes what it has computed of its last block.
    pub fn index_partial(&mut self, cache: &mut KvCache) {
        cache.index_partial(&mut self.prefix, &self.tokens[..self.computed], &self.tables, self.floor);
    }

    /// Takes its tables, to wait or to end: nothing of it is computed any more.
    pub fn take_tables(&mut self) -> BlockTables {
        self.computed = 0;
        self.looked_on_ssd = false;
        self.media.start_again();
        std::mem::take(&mut self.tables)
    }

    pub fn push(&mut self, token: TokenId) {
        self.tokens.push(token);
    }

    /// Tells its logits processors of the last token, while there is still time before they are asked for the next.
    pub fn announce(&self) {
        let (prompt, output) = self.tokens.split_at(self.prompt_len);
        for processor in &self.processors {
            processor.sampled(prompt, output);
        }
    }

    pub fn ends_with_stop_token(&self) -> bool {
        self.output().last().is_some_and(|token| self.stop_tokens.contains(token))
    }

    pub fn is_full(&self) -> bool {
        self.output().len() >= self.max_tokens
    }

    pub fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.prompt_len,
            cached_tokens: self.cached.unwrap_or(0),
            media_tokens: self.media.tokens(self.prompt_len),
            cached_media_tokens: self.media.tokens(self.cached.unwrap_or(0)),
            reused_media_tokens: self.reused_media,
            completion_tokens: self.output().len(),
        }
    }

    /// Where it stands, if it is among those that run.
    pub fn running_phase(&self) -> Phase {
        if self.pending_prompt() > 0 || self.has_no_output() { Phase::Prefill } else { Phase::Decode }
    }

    /// Where it stands, if it is among those that wait.
    pub fn waiting_phase(&self) -> Phase {
        match (self.loading.is_empty(), self.media.stage()) {
            (false, _) => Phase::Loading,
            (true, Stage::Asking) => Phase::Encoding,
            (true, _) => Phase::Waiting,
        }
    }
}
