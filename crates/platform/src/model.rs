//! What the control plane knows about a model.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::DeviceKind;

/// Where a model's files are: a Hugging Face directory or a GGUF file, already on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSource {
    /// Directory or file.
    pub path: PathBuf,
}

/// KV storage: blocks of equal length in tokens, in one pool for each kind of layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KvCacheSpec {
    /// Tokens a block holds, in every group.
    pub block_size: usize,
    /// What a stored number is.
    pub dtype: KvDtype,
    /// Kinds of layers, at least one. A sequence has one block table for each.
    pub groups: Vec<KvGroup>,
    /// A block's content may be taken over by another sequence with at most this many of its last tokens cut off:
    /// storage that forgets what its layers no longer read cannot go back further. What was forgotten stays so in
    /// copies. `None`: any number.
    pub rewind: Option<usize>,
}

/// Layers that share a block table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct KvGroup {
    /// A token is read by this many tokens, itself included, and then never again; `None`: by all that follow.
    pub window: Option<usize>,
    /// Blocks in this group's pool.
    pub num_blocks: usize,
    /// Bytes of one block over all layers of the group.
    pub block_bytes: u64,
}

/// Numbers that keys and values are stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvDtype {
    /// 4 bytes.
    F32,
    /// 2 bytes.
    F16,
    /// 2 bytes.
    Bf16,
    /// 1 byte, and beside the numbers of a head a scale that they share.
    Int8,
}

impl KvDtype {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::Bf16, Self::Int8];

    /// Bytes of one number, without the scale that it may share with others.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Int8 => 1,
        }
    }

    /// Bytes of one head's keys, or values, of a token: numbers and what they share.
    #[must_use]
    pub const fn head_bytes(self, head_dim: usize) -> usize {
        head_dim * self.size() + if matches!(self, Self::Int8) { size_of::<f32>() } else { 0 }
    }

    /// As options, logs and metrics call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

impl fmt::Display for KvDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl KvGroup {
    /// The first block of a table that is still read once `computed` tokens are stored: those before it can go.
    #[must_use]
    pub fn first_read(&self, computed: usize, block_size: usize) -> usize {
        // The next token, at position `computed`, sees itself and the `window - 1` before it.
        self.window.map_or(0, |window| (computed + 1).saturating_sub(window) / block_size)
    }

    /// Most blocks of this group that a sequence of `tokens` tokens ever holds at once if it is computed in steps of at
    /// most `chunk` tokens.
    #[must_use]
    pub fn blocks_for(&self, tokens: usize, chunk: usize, block_size: usize) -> usize {
        let all = tokens.div_ceil(block_size);
        // A window that starts in the middle of a block ends in the middle of another.
        self.window.map_or(all, |window| all.min((window + chunk).div_ceil(block_size) + 1))
    }
}

impl KvCacheSpec {
    /// Tokens of one sequence that the storage has room for: what its smallest group without a window holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        let whole = self.groups.iter().filter(|group| group.window.is_none());
        let blocks = whole.map(|group| group.num_blocks).min();
        blocks.or_else(|| self.groups.iter().map(|group| group.num_blocks).min()).unwrap_or(0) * self.block_size
    }

    /// Bytes of all blocks of all groups.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.groups.iter().map(|group| group.block_bytes * group.num_blocks as u64).sum()
    }

    /// Bytes that one token takes over all groups.
    #[must_use]
    pub fn bytes_per_token(&self) -> u64 {
        self.groups.iter().map(|group| group.block_bytes).sum::<u64>() / self.block_size.max(1) as u64
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
    /// Names weights, configuration and KV layout: blocks exported under one name mean the same under the same name, in
    /// any process. 64 hexadecimal digits.
    pub kv_fingerprint: String,
}
