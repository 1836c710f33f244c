//! How much there is to do.

use super::Planner;
use crate::{Load, sequence::Sequence};

impl Planner {
    /// The load as far as it is known here.
    pub fn load(&self) -> Load {
        let waiting_uncached_tokens: usize = self.waiting.iter().map(Sequence::uncached_prompt).sum();
        let left: usize = self.running.iter().map(Sequence::pending_prompt).sum();
        let whole = self.cache.groups().iter().any(|group| group.window.is_none());
        let groups = self.cache.groups().iter().zip(self.cache.pools());
        let counted = groups.filter(|(group, _)| group.window.is_none() == whole).map(|(_, pool)| {
            let share = |blocks: usize| blocks as f64 / pool.capacity().max(1) as f64;
            (share(pool.in_use() + pool.kept()), share(pool.in_use()), pool.in_use() + pool.kept(), pool.capacity())
        });
        let fullest = counted.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or_default();
        let (kv_usage, active_kv_usage, used, blocks) = fullest;
        Load {
            running: self.running.len(),
            waiting: self.waiting.iter().count(),
            waiting_uncached_tokens,
            prefill_pending_tokens: waiting_uncached_tokens + left,
            kv_usage,
            active_kv_usage,
            used_tokens: used * self.cache.block_size(),
            max_tokens: blocks * self.cache.block_size(),
            cache_hit_rate: (self.stats.queries > 0).then(|| self.stats.hits as f64 / self.stats.queries as f64),
            max_running: self.limits.max_num_seqs,
            ..Load::default()
        }
    }

    /// Looks up what of the prompt of one of those that wait is in the cache, another one each time: to look all of them up
    /// at every step would cost more than the figure is worth.
    pub fn look_again(&mut self) {
        self.looked += 1;
        if let Some(sequence) = self.waiting.any_mut(self.looked) {
            sequence.look_up(&self.cache);
        }
    }
}
