//! What others may know of a pipeline, from any thread.

use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Whether all ranks are together. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct PipelineStatus(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    problem: Option<String>,
    over: Option<String>,
    ranks: Vec<RankStatus>,
}

/// One of the ranks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankStatus {
    /// Its number.
    pub rank: usize,
    /// Where it listens; `None`: rank 0.
    pub address: Option<String>,
    /// Its layers.
    pub layers: Range<usize>,
    /// Its device.
    pub device: String,
    /// Bytes of its weights.
    pub weight_bytes: u64,
}

impl PipelineStatus {
    /// Why no request can be computed; `None`: all ranks are there.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.state().problem.clone()
    }

    /// The ranks, as they last were together.
    #[must_use]
    pub fn ranks(&self) -> Vec<RankStatus> {
        self.state().ranks.clone()
    }

    /// Why the ranks can't be joined again: this process has to end.
    #[must_use]
    pub fn over(&self) -> Option<String> {
        self.state().over.clone()
    }

    pub(crate) fn set_over(&self, why: String) {
        self.state().over = Some(why);
    }

    pub(crate) fn set_problem(&self, why: Option<String>) {
        self.state().problem = why;
    }

    pub(crate) fn set_ranks(&self, ranks: Vec<RankStatus>) {
        *self.state() = State { problem: None, over: None, ranks };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
