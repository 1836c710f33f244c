//! Forgetting all prefixes.

use std::time::Instant;

use tokio::sync::oneshot;

use super::EngineLoop;
use crate::FlushError;

/// Somebody who wants all prefixes forgotten once there are no requests.
pub(super) struct Flush {
    /// When it will be too late.
    pub until: Instant,
    pub reply: oneshot::Sender<Result<usize, FlushError>>,
}

impl EngineLoop {
    pub(super) fn clear_cache(&mut self) -> usize {
        if let Some(tier) = &mut self.tier {
            tier.clear();
        }
        let blocks = self.planner.clear_cache();
        // An idle engine takes no turn that would do it.
        self.recorder.record(self.planner.cache());
        self.publish();
        blocks
    }

    /// Does what those wait for who want the cache flushed, or tells them that their time is up.
    pub(super) fn flush_if_idle(&mut self) {
        if self.flushes.is_empty() {
            return;
        }
        if self.planner.is_idle() {
            let blocks = self.clear_cache();
            for Flush { reply, .. } in self.flushes.drain(..) {
                let _ = reply.send(Ok(blocks));
            }
            return;
        }
        let now = Instant::now();
        let running = self.planner.running().len();
        let waiting = self.planner.waiting().count();
        for Flush { reply, .. } in self.flushes.extract_if(.., |flush| flush.until <= now) {
            let _ = reply.send(Err(FlushError::InFlight { running, waiting }));
        }
    }
}
