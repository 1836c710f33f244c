//! Which tokens of which sequence the next step computes. Plain state, no thread, no clock.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use vllm_cache::BlockPool;
use vllm_platform::{KvCacheSpec, Sampled, SeqId, StepPlan};

use crate::{BlockStats, FinishReason, GeneratedToken, sequence::Sequence};

/// Bounds of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Sequences that run at once.
    pub max_num_seqs: usize,
    /// Tokens computed in one step; at least `max_num_seqs`, so that every answer gets on at every step.
    pub max_num_batched_tokens: usize,
}

/// What a step did to one sequence.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub seq: SeqId,
    /// The token to hand out: none if it is a stop token.
    pub token: Option<GeneratedToken>,
    /// The sequence, if it ended: the planner has forgotten it.
    pub ended: Option<(FinishReason, Sequence)>,
}

/// Admits sequences first come, first served, and shares out each step's budget.
#[derive(Debug)]
pub(crate) struct Planner {
    limits: Limits,
    block_size: usize,
    pools: Vec<BlockPool>,
    waiting: VecDeque<Sequence>,
    /// In the order of admission.
    running: Vec<Sequence>,
    /// Indices into `running` and tokens of each in the step under way.
    shares: Vec<(usize, usize)>,
}

impl Planner {
    pub fn new(limits: Limits, kv: &KvCacheSpec) -> Self {
        Self {
            limits,
            block_size: kv.block_size,
            pools: kv.groups.iter().map(|group| BlockPool::new(group.num_blocks)).collect(),
            waiting: VecDeque::new(),
            running: Vec::new(),
            shares: Vec::new(),
        }
    }

    pub fn running(&self) -> usize {
        self.running.len()
    }

    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    pub fn blocks(&self) -> Vec<BlockStats> {
        let stats =
            |pool: &BlockPool| BlockStats { total: pool.capacity(), in_use: pool.in_use(), ..Default::default() };
        self.pools.iter().map(stats).collect()
    }

    pub fn add(&mut self, sequence: Sequence) {
        self.waiting.push_back(sequence);
    }

    /// Forgets a sequence, wherever it stands.
    pub fn remove(&mut self, seq: SeqId) -> Option<Sequence> {
        if let Some(index) = self.running.iter().position(|s| s.id == seq) {
            let sequence = self.running.remove(index);
            self.release(&sequence);
            return Some(sequence);
        }
        let index = self.waiting.iter().position(|s| s.id == seq)?;
        self.waiting.remove(index)
    }

    /// Shares out the next step's budget; returns the sequences that it admitted.
    ///
    /// Decode tokens come first, so that no prompt stalls an answer, then prompts in the order of admission. A
    /// sequence gets its blocks for prompt and answer at once: once admitted, it can always run to its end.
    pub fn schedule(&mut self) -> Vec<SeqId> {
        self.shares.clear();
        let mut budget = self.limits.max_num_batched_tokens;
        for decoding in [true, false] {
            for (index, sequence) in self.running.iter().enumerate() {
                if budget > 0 && sequence.is_decoding() == decoding {
                    let count = sequence.pending().min(budget);
                    self.shares.push((index, count));
                    budget -= count;
                }
            }
        }
        let mut admitted = Vec::new();
        while budget > 0 && self.running.len() < self.limits.max_num_seqs {
            let Some(first) = self.waiting.front() else { break };
            let needed = first.most_computed().div_ceil(self.block_size);
            // Nobody overtakes: a long request would otherwise wait for ever behind short ones.
            if self.pools.iter().any(|pool| pool.available() < needed) {
                break;
            }
            let Some(mut sequence) = self.waiting.pop_front() else { break };
            sequence.tables = self.pools.iter_mut().filter_map(|pool| pool.allocate(needed)).collect();
            let count = sequence.pending().min(budget);
            budget -= count;
            admitted.push(sequence.id);
            self.shares.push((self.running.len(), count));
            self.running.push(sequence);
        }
        admitted
    }

    /// The step that [`Planner::schedule`] decided on.
    pub fn step_plan(&self) -> StepPlan<'_> {
        StepPlan {
            copies: Vec::new(),
            rows: self.shares.iter().map(|&(index, count)| self.running[index].row(count)).collect(),
        }
    }

    /// Prompt tokens among those of the step.
    pub fn prompt_tokens(&self) -> usize {
        self.shares.iter().map(|&(index, count)| count.min(self.running[index].pending_prompt())).sum()
    }

    /// Takes in what the step gave: one entry of `sampled` for each row that asked, in the rows' order.
    ///
    /// # Errors
    /// If `sampled` isn't that; nothing changes then.
    pub fn complete(&mut self, sampled: Vec<Sampled>) -> Result<Vec<Outcome>, String> {
        let plan = self.step_plan();
        let asked = plan.rows.iter().filter(|row| row.sample.is_some()).map(|row| row.seq);
        if !asked.eq(sampled.iter().map(|s| s.seq)) {
            return Err(format!("the runner answered for other rows than asked: {} tokens", sampled.len()));
        }
        for &(index, count) in &self.shares {
            self.running[index].mark_computed(count);
        }
        self.shares.clear();
        Ok(sampled.into_iter().filter_map(|sampled| self.take_in(sampled)).collect())
    }

    fn take_in(&mut self, sampled: Sampled) -> Option<Outcome> {
        let index = self.running.iter().position(|s| s.id == sampled.seq)?;
        let sequence = &mut self.running[index];
        sequence.push(sampled.token);
        let stopped = sequence.ends_with_stop_token();
        let reason = match (stopped, sequence.is_full()) {
            (true, _) => Some(FinishReason::Stop),
            (false, true) => Some(FinishReason::Length),
            (false, false) => None,
        };
        let ended = reason.map(|reason| {
            let sequence = self.running.remove(index);
            self.release(&sequence);
            (reason, sequence)
        });
        let token = (!stopped).then_some(GeneratedToken { token: sampled.token, logprobs: sampled.logprobs });
        Some(Outcome { seq: sampled.seq, token, ended })
    }

    /// Forgets the sequences of a step that failed.
    pub fn fail(&mut self) -> Vec<Sequence> {
        let mut indices: Vec<usize> = self.shares.drain(..).map(|(index, _)| index).collect();
        indices.sort_unstable_by(|a, b| b.cmp(a));
        let failed: Vec<Sequence> = indices.into_iter().map(|index| self.running.remove(index)).collect();
        for sequence in &failed {
            self.release(sequence);
        }
        failed
    }

    fn release(&mut self, sequence: &Sequence) {
        for (pool, table) in self.pools.iter_mut().zip(&sequence.tables) {
            table.iter().for_each(|&block| drop(pool.release(block)));
        }
    }
}
