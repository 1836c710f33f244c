//! Which tokens of which sequence the next step computes. Plain state, no thread, no clock.

mod admission;
mod load;
mod media;
mod prefill;
pub(crate) mod queue;
mod ssd;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use vllm_cache::{BlockHash, KvCache};
use vllm_platform::{BlockCopy, KvCacheSpec, Sampled, SeqId, StepPlan};

pub(crate) use self::media::MediaNews;
use self::queue::{Queue, Shares};
use crate::{BlockStats, FinishReason, GeneratedToken, PrefixCacheStats, sequence::Sequence};

/// Bounds of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Sequences that run at once.
    pub max_num_seqs: usize,
    /// Tokens computed in one step; at least `max_num_seqs`, so that every answer gets on at every step.
    pub max_num_batched_tokens: usize,
    /// Of these, tokens of one prompt.
    pub prefill_step_size: usize,
}

/// Whom a step let in and whom it sent back.
#[derive(Debug, Default)]
pub(crate) struct Scheduled {
    pub admitted: Vec<Admitted>,
    pub preempted: Vec<SeqId>,
}

/// A sequence that starts, or starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Admitted {
    pub seq: SeqId,
    /// Tokens found in the cache.
    pub cached: usize,
}

/// What a step did to one sequence.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub seq: SeqId,
    /// The token to hand out: none if it is a stop token.
    pub token: Option<GeneratedToken>,
    /// The stop token, if it is one.
    pub stop: Option<GeneratedToken>,
    /// The sequence, if it ended: the planner has forgotten it.
    pub ended: Option<(FinishReason, Sequence)>,
}

/// A sequence's part of the step under way.
#[derive(Debug, Clone, Copy)]
struct Share {
    /// Index into the running sequences.
    index: usize,
    /// Tokens.
    count: usize,
}

/// Admits sequences, shares out each step's budget, and keeps the books on their blocks.
///
/// A sequence gets the blocks of all that is known of it when it is admitted, and more as it grows. When there are none
/// left, sequences of a worse rank give theirs up and wait to be computed again, the newest first; since what they had
/// computed stays in the prefix cache as long as there is room, that is often no more than looking it up.
#[derive(Debug)]
pub(crate) struct Planner {
    limits: Limits,
    cache: KvCache,
    waiting: Queue,
    running: Vec<Sequence>,
    clients: Shares,
    /// The step under way.
    shares: Vec<Share>,
    copies: Vec<BlockCopy>,
    /// Prefixes being read from the SSD.
    reading: HashSet<BlockHash>,
    /// It is not known yet what the SSD has: all wait for that.
    searching: bool,
    /// Prefixes found, of those the SSD has too.
    touched: Vec<BlockHash>,
    stats: PrefixCacheStats,
    preemptions: u64,
    /// Times that [`Planner::look_again`] was called.
    looked: usize,
}

impl Planner {
    pub fn new(limits: Limits, kv: &KvCacheSpec, prefix_cache: bool) -> Self {
        Self {
            limits,
            cache: KvCache::new(kv, prefix_cache),
            waiting: Queue::default(),
            running: Vec::new(),
            clients: Shares::default(),
            shares: Vec::new(),
            copies: Vec::new(),
            reading: HashSet::new(),
            searching: false,
            touched: Vec::new(),
            stats: PrefixCacheStats { enabled: prefix_cache, ..PrefixCacheStats::default() },
            preemptions: 0,
            looked: 0,
        }
    }

    pub fn running(&self) -> &[Sequence] {
        &self.running
    }

    pub fn waiting(&self) -> impl Iterator<Item = &Sequence> {
        self.waiting.iter()
    }

    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    pub fn blocks(&self) -> Vec<BlockStats> {
        let pools = self.cache.pools().iter().zip(self.cache.groups());
        pools
            .map(|(pool, group)| BlockStats {
                total: pool.capacity(),
                in_use: pool.in_use(),
                cached: pool.kept(),
                block_bytes: group.block_bytes,
            })
            .collect()
    }

    pub fn prefix_cache(&self) -> PrefixCacheStats {
        let cache = self.cache.stats();
        PrefixCacheStats { evictions: cache.evictions, indexed_blocks: cache.indexed_blocks, ..self.stats }
    }

    pub fn preemptions(&self) -> u64 {
        self.preemptions
    }

    pub fn add(&mut self, mut sequence: Sequence) {
        sequence.extend_prefix(self.cache.block_size());
        sequence.look_up(&self.cache);
        self.clients.arrive(&sequence.client);
        self.waiting.push(sequence);
    }

    /// Forgets a sequence, wherever it stands.
    pub fn remove(&mut self, seq: SeqId) -> Option<Sequence> {
        let sequence = match self.position(seq) {
            Some(index) => self.stop(index),
            None => self.waiting.remove(seq)?,
        };
        self.clients.leave(&sequence.client);
        Some(sequence)
    }

    fn position(&self, seq: SeqId) -> Option<usize> {
        self.running.iter().position(|s| s.id == seq)
    }

    /// Takes a sequence out of the running ones. What it computed stays in the cache.
    fn stop(&mut self, index: usize) -> Sequence {
        let mut sequence = self.running.remove(index);
        sequence.index_partial(&mut self.cache);
        self.cache.release_tables(&sequence.take_tables());
        self.clients.stop(&sequence.client);
        sequence
    }

    fn preempt(&mut self, index: usize, scheduled: &mut Scheduled) {
        let mut sequence = self.stop(index);
        sequence.extend_prefix(self.cache.block_size());
        sequence.look_up(&self.cache);
        self.preemptions += 1;
        scheduled.preempted.push(sequence.id);
        self.waiting.push(sequence);
    }

    /// Shares out the next step's budget.
    ///
    /// Decode tokens come first, so that no prompt stalls an answer. Then sequences that wait are admitted as far as
    /// there are places and blocks, and prompts share what is left of the budget. There is something to compute
    /// afterwards unless nobody runs and all who wait do so for the SSD or for features. The budget is exceeded for a span
    /// of media that has to be computed in one step, one of them a step.
    pub fn schedule(&mut self) -> Scheduled {
        let mut scheduled = Scheduled::default();
        self.shares.clear();
        let mut granted: Vec<(SeqId, usize)> = Vec::new();
        let mut short_of_blocks = false;
        for seq in self.ranked(|s| s.is_decoding()) {
            match self.grow(seq, 1, &mut scheduled) {
                Growth::Done => granted.push((seq, 1)),
                Growth::NoRoom => short_of_blocks = true,
                Growth::Gone => {}
            }
        }
        let budget = self.limits.max_num_batched_tokens.saturating_sub(granted.len());
        short_of_blocks |= !scheduled.preempted.is_empty();
        if budget > 0 && !short_of_blocks && !self.searching {
            self.admit(&mut scheduled);
        }
        let mut prompts = self.ranked(|s| !s.is_decoding());
        prompts.sort_by_key(|&seq| {
            let sequence = self.position(seq).map(|index| &self.running[index]);
            sequence.map(|s| (s.priority, self.clients.served(&s.client), s.id))
        });
        let pending = |&seq: &SeqId| self.position(seq).map_or(0, |index| self.running[index].pending());
        let pending: Vec<usize> = prompts.iter().map(pending).collect();
        let counts = prefill::share_out(budget, self.limits.prefill_step_size, &pending);
        let mut exceeded = false;
        for (seq, count) in prompts.into_iter().zip(counts).filter(|&(_, count)| count > 0) {
            let count = self.without_cuts(seq, count, &mut exceeded);
            if count > 0 && self.grow(seq, count, &mut scheduled) == Growth::Done {
                granted.push((seq, count));
            }
        }
        let share = |(seq, count)| Some(Share { index: self.position(seq)?, count });
        self.shares = granted.into_iter().filter_map(share).collect();
        scheduled
    }

    /// `count` tokens of a running sequence, or so many that no span is cut in two that has to be computed in one step.
    /// More than `count` only once a step, which is written down in `exceeded`; then others wait.
    fn without_cuts(&self, seq: SeqId, count: usize, exceeded: &mut bool) -> usize {
        let Some(index) = self.position(seq) else { return 0 };
        let sequence = &self.running[index];
        let from = sequence.computed();
        let fitting = sequence.media.end_of_step(from, from + count) - from;
        if fitting <= count {
            return fitting;
        }
        if std::mem::replace(exceeded, true) { 0 } else { fitting }
    }

    /// Running sequences that `wanted` admits, those first that are preempted last.
    fn ranked(&self, wanted: impl Fn(&Sequence) -> bool) -> Vec<SeqId> {
        let mut ranked: Vec<_> = self.running.iter().filter(|s| wanted(s)).map(rank).collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, seq)| seq).collect()
    }

    /// Gets a running sequence the blocks for its next `count` tokens, at the cost of those of a worse rank.
    fn grow(&mut self, seq: SeqId, count: usize, scheduled: &mut Scheduled) -> Growth {
        for group in 0..self.cache.groups().len() {
            loop {
                let Some(index) = self.position(seq) else { return Growth::Gone };
                let sequence = &self.running[index];
                let wanted = (sequence.computed() + count).div_ceil(self.cache.block_size());
                if sequence.tables[group].len() >= wanted {
                    break;
                }
                if let Some(block) = self.cache.allocate(group) {
                    self.running[index].tables[group].push(block);
                    continue;
                }
                let own = rank(sequence);
                let worse = self.running.iter().enumerate().filter(|(_, s)| rank(s) > own);
                let Some((victim, _)) = worse.max_by_key(|(_, s)| rank(s)) else { return Growth::NoRoom };
                self.preempt(victim, scheduled);
            }
        }
        Growth::Done
    }

    /// The step that [`Planner::schedule`] decided on.
    pub fn step_plan(&self) -> StepPlan<'_> {
        let rows = self.shares.iter().map(|share| self.running[share.index].row(share.count)).collect();
        StepPlan { copies: self.copies.clone(), rows }
    }

    /// Tokens of each sequence in the step, and whether they are of its prompt.
    pub fn step_shares(&self) -> impl Iterator<Item = (SeqId, usize, bool)> + '_ {
        self.shares.iter().map(|&Share { index, count }| {
            let sequence = &self.running[index];
            (sequence.id, count, !sequence.is_decoding())
        })
    }

    /// Prompt tokens among those of the step.
    pub fn prompt_tokens(&self) -> usize {
        self.shares.iter().map(|share| share.count.min(self.running[share.index].pending_prompt())).sum()
    }

    /// Takes in what the step gave: one entry of `sampled` for each row that asked, in the rows' order.
    ///
    /// # Errors
    /// If `sampled` isn't that; nothing changes then.
    pub fn complete(&mut self, sampled: Vec<Sampled>) -> Result<Vec<Outcome>, String> {
        let asks = |share: &&Share| share.count == self.running[share.index].pending();
        let asked = self.shares.iter().filter(asks).map(|share| self.running[share.index].id);
        if !asked.eq(sampled.iter().map(|s| s.seq)) {
            return Err(format!("the runner answered for other rows than asked: {} tokens", sampled.len()));
        }
        for share in std::mem::take(&mut self.shares) {
            self.mark_computed(share);
        }
        self.end_copies();
        Ok(sampled.into_iter().filter_map(|sampled| self.take_in(sampled)).collect())
    }

    /// Books a share as computed, and indexes what it filled.
    fn mark_computed(&mut self, Share { index, count }: Share) {
        let sequence = &mut self.running[index];
        let from = sequence.computed();
        let was_prompt = from < sequence.prompt_len();
        sequence.mark_computed(count);
        sequence.index_full(&mut self.cache, from);
        if was_prompt && sequence.pending_prompt() == 0 {
            // Others that begin with this prompt need not wait for the end of the answer.
            sequence.index_partial(&mut self.cache);
        } else if !was_prompt && self.cache.rewind().is_some() {
            // The block has grown past what was indexed, and can perhaps no longer be cut back that far.
            let place = (sequence.computed() - 1) / self.cache.block_size();
            for (group, table) in sequence.tables.iter().enumerate() {
                self.cache.distrust(group, table[place]);
            }
        }
        let computed = sequence.computed();
        self.cache.release_behind_windows(&mut sequence.tables, computed);
        self.clients.charge(&sequence.client, count);
    }

    /// The blocks copied from are nobody's any more.
    fn end_copies(&mut self) {
        for copy in std::mem::take(&mut self.copies) {
            self.cache.release(copy.group, copy.from);
        }
    }

    fn take_in(&mut self, sampled: Sampled) -> Option<Outcome> {
        let index = self.position(sampled.seq)?;
        let sequence = &mut self.running[index];
        sequence.push(sampled.token);
        let stopped = sequence.ends_with_stop_token();
        let reason = match (stopped, sequence.is_full()) {
            (true, _) => Some(FinishReason::Stop),
            (false, true) => Some(FinishReason::Length),
            (false, false) => {
                sequence.announce();
                None
            }
        };
        let ended = reason.and_then(|reason| Some((reason, self.remove(sampled.seq)?)));
        let generated = GeneratedToken { token: sampled.token, logprobs: sampled.logprobs };
        let (token, stop) = if stopped { (None, Some(generated)) } else { (Some(generated), None) };
        Some(Outcome { seq: sampled.seq, token, stop, ended })
    }

    /// Forgets the sequences of a step that failed. Those that were admitted and had no part in it wait again.
    pub fn fail(&mut self) -> Vec<Sequence> {
        // Nobody knows what the step did to the blocks that it was to write.
        let copied: HashSet<_> = self.copies.iter().map(|copy| (copy.group, copy.to)).collect();
        for &(group, block) in &copied {
            self.cache.distrust(group, block);
        }
        let mut failed: Vec<SeqId> = Vec::new();
        for share in std::mem::take(&mut self.shares) {
            let sequence = &self.running[share.index];
            let written = sequence.computed() / self.cache.block_size();
            for (group, table) in sequence.tables.iter().enumerate() {
                table.iter().skip(written).for_each(|&block| self.cache.distrust(group, block));
            }
            failed.push(sequence.id);
        }
        self.end_copies();
        let has_copy = |s: &Sequence| {
            let mut tables = s.tables.iter().enumerate();
            tables.any(|(group, table)| table.iter().any(|&block| copied.contains(&(group, block))))
        };
        for seq in self.ranked(|s| has_copy(s) && !failed.contains(&s.id)) {
            if let Some(sequence) = self.stop_unindexed(seq) {
                self.waiting.push(sequence);
            }
        }
        let gone = failed.into_iter().filter_map(|seq| self.stop_unindexed(seq));
        let gone: Vec<Sequence> = gone.collect();
        gone.iter().for_each(|sequence| self.clients.leave(&sequence.client));
        gone
    }

    /// Takes a sequence out of the running ones whose last block cannot be relied on.
    fn stop_unindexed(&mut self, seq: SeqId) -> Option<Sequence> {
        let mut sequence = self.running.remove(self.position(seq)?);
        self.cache.release_tables(&sequence.take_tables());
        self.clients.stop(&sequence.client);
        Some(sequence)
    }

    /// Nothing that was computed is there any more: who runs waits to be computed again from its first token.
    pub fn forget_kv(&mut self) {
        for seq in self.ranked(|_| true) {
            if let Some(mut sequence) = self.stop_unindexed(seq) {
                sequence.extend_prefix(self.cache.block_size());
                self.waiting.push(sequence);
            }
        }
        self.cache.clear();
    }

    /// Forgets all prefixes in memory; says how many blocks it were.
    pub fn clear_cache(&mut self) -> usize {
        self.cache.clear()
    }
}

/// Whether a sequence got its blocks.
#[derive(Debug, PartialEq, Eq)]
enum Growth {
    Done,
    /// All blocks are held by sequences of a better rank.
    NoRoom,
    /// It was preempted meanwhile.
    Gone,
}

/// Preempted last come first: by priority, then the oldest.
fn rank(sequence: &Sequence) -> (i32, SeqId) {
    (sequence.priority, sequence.id)
}
