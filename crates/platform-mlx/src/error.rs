//! This crate's error.

use mlx_rs::error::Exception;

/// `Result` of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between a checkpoint and a token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// MLX refused or failed an operation.
    #[error("MLX: {}", .0.what())]
    Mlx(#[from] Exception),
    /// The model's files.
    #[error(transparent)]
    Checkpoint(#[from] vllm_checkpoint::Error),
    /// No family of that name is linked.
    #[error("unknown architecture {name}; this binary knows: {known}")]
    UnknownArchitecture {
        /// From `config.json`.
        name: String,
        /// Those linked, comma-separated.
        known: String,
    },
    /// A key of `config.json` is missing, mistyped or asks for what isn't supported.
    #[error("config.json: {0}")]
    Config(String),
    /// An option asks for what cannot be had.
    #[error("{0}")]
    Option(String),
    /// A tensor hasn't the shape that the configuration implies.
    #[error("tensor {name}: shape {found:?} in file, {wanted:?} wanted by config.json")]
    Shape {
        /// The tensor's name in the checkpoint.
        name: String,
        /// In the file.
        found: Vec<usize>,
        /// By the configuration.
        wanted: Vec<usize>,
    },
    /// A tensor is stored in a form this layer cannot use.
    #[error("tensor {name}: {problem}")]
    Tensor {
        /// The tensor's name in the checkpoint.
        name: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// An element type that models aren't made of.
    #[error("element type {0} is not supported; f32, f16, bf16, u32 and u8 are")]
    ElementType(String),
    /// Tensors that the architecture has no place for.
    #[error("{count} tensors in the checkpoint have no place in {architecture}: {names}")]
    Surplus {
        /// How many.
        count: usize,
        /// The model's architecture.
        architecture: String,
        /// The first few, comma-separated.
        names: String,
    },
    /// One of our CPU operations failed.
    #[error("[{0}] {1}")]
    Kernel(String, String),
    /// A plan that no model can run: a bug of the caller.
    #[error("bad step plan: {0}")]
    Plan(String),
    /// The device.
    #[error(transparent)]
    Platform(#[from] vllm_platform::Error),
}

impl Error {
    /// As the control plane sees it while a model loads.
    pub(crate) fn into_load_error(self) -> vllm_platform::Error {
        match self {
            Self::Platform(error) => error,
            Self::Mlx(e) if is_out_of_memory(e.what()) => vllm_platform::Error::OutOfMemory(e.what().into()),
            other => vllm_platform::Error::Model(other.to_string()),
        }
    }

    /// As the control plane sees it when a step fails.
    pub(crate) fn into_step_error(self) -> vllm_platform::Error {
        match self {
            Self::Platform(error) => error,
            Self::Mlx(e) if is_out_of_memory(e.what()) => vllm_platform::Error::OutOfMemory(e.what().into()),
            other => vllm_platform::Error::Step(other.to_string()),
        }
    }
}

/// MLX tells an allocation failure only by its text.
fn is_out_of_memory(what: &str) -> bool {
    ["Unable to allocate", "out of memory", "Insufficient Memory", "malloc"].iter().any(|s| what.contains(s))
}
