//! What a tier is opened with, and why it isn't.

use std::{io, path::PathBuf};

use vllm_platform::KvDtype;

/// What an [`SsdTier`](super::SsdTier) is opened with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SsdConfig {
    /// Folder of all models' folders; made if it isn't there.
    pub dir: PathBuf,
    /// Most bytes of all block files in it.
    pub max_bytes: u64,
    /// [`ModelInfo::kv_fingerprint`](vllm_platform::ModelInfo::kv_fingerprint): names the model's folder, so letters,
    /// digits, `-` and `_` only, at most 128.
    pub fingerprint: String,
    /// Type of the numbers that blocks hold.
    pub dtype: KvDtype,
    /// Whether blocks are stored in 8 bits a number: half to a quarter of the size, and not exactly what was computed.
    ///
    /// Every 64 numbers share a scale. A number is off by at most m/254, m the largest magnitude of its 64, and by what
    /// rounding to [`dtype`](Self::dtype) adds: at most m·2⁻²⁴ (f32), m·2⁻¹¹ or, if that is more, 2⁻²⁵ (f16), m·2⁻⁸
    /// (bf16). Where m is under 2⁻¹¹⁹ all 64 may become zero. Bytes that hold an infinity or a NaN are stored as they
    /// are, a whole group of a block at a time; so are numbers of one byte.
    pub quantize: bool,
    /// Most bytes of blocks that wait to be written, and, on their own, of blocks read that wait to be polled; a block
    /// larger than this is never written.
    pub queue_bytes: usize,
}

impl SsdConfig {
    /// The usual [`queue_bytes`](Self::queue_bytes): 256 MiB, room for a few of the largest blocks there are.
    pub const QUEUE_BYTES: usize = 256 << 20;
}

/// Why an [`SsdTier`](super::SsdTier) was not opened.
#[derive(Debug, thiserror::Error)]
pub enum SsdError {
    /// The folder cannot be made, or nothing can be written to it.
    #[error(
        "the SSD cache cannot use {}: {source}; give --ssd-cache-dir a folder on a local disk that this user may \
         write to, or leave it out", path.display()
    )]
    Folder {
        /// The file or folder that it failed at.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another tier, of this process or of another one, has the folder open for the same model.
    #[error(
        "the SSD cache {} is in use by another server with the same model; stop that one, or give this one an \
         --ssd-cache-dir of its own", path.display()
    )]
    InUse {
        /// The model's folder.
        path: PathBuf,
    },
    /// The fingerprint cannot be the name of a folder.
    #[error("{0:?} cannot name a folder of the SSD cache: 1 to 128 letters, digits, - and _ are wanted")]
    Fingerprint(String),
    /// A thread could not be started.
    #[error("a thread of the SSD cache could not be started: {0}")]
    Thread(io::Error),
}
