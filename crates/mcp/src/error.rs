//! What can go wrong with a call, and with an offer.

use std::time::Duration;

/// Why a tool could not be called, or gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No server has it.
    #[error("there is no tool {0:?}: GET /v1/mcp/tools lists them")]
    UnknownTool(String),
    /// The configuration doesn't allow it.
    #[error("the tool {tool:?} may not be called: {reason}")]
    Refused {
        /// Its full name.
        tool: String,
        /// What would have to change.
        reason: &'static str,
    },
    /// Arguments that its schema, or its server, refuses.
    #[error("{tool}: {problem}")]
    BadArguments {
        /// The tool's full name.
        tool: String,
        /// What is wrong.
        problem: String,
    },
    /// Called too often.
    #[error("{tool} was called too often: again in {} s", retry_after.as_secs() + 1)]
    RateLimited {
        /// The tool's full name.
        tool: String,
        /// When it may be called again.
        retry_after: Duration,
    },
    /// Its server is not connected.
    #[error("the MCP server {server:?} is {state}")]
    Unavailable {
        /// The server.
        server: String,
        /// Its state, and why.
        state: String,
    },
    /// No answer in time; the server was told to stop.
    #[error("{tool} gave no answer within {limit:?}")]
    Timeout {
        /// The tool's full name.
        tool: String,
        /// How long it had.
        limit: Duration,
    },
    /// The connection broke, or the server doesn't speak the protocol.
    #[error("{tool}: {problem}")]
    Failed {
        /// The tool's full name.
        tool: String,
        /// What happened.
        problem: String,
    },
}

/// Why a selection of tools can't be offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// No such server in the configuration.
    #[error("there is no MCP server {0:?}: GET /v1/mcp/servers lists them")]
    UnknownServer(String),
    /// The server has no such tool, or it may not be called.
    #[error("the MCP server {server:?} has no tool {tool:?}, or it is not allowed here")]
    UnknownTool {
        /// The server.
        server: String,
        /// The tool.
        tool: String,
    },
    /// The server is not connected.
    #[error("the MCP server {server:?} is {state}")]
    Unavailable {
        /// The server.
        server: String,
        /// Its state, and why.
        state: String,
    },
}
