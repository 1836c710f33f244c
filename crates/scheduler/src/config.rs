//! What an engine is started with.

use std::path::PathBuf;

use crate::StartError;

/// Bounds of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// Sequences computed at once.
    pub max_num_seqs: usize,
    /// Tokens computed in one step, prompt chunks and answers together; at least `max_num_seqs`. The default suits a
    /// CPU: 512 is no faster there, and answers in progress would wait twice as long for a long prompt's chunks.
    pub max_num_batched_tokens: usize,
    /// Requests that may wait; more are refused as [`SubmitError::Busy`](crate::SubmitError::Busy).
    pub max_waiting: usize,
    /// Requests of one [`client`](crate::Request::client) that may wait; more are refused as
    /// [`SubmitError::ClientBusy`](crate::SubmitError::ClientBusy). Requests of nobody only count to `max_waiting`.
    pub max_waiting_per_client: usize,
    /// Most tokens of one prompt in one step; `None`: whatever `max_num_batched_tokens` leaves.
    pub prefill_step_size: Option<usize>,
    /// Whether prefixes are kept and found again.
    pub prefix_cache: bool,
    /// A tier of the prefix cache below memory.
    pub ssd: Option<SsdOptions>,
}

/// Where and how much of the prefix cache is kept on an SSD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SsdOptions {
    /// Folder for it; made if it isn't there.
    pub dir: PathBuf,
    /// Most bytes of all files in it.
    pub max_bytes: u64,
    /// Whether blocks are stored in 8 bits: half to a quarter of the size, and not exactly what was computed.
    pub quantize: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            max_num_seqs: 16,
            max_num_batched_tokens: 256,
            max_waiting: 2048,
            max_waiting_per_client: 1536,
            prefill_step_size: None,
            prefix_cache: true,
            ssd: None,
        }
    }
}

impl EngineConfig {
    pub(crate) fn check(&self) -> Result<(), StartError> {
        let error = |field, value, allowed: String| Err(StartError::Config { field, value, allowed });
        if self.max_num_seqs == 0 {
            return error("max_num_seqs", 0, "at least 1".into());
        }
        if self.max_num_batched_tokens < self.max_num_seqs {
            let allowed = format!("at least max_num_seqs, {}", self.max_num_seqs);
            return error("max_num_batched_tokens", self.max_num_batched_tokens, allowed);
        }
        for (field, value) in [
            ("max_waiting", self.max_waiting),
            ("max_waiting_per_client", self.max_waiting_per_client),
            ("prefill_step_size", self.prefill_step_size.unwrap_or(1)),
        ] {
            if value == 0 {
                return error(field, 0, "at least 1".into());
            }
        }
        if self.ssd.is_some() && !self.prefix_cache {
            return Err(StartError::Ssd("an SSD cache needs the prefix cache, which is disabled".into()));
        }
        Ok(())
    }
}
