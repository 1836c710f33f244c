//! One model over several machines.
//!
//! Each machine runs a process, a *rank*, with some of the model's layers ([`vllm_platform::StageRunner`]). [Rank 0](lead) has the
//! last ones and is where requests are; the others [follow]. For each step rank 0 sends its plan to all over a *line*, a TCP
//! connection to each; hidden states go from rank r + 1 to r over a connection of their own, or over a
//! [transport](Transport) of the platform's. Block tables are the same everywhere, so every rank keeps the keys and values of its
//! own layers and nobody else need know of them.
//!
//! A rank that dies is noticed by its line: the connection closes, or nothing is heard for [`SILENCE`]. The step under way fails
//! then, everybody lets go of everybody, and rank 0 tries to join all ranks again.
//!
//! Lines are for trusted networks: both ends prove that they know the same token, but what they say afterwards is not encrypted.
//!
//! *Invariant*: no tensor, no tokio. Threads and blocking sockets of the standard library, so that a step waits for nothing else.

mod assignment;
mod carrier;
mod follow;
mod greet;
mod lead;
mod line;
mod plan;
mod runner;
mod session;
mod split;
mod status;
mod tcp;
mod threaded;
mod wire;

use std::{sync::Arc, time::Duration};

use vllm_platform::Link;

pub use assignment::Transport;
pub use follow::{Follower, follow};
pub use greet::Token;
pub use lead::{Pipeline, lead};
pub use runner::PipelineRunner;
pub use split::{Split, SplitError, split};
pub use status::{PipelineStatus, RankStatus};

/// A rank that wasn't heard for so long is gone. Every rank says something once a second.
pub const SILENCE: Duration = Duration::from_secs(10);

/// Tells the operator something, from any thread.
pub type Say = Arc<dyn Fn(&str) + Send + Sync>;

/// Joins the other processes over a transport of the platform's, on the thread that calls.
pub type OpenLink = Arc<dyn Fn(&str) -> vllm_platform::Result<Box<dyn Link>> + Send + Sync>;

/// What both ends of a pipeline have to know of the process they are in.
#[derive(Clone)]
pub struct Surroundings {
    /// Both ends must have the same; `None`: anybody may be the other end.
    pub token: Option<Token>,
    /// For the operator.
    pub say: Say,
    /// For transports other than [`Transport::Tcp`].
    pub open_link: OpenLink,
}

/// Why ranks are not together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another try may succeed: a rank is not there yet, or no longer.
    #[error("{0}")]
    Gone(String),
    /// It won't: other weights, another version, a wrong token, options that don't go together.
    #[error("{0}")]
    Refused(String),
    /// Ranks have lost each other over a transport that can't be joined again: this process has to end, and all others.
    #[error("{0}")]
    Over(String),
    /// The stage of this rank.
    #[error(transparent)]
    Stage(#[from] vllm_platform::Error),
}

/// `Result` of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
