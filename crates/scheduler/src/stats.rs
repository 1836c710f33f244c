//! What an engine tells about itself.

use std::time::Instant;

/// Where an engine stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EngineState {
    /// It takes requests.
    #[default]
    Running,
    /// It finishes what it has and takes nothing new.
    Draining,
    /// Its thread has ended, after a drain or a shutdown.
    Stopped,
    /// Its thread has ended because the runner panicked again and again.
    Broken,
}

/// Figures since the start, as of the end of the last step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Where the engine stands.
    pub state: EngineState,
    /// Requests that are being computed.
    pub running: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Steps taken.
    pub steps: u64,
    /// Prompt tokens computed.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Requests that ended by themselves.
    pub finished: u64,
    /// Requests that were cancelled.
    pub aborted: u64,
    /// Requests that failed.
    pub failed: u64,
    /// KV blocks that requests hold.
    pub blocks_in_use: usize,
    /// KV blocks in all.
    pub blocks: usize,
    /// When the last step ended.
    pub last_step: Option<Instant>,
}
