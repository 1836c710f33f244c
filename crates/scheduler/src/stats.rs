//! What an engine tells about itself.

use std::time::{Duration, Instant};

use vllm_cache::SsdStats;
use vllm_platform::WorkTime;

use crate::{Histogram, RequestId};

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

/// What engines that hear and speak have among their figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkStats {
    /// Where the engine stands.
    pub state: EngineState,
    /// Requests that nothing has been done for yet.
    pub waiting: usize,
    /// Requests that are under way.
    pub running: usize,
    /// Requests that were answered.
    pub finished: u64,
    /// Requests whose clients went away.
    pub cancelled: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Time that calls of the model took, giving way to others in their midst included.
    pub busy: Duration,
    /// When the last of them ended.
    pub last_call: Option<Instant>,
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
    /// Prompt tokens computed; those found in the cache are not among them.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Requests that ended with a stop token.
    pub stopped: u64,
    /// Requests that ended at their `max_tokens`.
    pub full: u64,
    /// Requests that were cancelled.
    pub aborted: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Times that a request gave its place or its blocks up to another.
    pub preemptions: u64,
    /// KV blocks, by group.
    pub blocks: Vec<BlockStats>,
    /// What the prefix cache did.
    pub prefix_cache: PrefixCacheStats,
    /// The tier below memory, if there is one.
    pub ssd: Option<SsdStats>,
    /// How requests fared.
    pub histograms: Histograms,
    /// When the last step ended.
    pub last_step: Option<Instant>,
}

impl Stats {
    /// Requests that ended by themselves.
    #[must_use]
    pub fn finished(&self) -> u64 {
        self.stopped + self.full
    }

    /// Blocks that requests hold, over all groups.
    #[must_use]
    pub fn blocks_in_use(&self) -> usize {
        self.blocks.iter().map(|group| group.in_use).sum()
    }
}

/// What an engine's thread spent its time on, since it was last asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Steps taken.
    pub steps: u64,
    /// Time gone by.
    pub wall: Duration,
    /// Of that, in the runner's steps.
    pub in_steps: Duration,
    /// Of that, by kind of work.
    pub work: Vec<WorkTime>,
}

/// The blocks of one group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlockStats {
    /// Blocks in all.
    pub total: usize,
    /// Blocks that requests hold.
    pub in_use: usize,
    /// Blocks that nobody holds and that hold a prefix somebody may come back to.
    pub cached: usize,
    /// Bytes of one block.
    pub block_bytes: u64,
}

/// What the prefix cache did, counted in tokens of prompts when they were first admitted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PrefixCacheStats {
    /// Whether it is on.
    pub enabled: bool,
    /// Tokens looked up.
    pub queries: u64,
    /// Tokens found.
    pub hits: u64,
    /// Tokens found that had been read back from the SSD.
    pub ssd_hits: u64,
    /// Of the tokens looked up, those that stand for pictures.
    pub media_queries: u64,
    /// Of the tokens found, those that stand for pictures.
    pub media_hits: u64,
    /// Requests that found something.
    pub hit_requests: u64,
    /// Requests that found nothing.
    pub missed_requests: u64,
    /// Blocks copied because only a part of them was shared.
    pub copies: u64,
    /// Blocks whose prefix was forgotten to make room.
    pub evictions: u64,
    /// Blocks in the index, those in use too.
    pub indexed_blocks: usize,
}

/// How requests fared. Times are in seconds.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Histograms {
    pub time_to_first_token: Histogram,
    pub inter_token_latency: Histogram,
    pub e2e_latency: Histogram,
    pub queue_time: Histogram,
    pub prefill_time: Histogram,
    pub decode_time: Histogram,
    pub inference_time: Histogram,
    pub prompt_tokens: Histogram,
    pub generation_tokens: Histogram,
    pub max_tokens: Histogram,
    /// Tokens of each step.
    pub iteration_tokens: Histogram,
}

impl Default for Histograms {
    fn default() -> Self {
        let seconds = || Histogram::new(&SECONDS);
        let tokens = || Histogram::new(&TOKENS);
        Self {
            time_to_first_token: seconds(),
            inter_token_latency: Histogram::new(&GAPS),
            e2e_latency: seconds(),
            queue_time: seconds(),
            prefill_time: seconds(),
            decode_time: seconds(),
            inference_time: seconds(),
            prompt_tokens: tokens(),
            generation_tokens: tokens(),
            max_tokens: tokens(),
            iteration_tokens: tokens(),
        }
    }
}

const SECONDS: [f64; 18] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0];
const GAPS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.5, 10.0];
const TOKENS: [f64; 18] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5];

/// Where one request stands.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestStatus {
    /// Its name.
    pub id: RequestId,
    /// What is being done to it.
    pub phase: Phase,
    /// Its priority.
    pub priority: i32,
    /// Tokens of its prompt.
    pub prompt_tokens: usize,
    /// Of these, tokens that were found in the cache.
    pub cached_tokens: usize,
    /// Tokens whose KV is stored.
    pub computed_tokens: usize,
    /// Tokens generated.
    pub generated_tokens: usize,
    /// Most tokens it may generate.
    pub max_tokens: usize,
    /// Since its submission.
    pub age: Duration,
    /// From submission to its first token, if it has one.
    pub ttft: Option<Duration>,
}

/// What is being done to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It waits for its turn.
    Waiting,
    /// Its prefix is being read from the SSD.
    Loading,
    /// Its pictures are being encoded, or their features read from the SSD.
    Encoding,
    /// Its prompt is being computed.
    Prefill,
    /// Its answer is being computed.
    Decode,
}
