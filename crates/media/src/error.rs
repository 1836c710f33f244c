//! Why media can't be had.

/// What sort of problem it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaErrorKind {
    /// It isn't what it says, or is damaged.
    Invalid,
    /// A format that can't be read, or not on this machine.
    Unsupported,
    /// More bytes, pixels or frames than are allowed.
    TooLarge,
    /// A place that this server doesn't read from.
    Forbidden,
    /// It couldn't be fetched.
    Unreachable,
    /// Fetching or decoding it took too long.
    Timeout,
}

/// Why media can't be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct MediaError {
    /// What sort of problem it is.
    pub kind: MediaErrorKind,
    /// In one line, for whoever sent it.
    pub message: String,
}

impl MediaError {
    /// An error of this kind.
    #[must_use]
    pub fn new(kind: MediaErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}
