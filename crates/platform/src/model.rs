//! What the control plane knows about a model.

use std::path::PathBuf;

use serde::Serialize;

use crate::DeviceKind;

/// Where a model's files are: a Hugging Face directory or a GGUF file, already on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSource {
    /// Directory or file.
    pub path: PathBuf,
}

/// The KV cache's unit of storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct KvCacheSpec {
    /// Tokens a block holds.
    pub block_size: usize,
    /// Blocks there are.
    pub num_blocks: usize,
    /// Bytes of one token over all layers.
    pub bytes_per_token: u64,
}

impl KvCacheSpec {
    /// Blocks that `tokens` tokens need.
    #[must_use]
    pub fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_size)
    }

    /// Tokens that fit in all.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.num_blocks * self.block_size
    }
}

/// A loaded model, in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelInfo {
    /// As in `config.json`'s `architectures`.
    pub architecture: String,
    /// Device it runs on.
    pub device: DeviceKind,
    /// Parameters; a quantized weight counts as what it stands for.
    pub parameters: u64,
    /// Bytes of all weights as held in memory.
    pub weight_bytes: u64,
    /// E.g. `affine 4 bit, group 32`, or `bf16`.
    pub quantization: String,
    /// Longest sequence, prompt and answer together, in tokens.
    pub context_length: usize,
    /// Rows of the output matrix.
    pub vocab_size: usize,
    /// KV storage.
    pub kv_cache: KvCacheSpec,
}
