//! Errors that cross the seam.

/// `Result` of everything a platform does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong below the seam. Backends put their own errors' text into these.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `--device` named a device that isn't there.
    #[error("device {wanted} is not present; this build of MLX has: {available}")]
    DeviceAbsent {
        /// The device asked for.
        wanted: String,
        /// Those present, comma-separated.
        available: String,
    },
    /// No platform is linked into this binary.
    #[error("no platform is linked into this binary")]
    NoPlatform,
    /// The model's files are unusable: the message names file, tensor or key.
    #[error("{0}")]
    Model(String),
    /// Memory ran out; the step's sequences are lost, the runner lives on.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// A step failed otherwise; the step's sequences are lost, the runner lives on.
    #[error("{0}")]
    Step(String),
}
