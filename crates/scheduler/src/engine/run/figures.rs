//! What the engine's thread shows of itself.

use std::time::{Duration, Instant};

use vllm_platform::SeqId;

use super::{EngineLoop, Profiled};
use crate::{Profile, RequestStatus, engine::tier::Tier, handle::lock};

/// How old the memory figures may get while the engine works.
const MEMORY_AGE: Duration = Duration::from_millis(200);

impl EngineLoop {
    pub(super) fn describe(&self) -> Vec<RequestStatus> {
        let running = self.planner.running().iter().map(|s| (s, s.running_phase()));
        let waiting = self.planner.waiting().map(|s| (s, s.waiting_phase()));
        let mut described: Vec<(SeqId, RequestStatus)> = running
            .chain(waiting)
            .filter_map(|(sequence, phase)| {
                let client = self.clients.get(&sequence.id)?;
                let status = RequestStatus {
                    id: client.id.clone(),
                    phase,
                    priority: sequence.priority,
                    prompt_tokens: sequence.prompt_len(),
                    cached_tokens: sequence.usage().cached_tokens,
                    computed_tokens: sequence.computed(),
                    generated_tokens: sequence.output().len(),
                    max_tokens: sequence.max_tokens(),
                    age: client.submitted.elapsed(),
                    ttft: client.ttft(),
                };
                Some((sequence.id, status))
            })
            .collect();
        described.sort_by_key(|(seq, _)| *seq);
        described.into_iter().map(|(_, status)| status).collect()
    }

    pub(super) fn profile(&mut self) -> Profile {
        let Profiled { since, steps, in_steps } = std::mem::replace(&mut self.profiled, Profiled::new());
        Profile { steps, wall: since.elapsed(), in_steps, work: self.runner.profile() }
    }

    /// Starts the watchdog's clock if there is work and it doesn't run yet, and stops it if there is none.
    pub(super) fn note_work(&self) {
        let mut busy_since = lock(&self.shared.busy_since);
        let idle = self.planner.is_idle() || self.planner.waits_for_others();
        *busy_since = if idle { None } else { busy_since.or_else(|| Some(Instant::now())) };
    }

    /// Shows the figures to the handles.
    pub(super) fn publish(&mut self) {
        self.note_work();
        self.stats.running = self.planner.running().len();
        self.stats.blocks = self.planner.blocks();
        self.stats.prefix_cache = self.planner.prefix_cache();
        self.stats.preemptions = self.planner.preemptions();
        self.stats.ssd = self.tier.as_ref().map(Tier::stats);
        lock(&self.shared.stats).clone_from(&self.stats);
        if let Some(sample) = self.shared.load.update(self.planner.load()) {
            self.load_changes.send_replace(sample);
        }
        let old = self.memory_read.is_none_or(|then| then.elapsed() > MEMORY_AGE);
        if (old || self.planner.is_idle())
            && let Ok(memory) = self.runner.memory()
        {
            *lock(&self.shared.memory) = memory;
            self.memory_read = Some(Instant::now());
        }
    }
}
