//! Why an engine doesn't start, and why it doesn't take a request.

use vllm_platform::sampling::InvalidParam;

/// Why [`Engine::start`](crate::Engine::start) failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The model could not be loaded.
    #[error(transparent)]
    Load(#[from] vllm_platform::Error),
    /// A figure of [`EngineConfig`](crate::EngineConfig) makes no sense.
    #[error("{field} is {value}: it must be {allowed}")]
    Config {
        /// Name of the field.
        field: &'static str,
        /// The value given.
        value: usize,
        /// What would be right.
        allowed: String,
    },
    /// Loading panicked; the text is the panic's.
    #[error("loading the model panicked: {0}")]
    Panicked(String),
    /// The tier of the prefix cache on the SSD could not be opened.
    #[error("{0}")]
    Ssd(String),
    /// The operating system gave no thread.
    #[error("no thread for the engine: {0}")]
    Thread(String),
}

/// Why [`EngineHandle::submit`](crate::EngineHandle::submit) refused a request. It left nothing behind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// There is nothing to continue.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// `max_tokens` is 0.
    #[error("max_tokens is 0: it must be at least 1")]
    NoTokens,
    /// Prompt and answer are longer than the model's context.
    #[error(
        "the prompt has {prompt} tokens and the answer may have {max_tokens}, {} together: this model's context \
         has {context}", prompt + max_tokens
    )]
    ContextLength {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens asked for.
        max_tokens: usize,
        /// Tokens that the model takes.
        context: usize,
    },
    /// Prompt and answer are longer than all KV storage.
    #[error(
        "prompt and answer need {needed} KV blocks, there are {blocks} of {block_size} tokens: shorten them, or \
         give the KV cache more memory"
    )]
    NeverFits {
        /// Blocks the request needs.
        needed: usize,
        /// Blocks there are.
        blocks: usize,
        /// Tokens a block holds.
        block_size: usize,
    },
    /// A text to be encoded is longer than the model takes.
    #[error("text {index} has {tokens} tokens, and this model takes {limit}")]
    InputLength {
        /// Which of the request's texts.
        index: usize,
        /// Its tokens.
        tokens: usize,
        /// Tokens that the model takes.
        limit: usize,
    },
    /// A token id isn't in the vocabulary.
    #[error("token {token} is not in this model's vocabulary of {vocab}")]
    UnknownToken {
        /// The token.
        token: u32,
        /// Tokens there are.
        vocab: usize,
    },
    /// A picture stands where it cannot be.
    #[error("medium {index} of the prompt {what}")]
    Media {
        /// Which of [`Request::media`](crate::Request::media).
        index: usize,
        /// What is wrong with it.
        what: String,
    },
    /// Something to say cannot be said.
    #[error("utterance {index} {what}")]
    Utterance {
        /// Which of the request's.
        index: usize,
        /// What is wrong with it.
        what: String,
    },
    /// A sound cannot be heard, or not as asked.
    #[error("{0}")]
    Sound(String),
    /// A sampling parameter is out of its range.
    #[error(transparent)]
    Params(#[from] InvalidParam),
    /// Too many requests wait already.
    #[error("{limit} requests wait already: try again later")]
    Busy {
        /// Requests that may wait.
        limit: usize,
    },
    /// Too many requests of this client wait already.
    #[error("{limit} of your requests wait already: try again later")]
    ClientBusy {
        /// Requests of one client that may wait.
        limit: usize,
    },
    /// The engine finishes what it has and takes nothing new.
    #[error("the server is shutting down")]
    Draining,
    /// The engine's thread has ended.
    #[error("the engine has stopped: {0}")]
    Stopped(String),
}

/// Why a cache was not flushed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlushError {
    /// There were requests all the time.
    #[error("{running} requests are running and {waiting} wait: the cache is flushed when there are none")]
    InFlight {
        /// Requests that ran at the end of it.
        running: usize,
        /// Requests that waited then.
        waiting: usize,
    },
    /// The engine's thread has ended.
    #[error("the engine has stopped")]
    Stopped,
}
