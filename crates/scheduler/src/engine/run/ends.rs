//! How requests end.

use std::time::Instant;

use vllm_platform::SeqId;

use super::EngineLoop;
use crate::{FailureKind, FinishReason, GeneratedToken, RequestId, engine::client::Client, sequence::Sequence};

impl EngineLoop {
    fn named(&self, id: &RequestId) -> Vec<SeqId> {
        let of_that_name = self.clients.iter().filter(|(_, client)| client.id == *id);
        of_that_name.map(|(&seq, _)| seq).collect()
    }

    /// Ends requests whose clients have all they want.
    pub(super) fn stop(&mut self, id: &RequestId) {
        for seq in self.named(id) {
            if let (Some(sequence), Some(client)) = (self.planner.remove(seq), self.forget(seq)) {
                self.end(client, &sequence, FinishReason::Stop, None, Instant::now());
            }
        }
    }

    /// Tells a client that its answer is complete, and books that.
    pub(super) fn end(
        &mut self,
        client: Client,
        sequence: &Sequence,
        reason: FinishReason,
        stop: Option<GeneratedToken>,
        now: Instant,
    ) {
        match reason {
            FinishReason::Stop => self.stats.stopped += 1,
            _ => self.stats.full += 1,
        }
        client.record(sequence, now, &mut self.stats.histograms);
        client.finish(Some(sequence), reason, stop, now);
    }

    pub(super) fn abort(&mut self, id: &RequestId) -> bool {
        let seqs = self.named(id);
        for &seq in &seqs {
            self.cancel(seq);
        }
        self.publish();
        !seqs.is_empty()
    }

    /// Forgets requests whose stream was dropped or whose time is up.
    pub(super) fn drop_cancelled(&mut self) {
        let now = Instant::now();
        let gone = self.clients.iter().filter(|(_, client)| client.is_gone() || client.is_late(now));
        let seqs: Vec<SeqId> = gone.map(|(&seq, _)| seq).collect();
        for seq in seqs {
            if self.clients.get(&seq).is_some_and(Client::is_gone) {
                self.cancel(seq);
            } else {
                self.fail(seq, FailureKind::Timeout, "the request's time is up");
            }
        }
    }

    pub(super) fn cancel(&mut self, seq: SeqId) {
        let sequence = self.planner.remove(seq);
        if let Some(client) = self.forget(seq) {
            self.stats.aborted += 1;
            tracing::debug!(request = %client.id, "cancelled");
            client.finish(sequence.as_ref(), FinishReason::Abort, None, Instant::now());
        }
    }

    pub(super) fn fail(&mut self, seq: SeqId, kind: FailureKind, message: &str) {
        self.planner.remove(seq);
        if let Some(client) = self.forget(seq) {
            self.stats.failed += 1;
            client.fail(kind, message);
        }
    }

    /// Ends the books on a client, and its place in the queue if it still had one.
    pub(super) fn forget(&mut self, seq: SeqId) -> Option<Client> {
        let client = self.clients.remove(&seq)?;
        if client.started.is_none() {
            self.shared.waiting.leave(client.owner.as_ref());
        }
        Some(client)
    }
}
